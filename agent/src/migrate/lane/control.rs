//! The control lane: what the source's libvirtd calls goes message by message, on the target through the filter; replies go
//! back as they come. Either side hears when the target's libvirtd says that the copy is complete, and either must agree before
//! a guest may run at the target without all of its memory (post-copy).

use super::{connection::rest, relay::Flow};
use crate::migrate::{
    filter::{BadFrame, Expectation, Frame, Gate, GateState, Passed, Refused, gate, parse_frame},
    link::lane::{LaneReader, LaneWriter},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    future::ready,
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
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

/// Both ends of a control lane's connection.
pub struct Ends<'a> {
    /// From the lane.
    pub reader: &'a mut LaneReader,
    /// To the lane.
    pub writer: &'a mut LaneWriter,
    /// From this host's libvirtd.
    pub from: &'a mut OwnedReadHalf,
    /// To it.
    pub to: &'a mut OwnedWriteHalf,
}

/// The target's end of a control lane.
pub struct Guarding {
    gate: Gate,
    finish: Finish,
    calls: Calls,
    /// Of the first message of `calls`, once it was judged: it passes once nobody objects.
    verdict: Option<Passed>,
    replies: Tap,
}

/// A [`Guarding`] as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGuarding {
    gate: GateState,
    finish: Option<u32>,
    calls: SavedCalls,
    verdict: Option<Passed>,
    replies: SavedTap,
}

impl Guarding {
    /// Of a lane that has said nothing yet.
    pub fn new(expectation: Expectation) -> Self {
        Self {
            gate: Gate::new(expectation),
            finish: Finish::default(),
            calls: Calls::default(),
            verdict: None,
            replies: Tap::default(),
        }
    }

    /// Goes on where a predecessor was.
    pub fn restore(saved: &SavedGuarding, expectation: Expectation) -> Self {
        Self {
            gate: Gate::in_state(expectation, saved.gate),
            finish: Finish(Mutex::new(saved.finish)),
            calls: Calls::restore(&saved.calls),
            verdict: saved.verdict,
            replies: Tap::restore(&saved.replies),
        }
    }

    /// As it stands, for a successor.
    pub fn save(&self) -> SavedGuarding {
        SavedGuarding {
            gate: self.gate.state(),
            finish: self.finish.serial(),
            calls: self.calls.save(),
            verdict: self.verdict,
            replies: self.replies.save(),
        }
    }

    /// Relays until both directions have ended, or a message is refused. May be given up at any await, and gone on with.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn run(
        &mut self,
        ends: Ends<'_>,
        observer: &(impl Observer + Sync),
    ) -> Result<(), ControlError> {
        let Self { gate, finish, calls, verdict, replies } = self;
        let Ends { reader, writer, from, to } = ends;
        let inwards = async {
            while calls.next(reader, to).await? {
                let Some(frame) = calls.first()? else { continue };
                let passed = match *verdict {
                    Some(passed) => passed,
                    None => *verdict.insert(gate.judge(&frame)?),
                };
                match passed {
                    Passed::Prepare => observer.prepared(),
                    Passed::Finish { runs: true, .. } if !observer.may_split().await => {
                        return Err(ControlError::NotHandedOver);
                    }
                    Passed::Finish { cancelled: false, serial, .. } => finish.called(serial),
                    Passed::Finish { cancelled: true, .. } | Passed::Other => {}
                }
                tracing::debug!(procedure = frame.procedure, serial = frame.serial, "libvirtd is called");
                let bytes = frame.bytes.to_vec();
                calls.pass(bytes);
                *verdict = None;
            }
            Ok(())
        };
        let outwards = async {
            let counter = AtomicU64::new(0);
            let ended = |frame: &Frame<'_>| finish.is_answered_well(frame);
            Ok(replies.run((from, writer), &counter, ended, || observer.finished()).await?)
        };
        tokio::try_join!(inwards, outwards).map(drop)
    }
}

/// The source's end of a control lane.
#[derive(Default)]
pub struct Overhearing {
    finish: Finish,
    calls: Calls,
    replies: Tap,
}

/// An [`Overhearing`] as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOverhearing {
    finish: Option<u32>,
    calls: SavedCalls,
    replies: SavedTap,
}

impl Overhearing {
    /// Goes on where a predecessor was.
    pub fn restore(saved: &SavedOverhearing) -> Self {
        Self {
            finish: Finish(Mutex::new(saved.finish)),
            calls: Calls::restore(&saved.calls),
            replies: Tap::restore(&saved.replies),
        }
    }

    /// As it stands, for a successor.
    pub fn save(&self) -> SavedOverhearing {
        SavedOverhearing {
            finish: self.finish.serial(),
            calls: self.calls.save(),
            replies: self.replies.save(),
        }
    }

    /// Relays until both directions have ended, and sets `finished` once the target's libvirtd has said that the copy is
    /// complete and the source's has been told. Counts what passes. May be given up at any await, and gone on with.
    ///
    /// # Errors
    /// The system's, when either side breaks; or libvirtd here does not speak its protocol.
    pub async fn run(
        &mut self,
        ends: Ends<'_>,
        counter: &AtomicU64,
        finished: &watch::Sender<bool>,
        warden: &(impl Warden + Sync),
    ) -> io::Result<()> {
        let Self { finish, calls, replies } = self;
        let Ends { reader, writer, from, to } = ends;
        let out = async {
            while calls.next(from, writer).await.map_err(io::Error::other)? {
                let Some(frame) = calls.first().map_err(io::Error::other)? else { continue };
                let called = gate::finish_called(&frame);
                if let Some(called) = called {
                    finish.called(called.serial);
                }
                let bytes = match called.is_some_and(|called| called.runs) && !warden.went_over().await {
                    true => gate::held(&frame),
                    false => frame.bytes.to_vec(),
                };
                counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                calls.pass(bytes);
            }
            Ok(())
        };
        let answered = |frame: &Frame<'_>| finish.is_answered_well(frame);
        let tell = || {
            finished.send_replace(true);
            ready(())
        };
        let back = replies.run((reader, to), counter, answered, tell);
        tokio::try_join!(out, back).map(drop)
    }
}

/// The direction in which libvirt calls, message by message. Each is kept until it may pass.
#[derive(Debug, Default)]
struct Calls {
    /// Those that have not passed, the last one not whole perhaps.
    pending: Vec<u8>,
    passed: Flow,
}

/// [`Calls`] as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedCalls {
    pending: Bytes,
    passed: Bytes,
}

impl Calls {
    fn restore(saved: &SavedCalls) -> Self {
        Self { pending: saved.pending.to_vec(), passed: Flow::of(saved.passed.to_vec()) }
    }

    fn save(&self) -> SavedCalls {
        let (pending, passed) = (Bytes::copy_from_slice(&self.pending), rest(&self.passed));
        SavedCalls { pending, passed }
    }

    /// Writes what has passed, and reads if no whole message is there; says whether there may be one. At the end it says so to
    /// the other side.
    async fn next<R, W>(&mut self, from: &mut R, to: &mut W) -> Result<bool, ControlError>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        self.passed.write(to).await?;
        if self.first()?.is_some() {
            return Ok(true);
        }
        self.pending.reserve(CHUNK);
        if from.read_buf(&mut self.pending).await? > 0 {
            return Ok(true);
        }
        to.shutdown().await?;
        Ok(false)
    }

    /// The first message, once it is whole.
    fn first(&self) -> Result<Option<Frame<'_>>, BadFrame> {
        parse_frame(&self.pending)
    }

    /// The first message passes, as `bytes` of the same length.
    fn pass(&mut self, bytes: Vec<u8>) {
        self.pending.drain(..bytes.len());
        self.passed = Flow::of(bytes);
    }
}

/// The serial of the Finish that is under way.
#[derive(Debug, Default)]
struct Finish(Mutex<Option<u32>>);

impl Finish {
    fn called(&self, serial: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(serial);
    }

    fn serial(&self) -> Option<u32> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_answered_well(&self, frame: &Frame<'_>) -> bool {
        self.serial().is_some_and(|serial| gate::is_finished(frame, serial))
    }
}

/// One direction that is copied as it comes, and listened to.
#[derive(Debug, Default)]
struct Tap {
    flow: Flow,
    /// What was read and not listened to yet, from the beginning of a message on.
    heard: Vec<u8>,
    /// One message could not be read; none is after it.
    illegible: bool,
}

/// A [`Tap`] as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedTap {
    flow: Bytes,
    heard: Bytes,
    illegible: bool,
}

impl Tap {
    fn restore(saved: &SavedTap) -> Self {
        let SavedTap { flow, heard, illegible } = saved;
        Self { flow: Flow::of(flow.to_vec()), heard: heard.to_vec(), illegible: *illegible }
    }

    fn save(&self) -> SavedTap {
        let (flow, heard) = (Bytes::copy_from_slice(self.flow.rest()), Bytes::copy_from_slice(&self.heard));
        SavedTap { flow, heard, illegible: self.illegible }
    }

    /// Copies until the end. Each message is shown to `is_it` once it has passed; `tell` is called if it is.
    async fn run<R, W, T>(
        &mut self,
        (from, to): (&mut R, &mut W),
        counter: &AtomicU64,
        is_it: impl Fn(&Frame<'_>) -> bool,
        tell: impl Fn() -> T,
    ) -> io::Result<()>
    where
        T: Future<Output = ()>,
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            self.flow.write(to).await?;
            if self.listen(&is_it) {
                tell().await;
            }
            let count = self.flow.read(from).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            counter.fetch_add(count as u64, Ordering::Relaxed);
            if !self.illegible {
                self.heard.extend(self.flow.rest());
            }
        }
    }

    fn listen(&mut self, is_it: impl Fn(&Frame<'_>) -> bool) -> bool {
        let mut found = false;
        let outcome = drain(&mut self.heard, &mut |frame| found |= is_it(frame));
        if outcome.is_err() {
            self.illegible = true;
            self.heard.clear();
        }
        found
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
