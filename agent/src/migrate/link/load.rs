//! What the bytes under way stand for at the other end: a few bytes of the page codec may be megabytes of a guest's memory,
//! and who has to put them in their places is slower than the link then. Pure.
//!
//! What waits there waits while the guest is paused. So it is bounded as the bytes themselves are, by the rate at which
//! the other end gets through.

use super::flow::Flow;
use std::{collections::VecDeque, time::Instant};

/// Bytes that may wait at the other end, however fast it is.
const MOST: usize = 64 << 20;

/// The load of one direction of a lane.
#[derive(Debug)]
pub struct Load {
    flow: Flow,
    /// Behind which offset of the lane how much was put on it in all.
    marks: VecDeque<(u64, u64)>,
    put_on: u64,
    taken_off: u64,
}

impl Default for Load {
    fn default() -> Self {
        Self { flow: Flow::new(MOST), marks: VecDeque::new(), put_on: 0, taken_off: 0 }
    }
}

impl Load {
    /// Whether more may be put on it, now.
    pub fn has_room(&self) -> bool {
        self.put_on - self.taken_off <= self.flow.limit() as u64
    }

    /// What was pushed before `offset` stands for `plain` bytes more than what was weighed before.
    pub fn weigh(&mut self, offset: u64, plain: u64, now: Instant) {
        self.put_on += plain;
        self.marks.push_back((offset, self.put_on));
        self.flow.pushed(self.put_on, now);
    }

    /// Everything before `offset` was passed on at the other end.
    pub fn passed(&mut self, offset: u64, now: Instant) {
        let before = self.taken_off;
        while let Some((_, put_on)) = self.marks.pop_front_if(|(end, _)| *end <= offset) {
            self.taken_off = put_on;
        }
        if self.taken_off > before {
            self.flow.passed(self.taken_off, now);
        }
    }

    /// The link was lost, and is back.
    pub fn restart(&mut self) {
        self.flow.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// An other end that gets through so many bytes a millisecond, of frames of one byte that stand for a mebibyte each.
    /// Returns the longest that a frame of the second half took, milliseconds.
    fn longest(load: &mut Load, millis: u128, each_ms: u64) -> u128 {
        let (began, each) = (Instant::now(), Duration::from_millis(each_ms));
        let (mut now, mut sent, mut waiting, mut longest) = (began, 0, VecDeque::new(), 0);
        while (now - began).as_millis() < millis {
            while load.has_room() {
                sent += 1;
                load.weigh(sent, MIB, now);
                waiting.push_back((sent, now));
            }
            now += each;
            let (offset, at) = waiting.pop_front().expect("a frame always waits");
            load.passed(offset, now);
            if (now - began).as_millis() > millis / 2 {
                longest = longest.max((now - at).as_millis());
            }
        }
        longest
    }

    #[test]
    fn an_end_that_is_slower_than_the_link_has_little_that_waits() {
        let waited = longest(&mut Load::default(), 4000, 4);
        assert!(waited <= 40, "{waited} ms, with frames of 4 ms");
    }

    #[test]
    fn a_frame_goes_however_slow_the_end_and_a_cut_loses_none() {
        let (mut load, now) = (Load::default(), Instant::now());
        load.weigh(10, 100 * MIB, now);
        assert!(!load.has_room());
        load.restart();
        load.passed(9, now);
        assert!(!load.has_room());
        load.passed(10, now + Duration::from_secs(5));
        assert!(load.has_room());
    }
}
