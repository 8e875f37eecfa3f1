//! What one side of a lane sends: the replay buffer and how far it was sent. Pure.

use super::{
    Lie,
    flow::Flow,
    load::Load,
    saved::{BadLane, SavedOutgoing, size_and_cost},
    window::FRAME_COST,
};
use bytes::{Buf, Bytes};
use std::{collections::VecDeque, time::Instant};

/// A frame to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// Bytes of the sequence.
    Data {
        /// Where they belong.
        offset: u64,
        /// Not empty.
        bytes: Bytes,
    },
    /// The sequence ends.
    End {
        /// Behind its last byte.
        offset: u64,
    },
}

/// A sequence as its sender has it: `acked ≤ sent ≤ end`, and everything behind `acked` is kept.
#[derive(Debug)]
pub struct Outgoing {
    flow: Flow,
    load: Load,
    /// The bytes from `acked` on.
    chunks: VecDeque<Bytes>,
    /// What `chunks` cost.
    held: usize,
    acked: u64,
    /// Behind the last byte, and behind the end if that was said.
    end: u64,
    ended: bool,
    /// What was handed to the present carrier: all of `chunks[..next]`, and `skip` bytes of `chunks[next]`.
    sent: u64,
    next: usize,
    skip: usize,
}

impl Outgoing {
    /// An empty sequence that may keep as much as costs `window`, or as the link has use for.
    pub fn new(window: usize) -> Self {
        Self {
            flow: Flow::new(window),
            load: Load::default(),
            chunks: VecDeque::new(),
            held: 0,
            acked: 0,
            end: 0,
            ended: false,
            sent: 0,
            next: 0,
            skip: 0,
        }
    }

    /// As it stands, for a successor.
    pub fn save(&self) -> SavedOutgoing {
        let Self { acked, sent, end, ended, .. } = *self;
        SavedOutgoing { acked, sent, end, ended, chunks: self.chunks.iter().cloned().collect() }
    }

    /// As a predecessor left it. What it had sent is sent from where the peer has it ([`Outgoing::resume`]).
    ///
    /// # Errors
    /// [`BadLane`].
    pub fn restore(window: usize, saved: &SavedOutgoing) -> Result<Self, BadLane> {
        let SavedOutgoing { acked, sent, end, ended, ref chunks } = *saved;
        let last = end.checked_sub(ended.into()).ok_or(BadLane)?;
        let (bytes, held) = size_and_cost(chunks);
        let is_all = last.checked_sub(acked.min(last)) == Some(bytes);
        if !is_all || !(acked..=end).contains(&sent) || held > window || chunks.iter().any(Bytes::is_empty) {
            return Err(BadLane);
        }
        let chunks = chunks.iter().cloned().collect();
        Ok(Self { chunks, held, acked, sent, end, ended, ..Self::new(window) })
    }

    /// How many bytes may be pushed at once, now. 0: wait for an acknowledgement.
    pub fn room(&self) -> usize {
        let room = self.flow.limit().saturating_sub(self.held + FRAME_COST);
        if self.load.has_room() { room } else { 0 }
    }

    /// How many of `wanted` bytes are worth a frame, now: all, or at least an eighth of what may be
    /// under way. 0: wait. (RFC 9293,
    /// section 3.8.6.2.1, avoids silly windows the same way.)
    pub fn room_for(&self, wanted: usize) -> usize {
        let room = self.room();
        if room >= wanted.min(self.flow.limit() / 8) { room.min(wanted) } else { 0 }
    }

    /// Adds bytes, at most [`Outgoing::room`] of them.
    pub fn push(&mut self, bytes: Bytes, now: Instant) {
        debug_assert!(!self.ended && bytes.len() <= self.room());
        if bytes.is_empty() {
            return;
        }
        self.held += bytes.len() + FRAME_COST;
        self.end += bytes.len() as u64;
        self.flow.pushed(self.end, now);
        self.chunks.push_back(bytes);
    }

    /// What was pushed since the last weighing stands for `plain` bytes at the other end. If all of it was passed on there
    /// before this was said, it weighs nothing any more: no acknowledgement would ever take it off.
    pub fn weigh(&mut self, plain: u64, now: Instant) {
        if self.acked < self.end {
            self.load.weigh(self.end, plain, now);
        }
    }

    /// Says that nothing follows. Saying it again changes nothing.
    pub fn finish(&mut self) {
        if !self.ended {
            self.ended = true;
            self.end += 1;
        }
    }

    /// Whether the end was said.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether everything, the end included, was acknowledged.
    pub fn is_done(&self) -> bool {
        self.ended && self.acked == self.end
    }

    /// The next frame for the carrier.
    pub fn next_frame(&mut self) -> Option<Outbound> {
        let offset = self.sent;
        if let Some(chunk) = self.chunks.get(self.next) {
            let bytes = chunk.slice(self.skip..);
            self.sent += bytes.len() as u64;
            (self.next, self.skip) = (self.next + 1, 0);
            return Some(Outbound::Data { offset, bytes });
        }
        let owed = self.ended && self.sent < self.end;
        owed.then(|| {
            self.sent = self.end;
            Outbound::End { offset }
        })
    }

    /// The receiver has passed on everything up to `offset`. That it said so of less before changes nothing.
    ///
    /// # Errors
    /// [`Lie`] if that was not sent.
    pub fn acknowledge(&mut self, offset: u64, now: Instant) -> Result<(), Lie> {
        let offset = offset.max(self.acked);
        self.check(offset)?;
        self.flow.passed(offset, now);
        self.load.passed(offset, now);
        let mut more = self.bytes_between(self.acked, offset);
        self.acked = offset;
        while more > 0 {
            let Some(front) = self.chunks.front_mut() else { break };
            if more < front.len() {
                front.advance(more);
                self.held -= more;
                // What was acknowledged was sent, so of the chunk being sent next it is a part of `skip`.
                self.skip = if self.next == 0 { self.skip - more } else { self.skip };
                break;
            }
            more -= front.len();
            self.held -= front.len() + FRAME_COST;
            self.chunks.pop_front();
            match self.next.checked_sub(1) {
                Some(next) => self.next = next,
                None => self.skip = 0,
            }
        }
        Ok(())
    }

    /// A new carrier: the receiver has everything up to `received`, and hears the rest.
    ///
    /// # Errors
    /// [`Lie`] if that was never sent, or less than it acknowledged.
    pub fn resume(&mut self, received: u64) -> Result<(), Lie> {
        self.check(received)?;
        self.flow.restart();
        self.load.restart();
        let mut behind = self.bytes_between(self.acked, received);
        (self.sent, self.next, self.skip) = (received, 0, 0);
        while let Some(chunk) = self.chunks.get(self.next).filter(|chunk| behind >= chunk.len()) {
            behind -= chunk.len();
            self.next += 1;
        }
        self.skip = behind;
        Ok(())
    }

    fn check(&self, claimed: u64) -> Result<(), Lie> {
        if (self.acked..=self.sent).contains(&claimed) {
            return Ok(());
        }
        Err(Lie::Acknowledged { claimed, from: self.acked, to: self.sent })
    }

    /// Bytes from `from` to `to`, without the end's place.
    fn bytes_between(&self, from: u64, to: u64) -> usize {
        let behind_bytes = self.end - u64::from(self.ended);
        usize::try_from(to.min(behind_bytes) - from.min(behind_bytes)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(offset: u64, bytes: &'static [u8]) -> Option<Outbound> {
        Some(Outbound::Data { offset, bytes: Bytes::from_static(bytes) })
    }

    fn push(out: &mut Outgoing, bytes: &'static [u8]) {
        out.push(Bytes::from_static(bytes), Instant::now());
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_from_where_the_peer_is() {
        let mut out = Outgoing::new(1 << 20);
        push(&mut out, b"abcd");
        push(&mut out, b"efgh");
        assert_eq!(
            [out.next_frame(), out.next_frame(), out.next_frame()],
            [data(0, b"abcd"), data(4, b"efgh"), None]
        );
        out.acknowledge(2, Instant::now()).unwrap();
        out.resume(5).unwrap();
        assert_eq!([out.next_frame(), out.next_frame()], [data(5, b"fgh"), None]);
        out.resume(2).unwrap();
        out.finish();
        let frames = std::iter::from_fn(|| out.next_frame()).collect::<Vec<_>>();
        assert_eq!(
            frames,
            [data(2, b"cd"), data(4, b"efgh"), Some(Outbound::End { offset: 8 })].map(Option::unwrap)
        );
        out.acknowledge(8, Instant::now()).unwrap();
        assert!(!out.is_done(), "the end is not acknowledged yet");
        out.acknowledge(9, Instant::now()).unwrap();
        assert!(out.is_done() && out.held == 0);
    }

    #[test]
    fn a_full_buffer_takes_no_more_until_it_is_acknowledged() {
        let mut out = Outgoing::new(3 * FRAME_COST);
        assert_eq!(out.room(), 2 * FRAME_COST);
        push(&mut out, &[0; 2 * FRAME_COST]);
        assert_eq!(out.room(), 0);
        out.next_frame().unwrap();
        out.acknowledge(FRAME_COST as u64, Instant::now()).unwrap();
        assert_eq!(out.room(), 0, "half of it still costs a frame");
        out.acknowledge(2 * FRAME_COST as u64, Instant::now()).unwrap();
        assert_eq!(out.room(), 2 * FRAME_COST);
    }

    #[test]
    fn what_was_acknowledged_before_it_was_weighed_holds_nothing_up() {
        const HEAVY: u64 = 1 << 30;
        let (mut out, now) = (Outgoing::new(1 << 20), Instant::now());
        push(&mut out, b"abcd");
        out.next_frame().unwrap();
        out.acknowledge(4, now).unwrap();
        out.weigh(HEAVY, now);
        assert!(out.room() > 0, "nobody is left to say that it is through");
        push(&mut out, b"efgh");
        out.next_frame().unwrap();
        out.acknowledge(6, now).unwrap();
        out.weigh(HEAVY, now);
        assert_eq!(out.room(), 0, "some of it is under way");
        out.acknowledge(8, now).unwrap();
        assert!(out.room() > 0);
    }

    #[test]
    fn offsets_that_were_not_sent_or_are_taken_back_are_lies() {
        let mut out = Outgoing::new(1 << 20);
        push(&mut out, b"abcd");
        assert!(out.acknowledge(1, Instant::now()).is_err(), "nothing was sent yet");
        out.next_frame().unwrap();
        out.acknowledge(3, Instant::now()).unwrap();
        for lie in [5, u64::MAX] {
            assert!(out.acknowledge(lie, Instant::now()).is_err() && out.resume(lie).is_err(), "{lie}");
        }
        out.acknowledge(2, Instant::now()).unwrap();
        assert!(out.resume(2).is_err(), "what was acknowledged is not kept");
        out.finish();
        assert!(out.acknowledge(5, Instant::now()).is_err(), "the end was not sent yet");
        assert_eq!(out.next_frame(), Some(Outbound::End { offset: 4 }));
        out.acknowledge(5, Instant::now()).unwrap();
    }
}
