//! The control lane on the target: towards libvirtd message by message through the filter, back as it comes.

use crate::migrate::{
    filter::{BadFrame, Expectation, Gate, Passed, Refused, gate, parse_frame},
    link::lane::{LaneReader, LaneWriter},
};
use std::{
    io,
    sync::{Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
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
    /// One of the two connections broke.
    #[error("could not relay the control lane")]
    Io(#[from] io::Error),
}

/// Who wants to know what passes.
pub trait Observer {
    /// A Prepare is about to reach libvirtd: QEMU will listen.
    fn prepared(&self);
    /// libvirtd has said that the copy is complete.
    fn finished(&self) -> impl Future<Output = ()> + Send;
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
                self.note(gate.judge(&frame)?);
                to.write_all(frame.bytes).await?;
                done += frame.bytes.len();
            }
            pending.drain(..done);
        }
    }

    fn note(&self, passed: Passed) {
        match passed {
            Passed::Prepare => self.observer.prepared(),
            Passed::Finish { cancelled: false, serial } => {
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
            let mut done = 0;
            while let Some(frame) = parse_frame(&pending[done..])? {
                let serial = *self.finish.lock().unwrap_or_else(PoisonError::into_inner);
                if serial.is_some_and(|serial| gate::is_finished(&frame, serial)) {
                    self.observer.finished().await;
                }
                done += frame.bytes.len();
            }
            pending.drain(..done);
        }
    }
}
