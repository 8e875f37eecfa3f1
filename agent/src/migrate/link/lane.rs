//! A lane on one side: its state, shared by the carrier of the present turn and the two halves that are read and
//! written like a socket.
//!
//! A turn is one attempt to carry the lane over one stream. Whoever carries says which turn it is; a carrier that was
//! overtaken finds out at its next frame and changes nothing any more.

use super::{
    Lie,
    duplex::Duplex,
    incoming::Incoming,
    outgoing::Outgoing,
    saved::{BadLane, SavedLane},
};
use bytes::Bytes;
use novacron_common::wire::{LANE_DATA_MAX, LaneFrame, LaneId};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Instant,
};
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    sync::watch,
};

/// What a carrier is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Frame(LaneFrame, Bytes),
    /// Nothing now.
    Wait,
    /// Both directions are over: end the stream.
    Complete,
    /// The lane is broken: drop the stream.
    Broken,
    /// Another turn has begun.
    Overtaken,
}

/// Where a lane stands, for those who watch over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The newest turn.
    pub turn: u32,
    /// Complete or broken: no turn will follow.
    pub over: bool,
}

/// A lane. Clones of the [`Arc`] are the same one.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    inner: Mutex<Inner>,
    standing: watch::Sender<Standing>,
}

#[derive(Debug)]
struct Inner {
    duplex: Duplex,
    turn: u32,
    broken: Option<String>,
    complete: bool,
    /// A successor has it: nothing changes here any more, and nobody is told anything.
    saved: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    carrier: Option<Waker>,
}

impl Inner {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take(), self.carrier.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn check(&self) -> io::Result<()> {
        match &self.broken {
            Some(reason) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason.clone())),
            None => Ok(()),
        }
    }
}

impl Lane {
    /// A new lane and its halves.
    pub fn new(id: LaneId, window: usize) -> (Arc<Self>, LaneReader, LaneWriter) {
        Self::with(id, Duplex::new(window), 0, false)
    }

    /// A lane as a predecessor left it, and its halves.
    ///
    /// # Errors
    /// [`BadLane`].
    pub fn restore(saved: &SavedLane, window: usize) -> Result<(Arc<Self>, LaneReader, LaneWriter), BadLane> {
        let out = Outgoing::restore(window, &saved.out)?;
        let incoming = Incoming::restore(window, &saved.incoming)?;
        Ok(Self::with(saved.id, Duplex { out, incoming }, saved.turn, saved.complete))
    }

    fn with(id: LaneId, duplex: Duplex, turn: u32, complete: bool) -> (Arc<Self>, LaneReader, LaneWriter) {
        let (broken, saved) = (None, false);
        let (reader, writer, carrier) = (None, None, None);
        let inner = Inner { duplex, turn, broken, complete, saved, reader, writer, carrier };
        let standing = watch::Sender::new(Standing { turn, over: complete });
        let lane = Arc::new(Self { id, inner: Mutex::new(inner), standing });
        (lane.clone(), LaneReader { lane: lane.clone(), front: Bytes::new() }, LaneWriter(lane))
    }

    /// Stops it here for good, and returns it as it stands, for a successor. Whoever carries, reads or writes it waits from
    /// now on; what still comes from the peer is dropped, and was not acknowledged. `None` if it is broken, or was saved before.
    pub fn save(&self) -> Option<SavedLane> {
        let mut inner = self.lock();
        if inner.broken.is_some() || inner.saved {
            return None;
        }
        inner.saved = true;
        let (out, incoming) = (inner.duplex.out.save(), inner.duplex.incoming.save());
        Some(SavedLane { id: self.id, turn: inner.turn, complete: inner.complete, out, incoming })
    }

    /// Which one.
    pub fn id(&self) -> LaneId {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows its turns and its end.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Why it is broken, if it is.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Ends it for good, both ways; the first reason stays.
    pub fn break_off(&self, reason: impl Into<String>) {
        let mut inner = self.lock();
        if inner.broken.is_none() && !inner.complete && !inner.saved {
            inner.broken = Some(reason.into());
            self.standing.send_modify(|standing| standing.over = true);
        }
        inner.wake();
    }

    /// Begins the next turn: its number, and the offset up to which everything of the peer's is here.
    pub fn next_turn(&self) -> (u32, u64) {
        let mut inner = self.lock();
        inner.turn += 1;
        self.began(&mut inner)
    }

    /// Begins the turn that the peer asks for, who has everything up to `received`; says what is here. `None` if a
    /// newer one has begun.
    ///
    /// # Errors
    /// [`Lie`]; the lane is broken then.
    pub fn take_turn(&self, turn: u32, received: u64) -> Result<Option<u64>, Lie> {
        let mut inner = self.lock();
        if turn <= inner.turn || inner.saved {
            return Ok(None);
        }
        inner.turn = turn;
        let (_, here) = self.began(&mut inner);
        drop(inner);
        self.resume(turn, received).map(|()| Some(here))
    }

    fn began(&self, inner: &mut Inner) -> (u32, u64) {
        let (turn, over) = (inner.turn, inner.complete || inner.broken.is_some());
        self.standing.send_replace(Standing { turn, over });
        inner.wake();
        (turn, inner.duplex.incoming.received())
    }

    /// In this turn the peer has everything up to `received`: go on from there.
    ///
    /// # Errors
    /// [`Lie`]; the lane is broken then.
    pub fn resume(&self, turn: u32, received: u64) -> Result<(), Lie> {
        self.change(turn, |duplex| duplex.resume(received))
    }

    /// Takes a frame that came in this turn.
    ///
    /// # Errors
    /// [`Lie`]; the lane is broken then.
    pub fn take(&self, turn: u32, frame: LaneFrame, bytes: Bytes) -> Result<(), Lie> {
        self.change(turn, |duplex| duplex.take(frame, bytes, Instant::now()))
    }

    fn change(&self, turn: u32, change: impl FnOnce(&mut Duplex) -> Result<(), Lie>) -> Result<(), Lie> {
        let outcome = {
            let mut inner = self.lock();
            if inner.turn != turn || inner.saved {
                return Ok(());
            }
            let outcome = change(&mut inner.duplex);
            inner.wake();
            outcome
        };
        outcome.inspect_err(|lie| self.break_off(lie.to_string()))
    }

    /// The peer says that the lane is over for it.
    ///
    /// # Errors
    /// [`Lie`] if it has not said everything; the lane is broken then.
    pub fn conclude(&self) -> Result<(), Lie> {
        let mut inner = self.lock();
        if inner.duplex.incoming.is_ended() && inner.duplex.out.is_ended() {
            self.complete(&mut inner);
            return Ok(());
        }
        drop(inner);
        self.break_off(Lie::Forgotten.to_string());
        Err(Lie::Forgotten)
    }

    fn complete(&self, inner: &mut Inner) {
        inner.complete = true;
        self.standing.send_modify(|standing| standing.over = true);
        inner.wake();
    }

    /// What the carrier of `turn` is to do; waits while there is nothing.
    pub async fn next_step(&self, turn: u32) -> Step {
        std::future::poll_fn(|context| match self.step(turn) {
            (Step::Wait, mut inner) => {
                inner.carrier = Some(context.waker().clone());
                Poll::Pending
            }
            (step, _) => Poll::Ready(step),
        })
        .await
    }

    fn step(&self, turn: u32) -> (Step, MutexGuard<'_, Inner>) {
        let mut inner = self.lock();
        let step = if inner.saved {
            Step::Wait
        } else if inner.broken.is_some() {
            Step::Broken
        } else if inner.turn != turn {
            Step::Overtaken
        } else if let Some((frame, bytes)) = inner.duplex.next_frame() {
            Step::Frame(frame, bytes)
        } else if inner.duplex.is_complete() {
            self.complete(&mut inner);
            Step::Complete
        } else {
            Step::Wait
        };
        (step, inner)
    }

    /// Whether both directions are over, and the carrier has said so.
    pub fn is_complete(&self) -> bool {
        self.lock().complete
    }

    /// Whether both directions are over, as far as was said and acknowledged.
    pub(super) fn is_agreed(&self) -> bool {
        let inner = self.lock();
        inner.complete || inner.duplex.is_complete()
    }
}

/// What the peer says, as bytes. Dropped before their end it breaks the lane: nobody is to wait for a reader that is
/// gone.
#[derive(Debug)]
pub struct LaneReader {
    lane: Arc<Lane>,
    /// What is looked at.
    front: Bytes,
}

/// What the peer is told, as bytes; shutting it down says that nothing follows. Dropped before that it breaks the lane,
/// so that the peer never takes a broken direction for a complete one.
#[derive(Debug)]
pub struct LaneWriter(Arc<Lane>);

impl LaneReader {
    /// Which lane it is.
    pub fn id(&self) -> LaneId {
        self.lane.id
    }

    /// As [`Lane::save`].
    pub fn save(&self) -> Option<SavedLane> {
        self.lane.save()
    }
}

impl LaneWriter {
    /// What was written since this was said last stands for `plain` bytes at the other end: more is taken when it got
    /// through some of them.
    pub fn weigh(&mut self, plain: u64) {
        self.0.lock().duplex.out.weigh(plain, Instant::now());
    }

    /// Waits until the peer has passed on everything up to the end that was said, or the lane is broken.
    pub async fn delivered(&mut self) {
        std::future::poll_fn(|context| {
            let mut inner = self.0.lock();
            if inner.duplex.out.is_done() || inner.broken.is_some() {
                return Poll::Ready(());
            }
            inner.writer = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl AsyncRead for LaneReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let front = ready!(self.as_mut().poll_fill_buf(context))?;
        let count = front.len().min(buffer.remaining());
        buffer.put_slice(&front[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

/// What is consumed counts as passed on: whoever consumes it later than it is looked at keeps the peer from sending more.
impl AsyncBufRead for LaneReader {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        let mut inner = this.lane.lock();
        inner.check()?;
        if inner.saved {
            return Poll::Pending;
        }
        let incoming = &mut inner.duplex.incoming;
        if let Some(front) = incoming.front() {
            this.front = front.clone();
            return Poll::Ready(Ok(&this.front));
        }
        let ended = incoming.pass_end();
        if incoming.starve()
            && let Some(carrier) = inner.carrier.take()
        {
            carrier.wake();
        }
        if ended {
            return Poll::Ready(Ok(&[]));
        }
        inner.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        let this = self.get_mut();
        this.front = Bytes::new();
        let mut inner = this.lane.lock();
        inner.duplex.incoming.pass(count);
        if let Some(carrier) = inner.carrier.take() {
            carrier.wake(); // an acknowledgement may be due
        }
    }
}

impl AsyncWrite for LaneWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = self.0.lock();
        inner.check()?;
        if inner.saved {
            return Poll::Pending;
        }
        if inner.duplex.out.is_ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = inner.duplex.out.room_for(bytes.len().min(LANE_DATA_MAX as usize));
        if room == 0 && !bytes.is_empty() {
            inner.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        inner.duplex.out.push(Bytes::copy_from_slice(&bytes[..room]), Instant::now());
        if let Some(carrier) = inner.carrier.take() {
            carrier.wake();
        }
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().check())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        inner.check()?;
        if inner.saved {
            return Poll::Pending;
        }
        inner.duplex.out.finish();
        if let Some(carrier) = inner.carrier.take() {
            carrier.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for LaneReader {
    fn drop(&mut self) {
        let taken = self.lane.lock().duplex.incoming.is_passed();
        if !taken {
            self.lane.break_off("its reader here is gone");
        }
    }
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        let said = self.0.lock().duplex.out.is_ended();
        if !said {
            self.0.break_off("its writer here is gone");
        }
    }
}
