//! Probes: how far away another host is, and how fast the way there (`PROTOCOL.md`, "Probes").

use crate::{migrate::road::Directory, text::describe};
use novacron_common::{
    ids::HostId,
    record::LinkMeasure,
    wire::{
        Denial, DenialCode, PROBE_BYTES_MAX, PROBE_MS_MAX, ProbeCount, ProbeOpen, ProbeVerdict, StreamKind,
    },
};
use novacron_transport::{Endpoint, Link, LinkError, RecvHalf, Role, Stream};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};

/// Probes that a host sends, and as many that it receives, at the same time.
pub const PROBES_MAX: usize = 2;
/// For the whole of one, the dialling included.
const DEADLINE: Duration = Duration::from_secs(5);
const COUNTED: Duration = Duration::from_millis(PROBE_MS_MAX);
/// Written and read at a time.
const CHUNK: usize = 64 << 10;

/// Sends probes, and receives those of others. Clones share their limits.
#[derive(Clone)]
pub struct Prober {
    endpoint: Endpoint,
    directory: Directory,
    sends: Arc<Semaphore>,
    receives: Arc<Semaphore>,
    /// How long a sender is counted.
    window: Duration,
}

/// Why a way was not measured.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("{0} is no member of the cluster")]
    NotAMember(HostId),
    #[error("no link to the host")]
    Link(#[from] LinkError),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    TooSlow,
}

impl Prober {
    /// To the members that `directory` knows.
    pub fn new(endpoint: Endpoint, directory: Directory) -> Self {
        let turns = || Arc::new(Semaphore::new(PROBES_MAX));
        Self { endpoint, directory, sends: turns(), receives: turns(), window: COUNTED }
    }

    /// As [`Self::new`], and counts a sender for `window`.
    #[cfg(test)]
    pub fn with_window(self, window: Duration) -> Self {
        Self { window, ..self }
    }

    /// Measures the way to `host`; its rate only where all is `quiet`, so that bytes disturb nothing.
    pub async fn measure(&self, host: HostId, quiet: bool) -> LinkMeasure {
        let mut measure = LinkMeasure { host, rate: None, round_trip_us: None, note: None };
        let tried = timeout(DEADLINE, self.try_measure(&mut measure, quiet)).await;
        if let Err(error) = tried.unwrap_or(Err(ProbeError::TooSlow)) {
            measure.note = Some(describe(&error));
        }
        measure
    }

    async fn try_measure(&self, measure: &mut LinkMeasure, quiet: bool) -> Result<(), ProbeError> {
        // The semaphore is never closed.
        let _turn = self.sends.acquire().await.map_err(|_| ProbeError::TooSlow)?;
        let host = measure.host;
        let address = (self.directory)(host).ok_or(ProbeError::NotAMember(host))?;
        // Of its own: what waits in its window waits behind nothing else.
        let link = self.endpoint.connect(address, &Role::Agent { host }).await?;
        let outcome = exchange(&link, measure, quiet).await;
        link.close("the probe is over");
        Ok(outcome?)
    }

    /// Serves a `Probe` stream of another agent, if nothing is under way here that it could disturb.
    ///
    /// # Errors
    /// [`LinkError`] if the stream broke.
    pub async fn serve(&self, mut stream: Stream, quiet: bool) -> Result<(), LinkError> {
        let ProbeOpen { bytes } = stream.recv().await?;
        let turn = match self.admit(bytes, quiet) {
            Ok(turn) => turn,
            Err(denial) => {
                stream.send(&ProbeVerdict::Refused(denial)).await?;
                stream.finish();
                return Ok(());
            }
        };
        stream.send(&ProbeVerdict::Go).await?;
        let (mut send, mut recv) = stream.split();
        let count = count(&mut recv, bytes.into(), self.window).await;
        // Before the answer: who has it may probe again at once.
        drop(turn);
        send.send(&count).await?;
        send.finish();
        Ok(())
    }

    /// A turn for a probe of `bytes`; what is refused takes none.
    fn admit(&self, bytes: u32, quiet: bool) -> Result<SemaphorePermit<'_>, Denial> {
        let refused = |code, text| Denial { code, text };
        if !(1..=PROBE_BYTES_MAX).contains(&bytes) {
            return Err(refused(DenialCode::Invalid, format!("a probe has 1 to {PROBE_BYTES_MAX} bytes")));
        }
        if !quiet {
            return Err(refused(DenialCode::Conflict, "moves are under way there".to_owned()));
        }
        self.receives
            .try_acquire()
            .map_err(|_| refused(DenialCode::NoRoom, format!("{PROBES_MAX} probes are under way there")))
    }
}

async fn exchange(link: &Link, measure: &mut LinkMeasure, quiet: bool) -> Result<(), LinkError> {
    let mut stream = link.open(StreamKind::Probe).await?;
    let asked = Instant::now();
    stream.send(&ProbeOpen { bytes: PROBE_BYTES_MAX }).await?;
    let verdict = stream.recv::<ProbeVerdict>().await?;
    let round_trip = asked.elapsed().min(link.round_trip());
    measure.round_trip_us = u64::try_from(round_trip.as_micros()).ok();
    match verdict {
        ProbeVerdict::Refused(denial) => measure.note = Some(denial.text),
        ProbeVerdict::Go if !quiet => {
            measure.note = Some("moves are under way here: its rate was not measured".to_owned());
        }
        ProbeVerdict::Go => measure.rate = send(stream).await?.rate(),
    }
    Ok(())
}

/// Sends until all is away, or the other side has counted enough.
async fn send(stream: Stream) -> Result<ProbeCount, LinkError> {
    let (mut send, mut recv) = stream.split();
    let chunk = vec![0; CHUNK];
    let writing = async {
        for _ in 0..PROBE_BYTES_MAX as usize / CHUNK {
            if send.write_all(&chunk).await.is_err() {
                return;
            }
        }
        send.finish();
    };
    tokio::pin!(writing);
    let counting = recv.recv::<ProbeCount>();
    tokio::pin!(counting);
    tokio::select! {
        counted = &mut counting => counted,
        () = &mut writing => counting.await,
    }
}

/// Counts what comes, up to `bytes` and for `window` at most.
async fn count(recv: &mut RecvHalf, bytes: u64, window: Duration) -> ProbeCount {
    let until = Instant::now() + window;
    let (mut buffer, mut seen, mut began) = (vec![0; CHUNK], 0, None);
    let mut last = Instant::now();
    while seen < bytes {
        match timeout_at(until, recv.read(&mut buffer)).await {
            Ok(Ok(more @ 1..)) => seen += more as u64,
            Ok(Ok(0) | Err(_)) | Err(_) => break,
        }
        last = Instant::now();
        if began.is_none() && seen * 4 >= bytes {
            began = Some((last, seen));
        }
    }
    began.map_or_else(ProbeCount::default, |(since, before)| ProbeCount {
        bytes: seen - before,
        micros: u64::try_from((last - since).as_micros()).unwrap_or(u64::MAX),
    })
}
