//! One direction of a stream: bytes in order, each piece after its own delay.

use super::{
    REPEAT,
    line::{Conversation, Side},
};
use novacron_common::wire::{StreamHeader, StreamKind};
use novacron_transport::{Halves, SimulatedRecv, SimulatedSend};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The pipe.
pub(super) struct Pipe {
    conversation: Arc<Conversation>,
    from: Side,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// On their way, with the time when each is due.
    flying: VecDeque<(u64, Piece)>,
    /// Arrived.
    bytes: VecDeque<u8>,
    end: Option<End>,
    /// The other side's halves, until it learns of the stream.
    announced: Option<Halves>,
    readers: Option<Waker>,
    waiting_for_acknowledgement: Option<Waker>,
}

enum Piece {
    Bytes(Vec<u8>),
    End(End),
}

#[derive(Clone)]
enum End {
    Clean,
    Broken(String),
}

impl Pipe {
    pub fn new(conversation: &Arc<Conversation>, from: Side) -> Arc<Self> {
        Arc::new(Self { conversation: Arc::clone(conversation), from, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is over.
    pub fn fail(&self, reason: &str) {
        let mut state = self.state();
        state.flying.clear();
        let unannounced = state.announced.take();
        state.end.get_or_insert_with(|| End::Broken(reason.to_owned()));
        state.wake();
        drop(state);
        drop(unannounced);
    }

    /// The stream begins with this pipe's first bytes.
    pub fn announce(&self, halves: Halves) {
        self.state().announced = Some(halves);
    }

    fn send(self: &Arc<Self>, piece: Piece) {
        let executor = self.conversation.net.executor();
        let delay = self.conversation.net.delay();
        let now = executor.elapsed();
        let mut state = self.state();
        let due = state.flying.back().map_or(0, |(last, _)| *last).max(now + delay);
        state.flying.push_back((due, piece));
        drop(state);
        self.come_back_in(due - now);
    }

    fn come_back_in(self: &Arc<Self>, nanoseconds: u64) {
        let pipe = Arc::clone(self);
        self.conversation.net.executor().act_in(nanoseconds, Box::new(move || pipe.deliver()));
    }

    /// Lets arrive what is due.
    fn deliver(self: &Arc<Self>) {
        let now = self.conversation.net.executor().elapsed();
        if self.state().flying.front().is_none_or(|(due, _)| *due > now) {
            return;
        }
        if !self.conversation.hears(1 - self.from) {
            self.state().flying.clear();
        } else if !self.conversation.passes(self.from) {
            self.come_back_in(REPEAT);
            return;
        }
        let mut state = self.state();
        while let Some((_, piece)) = state.flying.pop_front_if(|(due, _)| *due <= now) {
            match piece {
                Piece::Bytes(bytes) => state.bytes.extend(bytes),
                Piece::End(end) => drop(state.end.get_or_insert(end)),
            }
        }
        state.wake();
        let announced = state.announced.take();
        drop(state);
        if let Some(halves) = announced {
            self.conversation.offer(1 - self.from, halves);
        }
    }
}

impl State {
    fn wake(&mut self) {
        self.readers.take().into_iter().for_each(Waker::wake);
        if self.flying.is_empty() {
            self.waiting_for_acknowledgement.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// Sends a whole request on a stream of its own.
pub(super) fn send_again(conversation: &Arc<Conversation>, from: Side, request: Vec<u8>) {
    let (there, _unread) = conversation.stream(from);
    there.send(Piece::Bytes(request));
    there.send(Piece::End(End::Clean));
}

/// The sending half.
pub(super) struct Writer {
    pipe: Arc<Pipe>,
    /// What was sent so far on a stream that may be delivered a second time.
    copy: Option<Vec<u8>>,
    ended: bool,
}

impl Writer {
    pub fn new(pipe: &Arc<Pipe>, is_request: bool) -> Self {
        Self { pipe: Arc::clone(pipe), copy: is_request.then(Vec::new), ended: false }
    }

    /// The same request once more; nobody reads the answer. QUIC delivers no stream twice, so this is more than a network
    /// does. What a coordinator proposes through another is left out: it is told "nothing was proposed" of one delivery, which
    /// a second one that finds a leader would make untrue.
    fn double(&mut self) {
        let Some(request) = self.copy.take() else { return };
        let (conversation, from) = (Arc::clone(&self.pipe.conversation), self.pipe.from);
        let net = conversation.net.clone();
        net.note_request(&conversation, from, &request);
        let Some(later) = net.doubled().filter(|_| !is_forwarded(&request)) else { return };
        let again = move || send_again(&conversation, from, request);
        net.executor().act_in(later, Box::new(again));
    }
}

fn is_forwarded(request: &[u8]) -> bool {
    let header = request.first_chunk().map(|bytes| StreamHeader::parse(*bytes));
    matches!(header, Some(Ok(StreamHeader { kind: StreamKind::Forward, .. })))
}

impl SimulatedSend for Writer {
    fn finish(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.pipe.send(Piece::End(End::Clean));
            self.double();
        }
    }

    fn reset(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.pipe.send(Piece::End(End::Broken("reset by peer".into())));
        }
    }

    fn poll_acknowledged(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.pipe.state();
        if state.flying.is_empty() {
            return Poll::Ready(());
        }
        state.waiting_for_acknowledgement = Some(context.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(reason) = self.pipe.conversation.close_reason(self.pipe.from) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::NotConnected, reason)));
        }
        if let Some(copy) = &mut self.copy {
            copy.extend_from_slice(bytes);
        }
        self.pipe.conversation.net.executor().note_bytes(bytes);
        self.pipe.send(Piece::Bytes(bytes.to_vec()));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

/// The receiving half.
pub(super) struct Reader(Arc<Pipe>);

impl Reader {
    pub fn new(pipe: &Arc<Pipe>) -> Self {
        Self(Arc::clone(pipe))
    }
}

impl SimulatedRecv for Reader {}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        if let Some(End::Broken(reason)) = &state.end {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, reason.clone())));
        }
        if !state.bytes.is_empty() {
            let have = buffer.remaining().min(state.bytes.len());
            state.bytes.drain(..have).for_each(|byte| buffer.put_slice(&[byte]));
            return Poll::Ready(Ok(()));
        }
        if state.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        state.readers = Some(context.waker().clone());
        Poll::Pending
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}
