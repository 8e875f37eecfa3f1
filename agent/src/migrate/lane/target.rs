//! The target's end: checks each lane's ticket, and connects it onwards to libvirtd or QEMU.

use super::{
    cold, control,
    relay::{self, Way},
    source::name,
};
use crate::{migrate::filter::Expectation, text::describe};
use novacron_common::{
    ids::HostId,
    record::Ticket,
    units::UnixMillis,
    wire::{Denial, DenialCode, LaneKind, LaneOpen, LaneVerdict},
};
use novacron_transport::Stream;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::UnixStream, sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Memory channels: the main one and multifd's.
const MEMORY_MAX: u32 = 17;
/// Disk connections, those that are made again after a break included.
const DISK_MAX: u32 = 16;
/// How long QEMU may take until it listens.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);
const LISTEN_POLL: Duration = Duration::from_millis(10);

/// What a lane tells the migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LaneEvent {
    /// The ticket is spent: the copy begins.
    Begun,
    /// libvirt here said that it finished well: look.
    Finished,
    /// The control lane is over, or refused a message.
    Over {
        /// What was refused, if that is why.
        refused: Option<String>,
    },
    /// A stopped machine's disk is here (and whether the machine ran before), or is not.
    Landed(Result<bool, String>),
}

/// Where lanes lead to.
#[derive(Debug, Clone)]
pub enum Onward {
    /// A running machine: to libvirtd through the filter, and to QEMU.
    Live {
        /// The socket of this host's libvirtd.
        libvirt: PathBuf,
        /// Where QEMU listens for memory.
        memory: PathBuf,
        /// Where QEMU listens for disks.
        disk: PathBuf,
        /// What the filter holds the source to.
        expectation: Box<Expectation>,
    },
    /// A stopped one: its disk goes into this file.
    Cold(cold::Landing),
}

#[derive(Debug, Default)]
struct Seen {
    control: bool,
    prepared: bool,
    memory: u32,
    disk: u32,
}

/// Lets the lanes of one migration in.
#[derive(Debug)]
pub struct Door {
    ticket: Ticket,
    onward: Onward,
    events: mpsc::Sender<LaneEvent>,
    stop: CancellationToken,
    seen: Mutex<Seen>,
}

impl Door {
    /// A door that honours `ticket`, and tells of what happens in `events`.
    pub fn new(ticket: Ticket, onward: Onward, events: mpsc::Sender<LaneEvent>) -> Self {
        Self { ticket, onward, events, stop: CancellationToken::new(), seen: Mutex::default() }
    }

    /// Cuts every lane, and lets no more in.
    pub fn shut(&self) {
        self.stop.cancel();
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this lane may be opened, and if so, counts it.
    ///
    /// # Errors
    /// The denial that the source is sent.
    fn admit(&self, open: &LaneOpen, peer: HostId, now: UnixMillis) -> Result<(), Denial> {
        let invalid = |text: &str| Err(Denial { code: DenialCode::Invalid, text: text.to_owned() });
        if !is_same(&self.ticket, &open.ticket) || peer != self.ticket.source {
            return invalid("the ticket is not the one that was agreed upon");
        }
        if self.stop.is_cancelled() {
            return invalid("the migration is over here");
        }
        let mut seen = self.seen();
        let began = seen.control || seen.disk > 0;
        // What began in time may go on.
        if !began && now > self.ticket.expires_at {
            return invalid("the ticket has expired");
        }
        match (open.kind, &self.onward) {
            (LaneKind::Control, Onward::Live { .. }) if !seen.control => seen.control = true,
            (LaneKind::Memory, Onward::Live { .. }) if seen.prepared && seen.memory < MEMORY_MAX => {
                seen.memory += 1
            }
            (LaneKind::Disk, Onward::Live { .. }) if seen.prepared && seen.disk < DISK_MAX => seen.disk += 1,
            (LaneKind::Disk, Onward::Cold(_)) if seen.disk == 0 => seen.disk += 1,
            (LaneKind::Control, Onward::Live { .. }) => return invalid("the ticket is spent"),
            (kind, _) => return invalid(&format!("no {} lane is expected now", name(kind))),
        }
        Ok(())
    }

    /// Answers a lane's opening, and serves it until it ends.
    pub async fn let_in(&self, open: &LaneOpen, peer: HostId, now: UnixMillis, mut stream: Stream) {
        if let Err(denial) = self.admit(open, peer, now) {
            return refuse(stream, denial).await;
        }
        match stream.send(&LaneVerdict::Open).await {
            Ok(()) => self.serve(open.kind, stream).await,
            // It counted; the source will not come again.
            Err(_) if open.kind == LaneKind::Control => self.tell(LaneEvent::Over { refused: None }).await,
            Err(_) => {}
        }
    }

    async fn serve(&self, kind: LaneKind, stream: Stream) {
        tokio::select! {
            () = self.carry(kind, stream) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn carry(&self, kind: LaneKind, stream: Stream) {
        match (&self.onward, kind) {
            (Onward::Live { libvirt, expectation, .. }, LaneKind::Control) => {
                self.tell(LaneEvent::Begun).await;
                let refused = self.control(stream, libvirt, expectation).await;
                self.tell(LaneEvent::Over { refused }).await;
            }
            (Onward::Live { memory, .. }, LaneKind::Memory) => onwards(stream, memory, kind).await,
            (Onward::Live { disk, .. }, LaneKind::Disk) => onwards(stream, disk, kind).await,
            (Onward::Cold(landing), _) => {
                self.tell(LaneEvent::Begun).await;
                let landed = cold::receive(stream, landing).await.map_err(|error| describe(&error));
                self.tell(LaneEvent::Landed(landed)).await;
            }
        }
    }

    async fn control(&self, stream: Stream, libvirt: &Path, expectation: &Expectation) -> Option<String> {
        let connected = UnixStream::connect(libvirt).await;
        let outcome = match connected {
            Ok(connection) => control::guard(stream, connection, expectation.clone(), self).await,
            Err(error) => Err(control::ControlError::Io(error)),
        };
        match outcome {
            Err(control::ControlError::Refused(refused)) => {
                let reason = describe(&refused);
                tracing::warn!(migration = %self.ticket.migration, source = %self.ticket.source, reason, "control lane refused");
                Some(reason)
            }
            Err(error) => {
                tracing::info!(migration = %self.ticket.migration, reason = describe(&error), "control lane broke");
                None
            }
            Ok(()) => None,
        }
    }

    async fn tell(&self, event: LaneEvent) {
        // A migration that has ended does not listen any more.
        let _ = self.events.send(event).await;
    }
}

impl control::Observer for Door {
    fn prepared(&self) {
        self.seen().prepared = true;
    }

    async fn finished(&self) {
        self.tell(LaneEvent::Finished).await;
    }
}

/// Sends a lane away.
pub async fn refuse(mut stream: Stream, denial: Denial) {
    tracing::warn!(%denial, "lane refused");
    if stream.send(&LaneVerdict::Refused(denial)).await.is_ok() {
        stream.finish();
    }
}

/// All of both tickets; the secret without telling by the time how much of it was right.
fn is_same(ours: &Ticket, theirs: &Ticket) -> bool {
    let secret = aws_lc_rs::constant_time::verify_slices_are_equal(&ours.secret, &theirs.secret).is_ok();
    let rest = Ticket { secret: ours.secret, ..theirs.clone() } == *ours;
    secret && rest
}

async fn onwards(stream: Stream, path: &Path, kind: LaneKind) {
    let relayed = async {
        let (from, to) = connect(path).await?.into_split();
        let (send, recv) = stream.split();
        let uncounted = super::Counters::default();
        relay::both(&mut Way { from: recv, to }, &mut Way { from, to: send }, uncounted.of(kind)).await
    };
    if let Err(error) = relayed.await {
        tracing::info!(?kind, %error, "a lane broke");
    }
}

/// QEMU listens a moment after libvirt has said that it will.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    let deadline = Instant::now() + LISTEN_DEADLINE;
    loop {
        match UnixStream::connect(path).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LISTEN_POLL).await,
            outcome => return outcome,
        }
    }
}

/// For whom doors are kept.
pub type SharedDoor = Arc<Door>;
