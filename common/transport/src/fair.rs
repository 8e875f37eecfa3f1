//! Congestion control for links that take their part: a window that grows while the path loses next to nothing.
//!
//! It follows what BBR version 3 does with losses (draft-ietf-ccwg-bbr, "inflight_longterm"): a path may lose up to
//! [`LOSS_TOLERATED`] of a round without anybody being at fault; more means that its queue is full, and the window falls to
//! [`KEPT`] of itself, though not below what the path was seen to carry. Otherwise it grows: at first by doubling, when round
//! trips become longer by a quarter a round (HyStart++, RFC 9406), and since the queue was full once by a sixteenth, until it
//! has grown for longer than a path takes that is as wide as it was. At first a round is a few packets, of which one that is
//! lost is a large part: it is the fate of one packet in 200, and says nothing of a queue before [`FEW`] are lost.
//!
//! Not quinn's own, by measurement (`make bench NAME=migration ROW=far`: 100 ms there and back, one packet of 200 lost,
//! 100 Mbit/s): CUBIC takes every loss for a full queue and brought nothing there within three minutes. BBR takes what two
//! acknowledgements after one another say for the path's rate, which is without bounds when they come together: its window
//! grew to 80 MB where 2.5 MB have room, and a third of all packets was lost.

use crate::settings::INITIAL_WINDOW;
use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};
use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

/// Part of a round's bytes that a path may lose: `LossThresh` of BBR.
const LOSS_TOLERATED: f64 = 0.02;
/// Part of the window that is left when more was lost: `Beta` of BBR.
const KEPT: f64 = 0.7;
/// Parts of the window by which it grows in a round: `CSS_GROWTH_DIVISOR` of RFC 9406 …
const NEARING: u64 = 4;
/// … and when the path is known.
const STEADY: u64 = 16;
/// Rounds of that in which a window grows back to what it was when the queue was full, even if it fell twice
/// (1.0625¹² · [`KEPT`]² > 1), and a few: if it can still grow then, the path is wider than it was, or its queue was not full.
const BACK: u32 = 16;
const LEAST: u64 = 2;
/// So many lost packets in a round may be chance, before the queue was ever full: `StartupFullLossCnt` of BBR.
const FEW: u64 = 6;
/// A round is a round trip, but no shorter than this: between hosts that are near each other acknowledgements come in heaps.
const ROUND: Duration = Duration::from_millis(10);
/// A round trip that is longer than the shortest by an eighth, and by so much at least and at most, says that a queue
/// grows: `MIN_RTT_THRESH` and `MAX_RTT_THRESH` of RFC 9406.
const LONGER: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// Makes the controllers.
#[derive(Debug)]
pub(crate) struct Fair;

impl ControllerFactory for Fair {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Window::new(now, current_mtu))
    }
}

/// The window of one connection.
#[derive(Debug, Clone)]
struct Window {
    mtu: u64,
    bytes: u64,
    phase: Phase,
    round: Round,
    /// Of all time: quinn's own estimate does not forget either.
    shortest: Duration,
    smoothed: Duration,
    /// Bytes that were acknowledged together so far.
    batch: u64,
}

/// What is known of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing: the window doubles in a round trip.
    Doubling,
    /// Round trips became longer, be it by a queue or by a host that is busy.
    Nearing,
    /// It was full, so many rounds ago.
    Steady(u32),
}

/// What came of the bytes under way since it began.
#[derive(Debug, Clone, Copy)]
struct Round {
    began: Instant,
    acknowledged: u64,
    lost: u64,
    /// A router said that its queue grows (ECN).
    is_marked: bool,
    shortest: Duration,
}

impl Round {
    fn new(began: Instant) -> Self {
        Self { began, acknowledged: 0, lost: 0, is_marked: false, shortest: Duration::MAX }
    }

    /// Whether more was lost than a path may lose.
    fn is_congested(&self) -> bool {
        self.is_marked || self.lost as f64 > LOSS_TOLERATED * (self.acknowledged + self.lost) as f64
    }
}

impl Window {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            bytes: INITIAL_WINDOW,
            phase: Phase::Doubling,
            round: Round::new(now),
            shortest: Duration::MAX,
            smoothed: Duration::ZERO,
            batch: 0,
        }
    }

    fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64, smoothed: Duration) {
        (self.batch, self.smoothed) = (self.batch + bytes, smoothed);
        let trip = now.saturating_duration_since(sent);
        self.shortest = self.shortest.min(trip);
        self.round.shortest = self.round.shortest.min(trip);
        self.round.acknowledged += bytes;
    }

    /// What was acknowledged together is complete. Who has less than half of the window under way does not know whether more
    /// had room.
    fn judge(&mut self, now: Instant, in_flight: u64) {
        let acknowledged = std::mem::take(&mut self.batch);
        let is_used = in_flight + acknowledged >= self.bytes / 2;
        if self.phase == Phase::Doubling && is_used {
            self.bytes += acknowledged;
        }
        let took = now.saturating_duration_since(self.round.began);
        if took >= self.smoothed.max(ROUND) {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            self.heed(round, took, is_used);
        }
    }

    fn heed(&mut self, round: Round, took: Duration, is_used: bool) {
        let is_chance =
            !matches!(self.phase, Phase::Steady(_)) && !round.is_marked && round.lost < FEW * self.mtu;
        if round.is_congested() && !is_chance {
            self.phase = Phase::Steady(0);
            let kept = (self.bytes as f64 * KEPT) as u64;
            self.bytes = kept.max(self.carried(round, took)).max(LEAST * self.mtu);
            return;
        }
        match self.phase {
            // A packet that is alone is acknowledged late (RFC 9000, section 13.2.1): that says nothing of a queue.
            Phase::Doubling if is_used && self.is_longer(round) => self.phase = Phase::Nearing,
            Phase::Nearing if is_used => self.grow(NEARING),
            Phase::Steady(rounds) if is_used => {
                self.grow(if rounds < BACK { STEADY } else { NEARING });
                self.phase = Phase::Steady(rounds.saturating_add(1));
            }
            Phase::Doubling | Phase::Nearing | Phase::Steady(_) => {}
        }
    }

    fn is_longer(&self, round: Round) -> bool {
        round.shortest > self.shortest + (self.shortest / 8).clamp(LONGER.0, LONGER.1)
    }

    fn grow(&mut self, part: u64) {
        self.bytes += (self.bytes / part).max(self.mtu);
    }

    /// What the path holds, by what a round brought: bytes, and no more than the window.
    fn carried(&self, round: Round, took: Duration) -> u64 {
        let rate = round.acknowledged as f64 / took.as_secs_f64();
        ((rate * self.shortest.as_secs_f64()) as u64).min(self.bytes)
    }

    fn lose(&mut self, now: Instant, bytes: u64, persistent: bool) {
        if persistent {
            (self.bytes, self.phase, self.round) = (LEAST * self.mtu, Phase::Doubling, Round::new(now));
        } else {
            self.round.lost += bytes;
            self.round.is_marked |= bytes == 0;
        }
    }
}

impl Controller for Window {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, rtt: &RttEstimator) {
        self.acknowledge(now, sent, bytes, rtt.get());
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, _app_limited: bool, _largest: Option<u64>) {
        self.judge(now, in_flight);
    }

    fn on_congestion_event(&mut self, now: Instant, _sent: Instant, persistent: bool, lost_bytes: u64) {
        self.lose(now, lost_bytes, persistent);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.bytes = self.bytes.max(LEAST * self.mtu);
    }

    fn window(&self) -> u64 {
        self.bytes
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.bytes;
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1452;
    /// Acknowledgements come in so many batches a round trip.
    const BATCHES: u64 = 16;

    /// A path with one narrow hop, whose queue has room for so many bytes, and on which a part of the packets is lost anyway.
    struct Path {
        /// Bytes a second.
        rate: f64,
        way: Duration,
        queue: f64,
        loses: f64,
        now: Instant,
    }

    /// What came of a drive, parts of what the path carries, and of what was sent.
    struct Drive {
        used: f64,
        lost: f64,
    }

    impl Path {
        fn new(rate: f64, way: Duration, queue: Duration, loses: f64) -> Self {
            Self { rate, way, queue: rate * queue.as_secs_f64(), loses, now: Instant::now() }
        }

        /// Sends as much as the window lets, but no more than `most` in a round, for `time`.
        fn drive(&mut self, window: &mut Window, most: u64, time: Duration) -> Drive {
            let (began, mut sent, mut lost) = (self.now, 0.0, 0.0);
            while self.now < began + time {
                let bytes = window.window().min(most) as f64;
                let holds = self.rate * self.way.as_secs_f64();
                let gone = (bytes - holds - self.queue).max(0.0) + bytes * self.loses;
                let waits = Duration::from_secs_f64((bytes - holds).clamp(0.0, self.queue) / self.rate);
                let (start, trip) = (self.now, self.way + waits);
                for batch in 1..=BATCHES {
                    let here = start + trip + trip * batch as u32 / BATCHES as u32;
                    if gone >= BATCHES as f64 {
                        window.lose(here, gone as u64 / BATCHES, false);
                    }
                    window.acknowledge(here, here - trip, (bytes - gone) as u64 / BATCHES, trip);
                    window.judge(here, bytes as u64);
                }
                self.now = start + trip;
                (sent, lost) = (sent + bytes, lost + gone);
            }
            let could = self.rate * (self.now - began).as_secs_f64();
            Drive { used: (sent - lost) / could, lost: lost / sent }
        }
    }

    fn paths() -> impl Iterator<Item = Path> {
        let rates = [2e6, 12.5e6, 125e6, 1.25e9];
        let ways = [Duration::from_micros(200), Duration::from_millis(5), Duration::from_millis(100)];
        let queues = [Duration::from_millis(20), Duration::from_millis(100)];
        let all = rates.into_iter().flat_map(move |rate| ways.map(|way| (rate, way)));
        let all = all.flat_map(move |(rate, way)| queues.map(|queue| (rate, way, queue)));
        let all = all.flat_map(|(rate, way, queue)| {
            [0.0, 0.005, 0.015].map(|loses| Path::new(rate, way, queue, loses))
        });
        // Eight times narrower it must still have room for some packets.
        all.filter(|path| path.rate * path.way.as_secs_f64() + path.queue > 100.0 * f64::from(MTU))
    }

    #[test]
    fn it_fills_paths_that_lose_a_little_and_loses_little_more() {
        for mut path in paths() {
            let mut window = Window::new(path.now, MTU);
            path.drive(&mut window, u64::MAX, Duration::from_secs(5));
            let Drive { used, lost } = path.drive(&mut window, u64::MAX, Duration::from_secs(20));
            let told =
                format!("{} B/s, {:?}, {} in the queue, {}", path.rate, path.way, path.queue, path.loses);
            assert!(used > 0.9, "{used} of {told}");
            assert!(lost < path.loses + LOSS_TOLERATED * 1.5, "{lost} lost of {told}");
        }
    }

    #[test]
    fn a_path_that_became_narrower_is_given_way_to_and_one_that_became_wider_is_filled_again() {
        for mut path in paths() {
            let mut window = Window::new(path.now, MTU);
            path.drive(&mut window, u64::MAX, Duration::from_secs(10));
            let rate = path.rate;
            (path.rate, path.queue) = (rate / 8.0, path.queue / 8.0);
            path.drive(&mut window, u64::MAX, Duration::from_secs(10));
            let Drive { lost, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(10));
            assert!(
                lost < path.loses + LOSS_TOLERATED * 1.5,
                "{lost} lost of {rate} / 8 with {:?}",
                path.way
            );
            (path.rate, path.queue) = (rate, path.queue * 8.0);
            path.drive(&mut window, u64::MAX, Duration::from_secs(20));
            let Drive { used, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(5));
            assert!(used > 0.85, "{used} of {rate} with {:?}", path.way);
        }
    }

    #[test]
    fn who_sends_little_does_not_widen_his_window() {
        let mut path = Path::new(12.5e6, Duration::from_millis(20), Duration::from_millis(20), 0.0);
        let mut window = Window::new(path.now, MTU);
        path.drive(&mut window, 50_000, Duration::from_secs(10));
        assert!(window.window() <= 200_000, "{}", window.window());
    }

    #[test]
    fn a_path_that_brings_nothing_gets_two_packets_and_is_tried_anew() {
        let mut path = Path::new(12.5e6, Duration::from_millis(20), Duration::from_millis(20), 0.0);
        let mut window = Window::new(path.now, MTU);
        path.drive(&mut window, u64::MAX, Duration::from_secs(2));
        window.lose(path.now, 1 << 20, true);
        assert_eq!(window.window(), LEAST * u64::from(MTU));
        path.drive(&mut window, u64::MAX, Duration::from_millis(500));
        let Drive { used, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        assert!(used > 0.9, "{used}");
    }

    /// A path as long as from one continent to the next.
    fn far() -> Path {
        Path::new(12.5e6, Duration::from_millis(100), Duration::from_millis(100), 0.005)
    }

    #[test]
    fn a_packet_that_is_lost_among_the_first_is_no_full_queue() {
        let mut path = far();
        let mut window = Window::new(path.now, MTU);
        window.lose(path.now, MTU.into(), false);
        path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        let Drive { used, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        assert!(used > 0.9, "{used}");
    }

    #[test]
    fn calls_whose_acknowledgements_are_delayed_are_no_queue() {
        let mut path = far();
        let mut window = Window::new(path.now, MTU);
        for delay in [0, 25, 25, 25].map(Duration::from_millis) {
            let sent = path.now;
            path.now += path.way + delay;
            window.acknowledge(path.now, sent, 200, path.way);
            window.judge(path.now, 0);
        }
        path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        let Drive { used, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        assert!(used > 0.9, "{used}");
    }

    #[test]
    fn a_window_that_fell_for_no_reason_does_not_take_long_to_be_what_it_was() {
        let mut path = far();
        let mut window = Window::new(path.now, MTU);
        window.lose(path.now, INITIAL_WINDOW, false);
        path.drive(&mut window, u64::MAX, Duration::from_secs(4));
        let Drive { used, .. } = path.drive(&mut window, u64::MAX, Duration::from_secs(1));
        assert!(used > 0.9, "{used}");
    }

    #[test]
    fn a_mark_of_a_router_counts_as_a_loss() {
        let mut path = Path::new(12.5e6, Duration::from_millis(20), Duration::from_millis(500), 0.0);
        let mut window = Window::new(path.now, MTU);
        path.drive(&mut window, u64::MAX, Duration::from_secs(2));
        let before = window.window();
        window.lose(path.now, 0, false);
        path.drive(&mut window, u64::MAX, Duration::from_millis(1));
        assert!(window.window() < before, "{} of {before}", window.window());
    }
}
