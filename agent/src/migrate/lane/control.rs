//! The control lane: on the target message by message through the filter towards libvirtd, back as it comes; on the source
//! as it comes, both ways. Either side hears when the target's libvirtd says that the copy is complete.

use crate::migrate::{
    filter::{BadFrame, Expectation, Frame, Gate, Passed, Refused, gate, parse_frame},
    link::lane::{LaneReader, LaneWriter},
};
use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

const CHUNK: usize = 64 << 10;

/// Why a control lane ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A message of the source's does not pass.
    #[error("a message is refused")]
    Refused(#[from] Refused),
    /// The source does not speak libvirt's protocol.
    #[error("the source does not speak libvirt's protocol")]
    Frame(#[from] BadFrame),
    /// The guest would run without the right to.
    #[error("the guest is to run here, and the hand-over is not known to be committed")]
    NotHandedOver,
    /// One of the two connections broke.
    #[error("could not relay the control lane")]
    Io(#[from] io::Error),
}

/// Who wants to know what passes.
pub trait Observer {
    /// A Prepare is about to reach libvirtd: QEMU will listen.
    fn prepared(&self);
    /// libvirtd is about to let the guest run before all of its memory is here (post-copy): whether it may. It is written
    /// down before that is said.
    fn may_split(&self) -> impl Future<Output = bool> + Send;
    /// libvirtd has said that the copy is complete.
    fn finished(&self) -> impl Future<Output = ()> + Send;
}

/// Who knows on the source whether the guest went over.
pub trait Warden {
    /// The copy is at its end, and libvirtd is about to let the guest run at the target: whether it went over (post-copy),
    /// so that it never runs here again. That is written down before it is said. If it did not, it is held there as after
    /// any other copy, until the hand-over is committed.
    fn went_over(&self) -> impl Future<Output = bool> + Send;
}

/// Relays until both directions have ended, or a message is refused.
///
/// # Errors
/// [`ControlError`].
pub async fn guard<O: Observer + Sync>(
    (from_source, mut to_source): (LaneReader, LaneWriter),
    libvirt: UnixStream,
    expectation: Expectation,
    observer: &O,
) -> Result<(), ControlError> {
    let (from_libvirt, to_libvirt) = libvirt.into_split();
    let watch = Watch { observer, finish: Mutex::new(None) };
    let inwards = watch.inwards(from_source, to_libvirt, Gate::new(expectation));
    let outwards = watch.outwards(from_libvirt, &mut to_source);
    tokio::try_join!(inwards, outwards).map(drop)
}

struct Watch<'a, O> {
    observer: &'a O,
    /// The serial of the Finish that is under way.
    finish: Mutex<Option<u32>>,
}

impl<O: Observer + Sync> Watch<'_, O> {
    async fn inwards(
        &self,
        mut from: LaneReader,
        mut to: OwnedWriteHalf,
        mut gate: Gate,
    ) -> Result<(), ControlError> {
        let mut pending = Vec::new();
        loop {
            pending.reserve(CHUNK);
            if from.read_buf(&mut pending).await? == 0 {
                return Ok(to.shutdown().await?);
            }
            let mut done = 0;
            while let Some(frame) = parse_frame(&pending[done..])? {
                let passed = gate.judge(&frame)?;
                if matches!(passed, Passed::Finish { runs: true, .. }) && !self.observer.may_split().await {
                    return Err(ControlError::NotHandedOver);
                }
                self.note(passed);
                to.write_all(frame.bytes).await?;
                done += frame.bytes.len();
            }
            pending.drain(..done);
        }
    }

    fn note(&self, passed: Passed) {
        match passed {
            Passed::Prepare => self.observer.prepared(),
            Passed::Finish { cancelled: false, serial, .. } => {
                *self.finish.lock().unwrap_or_else(PoisonError::into_inner) = Some(serial);
            }
            Passed::Finish { cancelled: true, .. } | Passed::Other => {}
        }
    }

    async fn outwards(&self, mut from: OwnedReadHalf, to: &mut LaneWriter) -> Result<(), ControlError> {
        let mut pending = Vec::new();
        loop {
            pending.reserve(CHUNK);
            let before = pending.len();
            if from.read_buf(&mut pending).await? == 0 {
                return Ok(to.shutdown().await?);
            }
            to.write_all(&pending[before..]).await?;
            let serial = *self.finish.lock().unwrap_or_else(PoisonError::into_inner);
            let mut finished = false;
            drain(&mut pending, &mut |frame| {
                finished |= serial.is_some_and(|serial| gate::is_finished(frame, serial));
            })?;
            if finished {
                self.observer.finished().await;
            }
        }
    }
}

/// Relays on the source until both directions have ended, and sets `finished` once the target's libvirtd has said that
/// the copy is complete and the source's has been told. Counts what passes.
///
/// # Errors
/// The system's, when either side breaks; or libvirtd here does not speak its protocol.
pub async fn overhear(
    (from_target, to_target): (LaneReader, LaneWriter),
    libvirt: UnixStream,
    counter: &AtomicU64,
    finished: &watch::Sender<bool>,
    warden: &(impl Warden + Sync),
) -> io::Result<()> {
    let (from_libvirt, to_libvirt) = libvirt.into_split();
    let finish = Mutex::new(None);
    let serial = || finish.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = calls(from_libvirt, to_target, counter, warden, |called| *serial() = Some(called));
    let replies = tap(from_target, to_libvirt, counter, |frame| {
        if serial().is_some_and(|serial| gate::is_finished(frame, serial)) {
            finished.send_replace(true);
        }
    });
    tokio::try_join!(calls, replies).map(drop)
}

/// Passes on what libvirtd here calls, message by message; tells the serial of the Finish.
async fn calls(
    mut from: OwnedReadHalf,
    mut to: LaneWriter,
    counter: &AtomicU64,
    warden: &(impl Warden + Sync),
    finishes: impl Fn(u32),
) -> io::Result<()> {
    let mut pending = Vec::new();
    loop {
        pending.reserve(CHUNK);
        let count = from.read_buf(&mut pending).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
        let mut done = 0;
        while let Some(frame) = parse_frame(&pending[done..]).map_err(io::Error::other)? {
            let called = gate::finish_called(&frame);
            if let Some(called) = called {
                finishes(called.serial);
            }
            match called.is_some_and(|called| called.runs) && !warden.went_over().await {
                true => to.write_all(&gate::held(&frame)).await?,
                false => to.write_all(frame.bytes).await?,
            }
            done += frame.bytes.len();
        }
        pending.drain(..done);
    }
}

/// Copies until the end, and shows each message once it has passed; none after one that cannot be read.
async fn tap(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counter: &AtomicU64,
    mut heard: impl FnMut(&Frame<'_>),
) -> io::Result<()> {
    let (mut chunk, mut pending, mut legible) = (vec![0; CHUNK], Vec::new(), true);
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
        to.write_all(&chunk[..count]).await?;
        if legible {
            pending.extend(&chunk[..count]);
            legible = drain(&mut pending, &mut heard).is_ok();
        }
    }
}

fn drain(pending: &mut Vec<u8>, heard: &mut impl FnMut(&Frame<'_>)) -> Result<(), BadFrame> {
    let mut done = 0;
    while let Some(frame) = parse_frame(&pending[done..])? {
        heard(&frame);
        done += frame.bytes.len();
    }
    pending.drain(..done);
    Ok(())
}
