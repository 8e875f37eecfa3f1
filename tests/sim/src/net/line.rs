//! A connection and its two ends.

use super::{
    IDLE, Net, address,
    pipe::{Pipe, Reader, Writer},
};
use crate::{executor::Machine, os::SECOND};
use async_trait::async_trait;
use novacron_transport::{Halves, SimulatedLine};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Streams that wait to be accepted.
const BACKLOG: usize = 1024;

/// One of a conversation's two ends.
pub(super) type Side = usize;

/// A connection between two lives of two machines.
pub(super) struct Conversation {
    pub net: Net,
    pub ends: [(Machine, u64); 2],
    sides: [End; 2],
}

struct End {
    closed: watch::Sender<Option<String>>,
    incoming: mpsc::Sender<Halves>,
    accepted: tokio::sync::Mutex<mpsc::Receiver<Halves>>,
    pipes: Mutex<Vec<Weak<Pipe>>>,
}

impl End {
    fn new() -> Self {
        let (incoming, accepted) = mpsc::channel(BACKLOG);
        let accepted = tokio::sync::Mutex::new(accepted);
        Self { closed: watch::Sender::new(None), incoming, accepted, pipes: Mutex::default() }
    }
}

impl Conversation {
    pub fn new(net: Net, ends: [(Machine, u64); 2]) -> Arc<Self> {
        Arc::new(Self { net, ends, sides: [End::new(), End::new()] })
    }

    /// The side of a machine; of one that talks to itself the first.
    pub fn side_of(&self, machine: Machine) -> Option<Side> {
        self.ends.iter().position(|(end, _)| *end == machine)
    }

    pub fn close_reason(&self, side: Side) -> Option<String> {
        self.sides[side].closed.borrow().clone()
    }

    /// Closes one side; what waits on it hears why.
    pub fn close(&self, side: Side, reason: &str) {
        let end = &self.sides[side];
        let first = end.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            closed.get_or_insert_with(|| reason.to_owned());
            first
        });
        if first {
            let pipes = std::mem::take(&mut *end.pipes.lock().unwrap_or_else(PoisonError::into_inner));
            pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.fail(reason));
        }
    }

    /// This side says nothing any more; the other one notices after the idle time-out.
    pub fn fall_silent(self: &Arc<Self>, side: Side) {
        self.close(side, "timed out");
        let idle = IDLE + self.net.executor().draw(|rng| rng.below(2 * SECOND));
        let (conversation, other) = (Arc::downgrade(self), 1 - side);
        let late = move || {
            if let Some(conversation) = conversation.upgrade() {
                conversation.close(other, "timed out");
            }
        };
        self.net.executor().act_in(idle, Box::new(late));
    }

    /// Whether what is sent from this side arrives now.
    pub fn passes(&self, from: Side) -> bool {
        !self.net.is_cut(self.ends[from].0, self.ends[1 - from].0)
    }

    /// Whether this side still listens.
    pub fn hears(&self, side: Side) -> bool {
        self.net.lives(self.ends[side]) && self.sides[side].closed.borrow().is_none()
    }

    fn keep(&self, side: Side, pipe: &Arc<Pipe>) {
        let mut pipes = self.sides[side].pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.retain(|known| known.strong_count() > 0);
        pipes.push(Arc::downgrade(pipe));
    }

    /// A stream that `opener` opens: the way there and the way back. The other side learns of it with its first
    /// bytes.
    pub fn stream(self: &Arc<Self>, opener: Side) -> (Arc<Pipe>, Arc<Pipe>) {
        let (there, back) = (Pipe::new(self, opener), Pipe::new(self, 1 - opener));
        for pipe in [&there, &back] {
            self.keep(0, pipe);
            self.keep(1, pipe);
        }
        there.announce((Box::new(Writer::new(&back, false)), Box::new(Reader::new(&there))));
        (there, back)
    }

    /// Gives a stream to the side that accepts it.
    pub fn offer(&self, side: Side, halves: Halves) {
        if self.hears(side) {
            // A peer that lets so many wait is no better off with one more.
            let _ = self.sides[side].incoming.try_send(halves);
        }
    }
}

/// One end of a conversation, as the code above sees it.
pub(super) struct Line {
    conversation: Arc<Conversation>,
    side: Side,
}

impl Line {
    pub fn end_of(conversation: &Arc<Conversation>, side: Side) -> Arc<dyn SimulatedLine> {
        Arc::new(Self { conversation: Arc::clone(conversation), side })
    }

    fn end(&self) -> &End {
        &self.conversation.sides[self.side]
    }
}

#[async_trait]
impl SimulatedLine for Line {
    async fn open(&self) -> Result<Halves, String> {
        match self.close_reason() {
            Some(reason) => Err(reason),
            None => {
                let (there, back) = self.conversation.stream(self.side);
                Ok((Box::new(Writer::new(&there, true)), Box::new(Reader::new(&back))))
            }
        }
    }

    async fn accept(&self) -> Result<Halves, String> {
        let mut accepted = self.end().accepted.lock().await;
        tokio::select! {
            biased;
            reason = self.closed() => Err(reason),
            halves = accepted.recv() => halves.ok_or_else(|| "gone".to_owned()),
        }
    }

    fn close(&self, reason: &str) {
        if self.close_reason().is_some() {
            return;
        }
        self.conversation.close(self.side, reason);
        let (conversation, other) = (Arc::clone(&self.conversation), 1 - self.side);
        let (net, reason) = (conversation.net.clone(), format!("closed by peer: {reason}"));
        let reached = conversation.passes(self.side);
        let late = if reached { net.delay() } else { IDLE };
        net.executor().act_in(late, Box::new(move || conversation.close(other, &reason)));
    }

    fn close_reason(&self) -> Option<String> {
        self.conversation.close_reason(self.side)
    }

    async fn closed(&self) -> String {
        let mut closed = self.end().closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    fn remote_address(&self) -> SocketAddr {
        address(self.conversation.ends[1 - self.side].0)
    }

    fn round_trip(&self) -> Duration {
        Duration::from_nanos(super::CALM.delay.1 * 2)
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Line({:?}, side {})", self.conversation.ends, self.side)
    }
}
