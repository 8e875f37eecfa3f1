//! What one side of a lane receives, until its reader has it. Pure.

use super::{
    Lie,
    saved::{BadLane, SavedIncoming, size_and_cost},
    window::{ACK_EVERY, FRAME_COST},
};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;

/// A sequence as its receiver has it: `passed ≤ received`, and what lies between is held.
#[derive(Debug)]
pub struct Incoming {
    window: usize,
    chunks: VecDeque<Bytes>,
    /// What `chunks` cost.
    held: usize,
    received: u64,
    ended: bool,
    /// What the reader has taken, the end included.
    passed: u64,
    end_passed: bool,
    /// What was acknowledged on the present carrier.
    told: Option<u64>,
    /// What the sender still keeps of what was passed on, as it counts.
    owed: usize,
    /// Whether the reader waits for more.
    starved: bool,
}

impl Incoming {
    /// Nothing yet, of a sequence whose sender may have as much under way as costs `window`.
    pub fn new(window: usize) -> Self {
        Self {
            window,
            chunks: VecDeque::new(),
            held: 0,
            received: 0,
            ended: false,
            passed: 0,
            end_passed: false,
            told: Some(0),
            owed: 0,
            starved: false,
        }
    }

    /// As it stands, for a successor.
    pub fn save(&self) -> SavedIncoming {
        let Self { passed, end_passed, ended, .. } = *self;
        SavedIncoming { passed, end_passed, ended, chunks: self.chunks.iter().cloned().collect() }
    }

    /// As a predecessor left it.
    ///
    /// # Errors
    /// [`BadLane`].
    pub fn restore(window: usize, saved: &SavedIncoming) -> Result<Self, BadLane> {
        let SavedIncoming { passed, end_passed, ended, ref chunks } = *saved;
        let taken = passed.checked_sub(end_passed.into()).ok_or(BadLane)?;
        let (bytes, held) = size_and_cost(chunks);
        let received = taken.checked_add(bytes).ok_or(BadLane)?;
        if held > window
            || (end_passed && !(ended && chunks.is_empty()))
            || chunks.iter().any(Bytes::is_empty)
        {
            return Err(BadLane);
        }
        let chunks = chunks.iter().cloned().collect();
        Ok(Self { chunks, held, received, passed, end_passed, ended, told: None, ..Self::new(window) })
    }

    /// The offset up to which everything is here, the end included.
    pub fn received(&self) -> u64 {
        self.received + u64::from(self.ended)
    }

    /// Whether the peer has said everything.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the reader has it all, the end included.
    pub fn is_passed(&self) -> bool {
        self.end_passed
    }

    /// Takes bytes from the peer. What is here already is dropped.
    ///
    /// # Errors
    /// [`Lie`].
    pub fn data(&mut self, offset: u64, mut bytes: Bytes) -> Result<(), Lie> {
        let Some(known) = self.received.checked_sub(offset) else {
            return Err(Lie::Gap { offset, received: self.received });
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        if known >= bytes.len() {
            return Ok(());
        }
        if self.ended {
            return Err(Lie::End { offset: self.received });
        }
        bytes.advance(known);
        let cost = bytes.len() + FRAME_COST;
        if self.held + cost > self.window {
            return Err(Lie::Flood { window: self.window });
        }
        self.held += cost;
        self.received += bytes.len() as u64;
        self.starved = false;
        self.chunks.push_back(bytes);
        Ok(())
    }

    /// The peer's sequence ends at `offset`.
    ///
    /// # Errors
    /// [`Lie`] if it does not.
    pub fn end(&mut self, offset: u64) -> Result<(), Lie> {
        if offset > self.received {
            return Err(Lie::Gap { offset, received: self.received });
        }
        if offset < self.received {
            return Err(Lie::End { offset });
        }
        self.ended = true;
        Ok(())
    }

    /// The next bytes for the reader, if there are any.
    pub fn front(&self) -> Option<&Bytes> {
        self.chunks.front()
    }

    /// The reader has found nothing, and its sender may be waiting to hear that it is through. Says whether there is
    /// something to be told.
    pub fn starve(&mut self) -> bool {
        self.starved = true;
        self.told.is_none_or(|told| told < self.passed)
    }

    /// The reader has taken `count` of [`Incoming::front`].
    pub fn pass(&mut self, count: usize) {
        let Some(front) = self.chunks.front_mut() else { return };
        let count = count.min(front.len());
        front.advance(count);
        self.passed += count as u64;
        let freed = if front.is_empty() { count + FRAME_COST } else { count };
        if front.is_empty() {
            self.chunks.pop_front();
        }
        self.held -= freed;
        self.owed += freed;
    }

    /// Passes on the end, if it is next; says whether.
    pub fn pass_end(&mut self) -> bool {
        if self.ended && self.chunks.is_empty() && !self.end_passed {
            self.end_passed = true;
            self.passed += 1;
        }
        self.end_passed
    }

    /// An acknowledgement that is worth a frame: of [`ACK_EVERY`] bytes or an eighth of the window, of all that came to a
    /// reader that waits for more, of the end, or the first after a cut.
    pub fn acknowledgement(&mut self) -> Option<u64> {
        let due = match self.told {
            None => true,
            Some(told) => {
                let whole = self.end_passed || self.starved;
                self.owed >= ACK_EVERY.min(self.window / 8) || (whole && told < self.passed)
            }
        };
        due.then(|| {
            self.told = Some(self.passed);
            self.owed = 0;
            self.passed
        })
    }

    /// Whether the end was passed on and acknowledged on the present carrier.
    pub fn is_done(&self) -> bool {
        self.end_passed && self.told == Some(self.passed)
    }

    /// A new carrier: nobody knows which acknowledgements the last one delivered.
    pub fn resume(&mut self) {
        self.told = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(incoming: &mut Incoming) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(front) = incoming.front().map(|front| front.to_vec()) {
            incoming.pass(front.len());
            all.extend(front);
        }
        all
    }

    #[test]
    fn duplicates_are_dropped_and_overlaps_are_cut() {
        let mut incoming = Incoming::new(1 << 20);
        incoming.data(0, Bytes::from_static(b"abcd")).unwrap();
        incoming.data(0, Bytes::from_static(b"abcd")).unwrap();
        incoming.data(2, Bytes::from_static(b"cdef")).unwrap();
        incoming.end(6).unwrap();
        incoming.end(6).unwrap();
        incoming.data(1, Bytes::from_static(b"bc")).unwrap();
        assert_eq!((taken(&mut incoming), incoming.received()), (b"abcdef".to_vec(), 7));
        assert!(incoming.pass_end() && !incoming.is_done());
        assert_eq!((incoming.acknowledgement(), incoming.acknowledgement()), (Some(7), None));
        assert!(incoming.is_done());
        incoming.resume();
        assert_eq!(incoming.acknowledgement(), Some(7), "the last one may have been lost");
    }

    #[test]
    fn gaps_floods_and_bytes_behind_the_end_are_lies() {
        let mut incoming = Incoming::new(2 * FRAME_COST);
        assert!(matches!(
            incoming.data(1, Bytes::from_static(b"x")),
            Err(Lie::Gap { offset: 1, received: 0 })
        ));
        assert!(matches!(incoming.end(1), Err(Lie::Gap { .. })));
        let full = Bytes::from(vec![0; FRAME_COST]);
        incoming.data(0, full.clone()).unwrap();
        assert!(matches!(incoming.data(FRAME_COST as u64, full), Err(Lie::Flood { .. })));
        taken(&mut incoming);
        assert!(matches!(incoming.end(3), Err(Lie::End { offset: 3 })));
        incoming.end(FRAME_COST as u64).unwrap();
        assert!(matches!(incoming.data(FRAME_COST as u64, Bytes::from_static(b"x")), Err(Lie::End { .. })));
        assert!(incoming.data(u64::MAX, Bytes::from_static(b"x")).is_err());
    }

    #[test]
    fn acknowledgements_are_not_sent_for_every_byte() {
        let mut incoming = Incoming::new(1 << 20);
        for at in 1..1000u64 {
            incoming.data(incoming.received(), Bytes::from(vec![0; 1024 - FRAME_COST])).unwrap();
            incoming.pass(1024);
            assert_eq!(incoming.acknowledgement().is_some(), at % 64 == 0, "{at}");
        }
    }

    #[test]
    fn a_reader_that_waits_for_more_acknowledges_what_it_has() {
        let mut incoming = Incoming::new(1 << 20);
        incoming.data(0, Bytes::from_static(b"abcd")).unwrap();
        incoming.pass(4);
        assert_eq!(incoming.acknowledgement(), None);
        assert!(incoming.starve());
        assert_eq!((incoming.acknowledgement(), incoming.acknowledgement()), (Some(4), None));
        incoming.data(4, Bytes::from_static(b"e")).unwrap();
        incoming.pass(1);
        assert_eq!(incoming.acknowledgement(), None, "it does not wait any more");
    }

    #[test]
    fn many_small_frames_are_acknowledged_before_they_fill_the_window() {
        let mut incoming = Incoming::new(1 << 20);
        let told = (0..8192u64).filter_map(|at| {
            incoming.data(at, Bytes::from_static(b"x")).unwrap();
            incoming.pass(1);
            incoming.acknowledgement()
        });
        assert!(told.count() >= 8);
    }
}
