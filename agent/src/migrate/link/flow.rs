//! How much a lane keeps under way: what the link carries in a round trip, and a little more. Pure.
//!
//! A window that is wide enough for a long way fills with seconds of bytes on a slow one, and whatever comes last, like the
//! pages of a guest that is paused already, waits behind all of them. So the window is an upper bound only, and what is
//! used of it follows the rate at which bytes are passed on at the other end and the shortest time that took, as BBR's
//! does (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016), with room for a few
//! milliseconds in which either end is not scheduled.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Before anything is known, and as long as the rate grows: a new connection sends twice as much each round trip, and what
/// passed so far says what it could then. Over 100 ms a link was held up by its own first rates.
const START: usize = 1 << 20;
/// However slow the link.
const LEAST: usize = 256 << 10;
/// What may wait, beside what is on its way.
const SLACK: Duration = Duration::from_millis(20);
/// Of the round trip: more than it carries, so that a faster link is noticed.
const GAIN: f64 = 1.25;
/// Round trips of the link's rate, at least. Where packets are lost, bytes wait behind others that are sent again, some twice,
/// and what that takes cannot be told apart from a slow link: with 3 the limit fell from one round to the next over 100 ms with
/// one packet of 200 lost, and moves took twice as long. What has no room in the network waits on this side.
const TRIPS: f64 = 5.0;
/// A rate grows if it is so much higher than before; when it was not so often, the link is full (BBR's `BBRFullBwThresh` and
/// `BBRFullBwCnt`).
const GROWS: f64 = 1.25;
const FULL: u32 = 3;
/// What a rate is measured over, at least …
const SAMPLE: Duration = Duration::from_millis(10);
/// … and so many round trips: behind a packet that was lost others wait for one, and then pass all at once.
const SAMPLE_TRIPS: f64 = 2.0;
/// How long a rate counts, at least; twice as long at most. Then the link may have become slower.
const RATE_FOR: Duration = Duration::from_secs(1);
/// The same of a round trip, which the queue of the lane's own bytes lengthens.
const TRIP_FOR: Duration = Duration::from_secs(10);

/// The flow of one direction of a lane.
#[derive(Debug)]
pub struct Flow {
    most: usize,
    limit: usize,
    /// What was pushed when: the offset behind it.
    marks: VecDeque<(u64, Instant)>,
    /// Since when the present sample is taken, and from which offset on.
    sample: Option<(Instant, u64)>,
    /// Bytes a second.
    rate: Recent<f64>,
    growth: Growth,
    /// Seconds.
    trip: Recent<f64>,
}

impl Flow {
    /// Of a lane whose window is `most` bytes.
    pub fn new(most: usize) -> Self {
        let (rate, trip) = (Recent::new(f64::max, RATE_FOR), Recent::new(f64::min, TRIP_FOR));
        Self {
            most,
            limit: most.min(START),
            marks: VecDeque::new(),
            sample: None,
            rate,
            growth: Growth::default(),
            trip,
        }
    }

    /// How much may be under way, bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Everything before `offset` was pushed by now.
    pub fn pushed(&mut self, offset: u64, now: Instant) {
        self.marks.push_back((offset, now));
    }

    /// Everything before `offset` was passed on at the other end.
    pub fn passed(&mut self, offset: u64, now: Instant) {
        while let Some((_, at)) = self.marks.pop_front_if(|(end, _)| *end <= offset) {
            self.trip.see((now - at).as_secs_f64(), now);
        }
        let (since, from) = *self.sample.get_or_insert((now, offset));
        let took = (now - since).as_secs_f64();
        if took >= self.sample_seconds() {
            let rate = (offset - from) as f64 / took;
            self.rate.see(rate, now);
            self.growth.see(rate);
            self.sample = Some((now, offset));
        }
        self.follow();
    }

    fn sample_seconds(&self) -> f64 {
        self.trip.value().map_or(0.0, |trip| trip * SAMPLE_TRIPS).max(SAMPLE.as_secs_f64())
    }

    /// The link was lost, and is back: what was under way says nothing of it.
    pub fn restart(&mut self) {
        self.marks.clear();
        (self.sample, self.growth) = (None, Growth::default());
    }

    fn follow(&mut self) {
        let Some((rate, trip)) = self.rate.value().zip(self.trip.value()) else { return };
        let least = if self.growth.is_over() { LEAST } else { START };
        let bytes = rate * (trip * TRIPS).max(trip * GAIN + SLACK.as_secs_f64());
        self.limit = (bytes as usize).max(least).min(self.most);
    }
}

/// Whether a connection was ever full.
#[derive(Debug, Default)]
struct Growth {
    highest: f64,
    /// Rates in a row that were no higher.
    flat: u32,
}

impl Growth {
    fn see(&mut self, rate: f64) {
        if rate >= self.highest * GROWS {
            self.highest = rate;
            self.flat = if self.is_over() { self.flat } else { 0 };
        } else {
            self.flat = self.flat.saturating_add(1);
        }
    }

    fn is_over(&self) -> bool {
        self.flat >= FULL
    }
}

/// The best of the values seen lately.
#[derive(Debug)]
struct Recent<T> {
    better: fn(T, T) -> T,
    period: Duration,
    since: Option<Instant>,
    /// Of the period before, and of this one.
    best: [Option<T>; 2],
}

impl<T: Copy> Recent<T> {
    fn new(better: fn(T, T) -> T, period: Duration) -> Self {
        Self { better, period, since: None, best: [None; 2] }
    }

    fn see(&mut self, value: T, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now - since >= self.period {
            (self.best, self.since) = ([self.best[1], None], Some(now));
        }
        self.best[1] = Some(self.best[1].map_or(value, |best| (self.better)(best, value)));
    }

    fn value(&self) -> Option<T> {
        match self.best {
            [Some(before), Some(now)] => Some((self.better)(before, now)),
            [one, other] => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: usize = 8 << 20;
    const MBIT: f64 = 125_000.0;

    /// A link of so many bytes a second and this long a way, there and back.
    struct Link {
        rate: f64,
        trip: Duration,
        /// One frame of so many is lost, and comes a round trip later; what is behind it waits.
        loses: Option<u64>,
    }

    impl Link {
        /// Sends for `seconds` all that may be under way, in frames of 64 KiB; returns the limit, and the longest that a
        /// frame of the second half took, milliseconds.
        fn run(&self, flow: &mut Flow, from: u64, began: Instant, seconds: f64) -> (usize, u128) {
            const FRAME: u64 = 64 << 10;
            let (mut now, mut free, mut sent, mut passed) = (began, began, from, from);
            let (mut under_way, mut longest) = (VecDeque::new(), 0);
            while (now - began).as_secs_f64() < seconds {
                while sent + FRAME - passed <= flow.limit() as u64 {
                    sent += FRAME;
                    free = free.max(now) + Duration::from_secs_f64(FRAME as f64 / self.rate);
                    let is_lost = self.loses.is_some_and(|every| (sent / FRAME).is_multiple_of(every));
                    under_way.push_back((sent, now, free + self.trip * (1 + u32::from(is_lost))));
                    flow.pushed(sent, now);
                }
                let (end, at, arrives) = under_way.pop_front().expect("a frame is always under way");
                (now, passed) = (now.max(arrives), end);
                flow.passed(end, now);
                if (now - began).as_secs_f64() > seconds / 2.0 {
                    longest = longest.max((now - at).as_millis());
                }
            }
            (flow.limit(), longest)
        }
    }

    #[test]
    fn a_short_way_is_not_filled_with_what_must_wait() {
        for rate in [100.0 * MBIT, 1000.0 * MBIT, 8000.0 * MBIT] {
            let link = Link { rate, trip: Duration::from_millis(1), loses: None };
            let (limit, longest) = link.run(&mut Flow::new(WINDOW), 0, Instant::now(), 8.0);
            assert!(longest <= 60, "{rate}: {longest} ms with {limit} bytes under way");
            assert!(limit as f64 >= rate * 0.01 || limit == WINDOW, "{rate}: {limit}");
        }
    }

    #[test]
    fn a_long_way_gets_the_window_that_it_needs() {
        let link = Link { rate: 400.0 * MBIT, trip: Duration::from_millis(100), loses: None };
        let (limit, _) = link.run(&mut Flow::new(WINDOW), 0, Instant::now(), 3.0);
        assert!(limit as f64 >= link.rate * 0.1, "{limit} bytes do not fill it");
    }

    #[test]
    fn a_long_way_that_loses_packets_is_not_taken_for_a_slow_one() {
        // One packet of 200, and so one frame of five.
        let link = Link { rate: 100.0 * MBIT, trip: Duration::from_millis(100), loses: Some(5) };
        let (limit, _) = link.run(&mut Flow::new(WINDOW), 0, Instant::now(), 60.0);
        assert!(limit as f64 >= link.rate * 0.2, "{limit} bytes are not enough for it");
    }

    #[test]
    fn a_link_that_is_getting_faster_is_not_held_up() {
        // As a new connection sends over 100 ms: 10 packets, and twice as much every round trip, up to 100 Mbit/s.
        const TRIP: u64 = 100;
        let (mut flow, began) = (Flow::new(WINDOW), Instant::now());
        let mut sent = vec![0];
        for millis in 1..2_000u64 {
            let rate = (147_000.0 * (millis as f64 / TRIP as f64).exp2()).min(100.0 * MBIT);
            sent.push(sent[sent.len() - 1] + (rate / 1000.0) as u64);
            let (now, passed) = (began + Duration::from_millis(millis), millis.saturating_sub(TRIP));
            flow.pushed(sent[millis as usize], now);
            // Now and then a packet is lost, and what is behind it comes a round trip later.
            if passed > 0 && millis % 400 < 300 {
                flow.passed(sent[passed as usize], now);
            }
            let under_way = sent[millis as usize] - sent[passed as usize];
            assert!(flow.limit() as u64 >= under_way, "{} of {under_way} after {millis} ms", flow.limit());
        }
    }

    #[test]
    fn a_link_that_changes_is_followed() {
        let (mut flow, began) = (Flow::new(WINDOW), Instant::now());
        let trip = Duration::from_millis(1);
        Link { rate: 1000.0 * MBIT, trip, loses: None }.run(&mut flow, 0, began, 5.0);
        flow.restart();
        let later = began + Duration::from_secs(6);
        let slow = Link { rate: 50.0 * MBIT, trip, loses: None };
        let (limit, _) = slow.run(&mut flow, 1 << 40, later, 6.0);
        assert!(limit <= 700 << 10, "{limit}");
        flow.restart();
        let fast = Link { rate: 1000.0 * MBIT, trip, loses: None };
        let (limit, _) = fast.run(&mut flow, 1 << 41, later + Duration::from_secs(7), 2.0);
        assert!(limit >= 2 << 20, "{limit}");
    }

    #[test]
    fn bytes_that_waited_for_a_lost_packet_and_then_pass_at_once_are_no_faster_link() {
        let (rate, trip) = (100.0 * MBIT, Duration::from_millis(100));
        let (mut flow, began) = (Flow::new(WINDOW), Instant::now());
        let sent_by = |millis: u64| (rate * millis as f64 / 1000.0) as u64;
        for millis in 1..5_000 {
            let now = began + Duration::from_millis(millis);
            flow.pushed(sent_by(millis), now);
            // Of every 250 ms, nothing is passed on for a round trip.
            let waits = (1_000..).contains(&millis) && millis % 250 < 100;
            if millis > 100 && !waits {
                flow.passed(sent_by(millis - 100), now);
            }
        }
        assert!(flow.limit() as f64 <= rate * trip.as_secs_f64() * (TRIPS + 0.5), "{}", flow.limit());
    }

    #[test]
    fn a_cut_is_no_round_trip() {
        let (mut flow, began) = (Flow::new(WINDOW), Instant::now());
        flow.pushed(1, began);
        flow.restart();
        flow.passed(1, began + Duration::from_secs(9));
        assert_eq!(flow.limit(), START);
    }
}
