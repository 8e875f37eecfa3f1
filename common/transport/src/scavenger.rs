//! Congestion control for links that give way to other traffic: a delay-based scavenger in the spirit of LEDBAT (RFC 6817).
//!
//! What waits in the network shows as round trips above their minimum. While that stays below [`TARGET`], the window grows as
//! any other's does; above it the window shrinks in proportion, to two packets if need be. Who fills queues (CUBIC, Reno)
//! thus gets the link, and when they leave it is taken again within some round trips. On a link of its own a lane keeps 20 ms
//! of queue, which is below the target: alone, nothing is given away. Who keeps queues short himself (BBR) is shared with as
//! before, and so is a queue that is shorter than the target: losses count here as they do for everybody.
//!
//! Unlike RFC 6817 this goes by round trips (as LEDBAT++ does): one-way delays would need another frame, and what comes back on
//! a migration's link is little.

use crate::settings::INITIAL_WINDOW;
use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory, ControllerMetrics},
};
use std::{
    any::Any,
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// Round trips that are longer than the shortest by more than this make way. RFC 6817 allows 100 ms at most.
pub const TARGET: Duration = Duration::from_millis(25);
/// The least window, packets (RFC 6817: `MIN_CWND`).
const LEAST: u64 = 2;
/// The present delay is the least of so many batches of acknowledgements: one that was late says nothing.
const LATELY: usize = 4;
/// The shortest round trip counts for so many periods: routes change.
const PERIODS: usize = 10;
const PERIOD: Duration = Duration::from_mins(1);

/// Makes the controllers.
#[derive(Debug)]
pub(crate) struct Scavenger;

impl ControllerFactory for Scavenger {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Window::new(now, current_mtu))
    }
}

/// The window of one connection.
#[derive(Debug, Clone)]
struct Window {
    mtu: u64,
    bytes: u64,
    /// Below it the window doubles in a round trip, above it grows by a packet.
    threshold: u64,
    /// Bytes acknowledged since it grew last, above the threshold.
    acknowledged: u64,
    /// It shrank last; one loss, or one long round trip, is heeded once.
    shrank: Instant,
    shortest: Shortest,
    lately: VecDeque<Duration>,
    batch: Batch,
}

/// Acknowledgements that came together.
#[derive(Debug, Clone, Copy, Default)]
struct Batch {
    bytes: u64,
    trip: Option<Duration>,
}

impl Window {
    fn new(now: Instant, mtu: u16) -> Self {
        Self {
            mtu: mtu.into(),
            bytes: INITIAL_WINDOW,
            threshold: u64::MAX,
            acknowledged: 0,
            shrank: now,
            shortest: Shortest::new(now),
            lately: VecDeque::with_capacity(LATELY),
            batch: Batch::default(),
        }
    }

    fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let trip = now.saturating_duration_since(sent);
        self.batch.bytes += bytes;
        self.batch.trip = Some(self.batch.trip.map_or(trip, |before| before.min(trip)));
    }

    fn judge(&mut self, now: Instant, app_limited: bool) {
        let Batch { bytes, trip: Some(trip) } = std::mem::take(&mut self.batch) else { return };
        self.shortest.see(trip, now);
        if self.lately.len() == LATELY {
            self.lately.pop_front();
        }
        self.lately.push_back(trip);
        let present = self.lately.iter().min().copied().unwrap_or(trip);
        let waits = present.saturating_sub(self.shortest.value());
        if waits > TARGET {
            self.give_way(now, present, waits);
        } else if !app_limited {
            self.grow(bytes, waits);
        }
    }

    /// So that what is under way would wait for the target only, if all that waits were its own.
    fn give_way(&mut self, now: Instant, present: Duration, waits: Duration) {
        if now.saturating_duration_since(self.shrank) < present {
            return;
        }
        let kept = (TARGET.as_secs_f64() / waits.as_secs_f64()).max(0.5);
        self.shrink_to((self.bytes as f64 * kept) as u64, now);
    }

    fn shrink_to(&mut self, bytes: u64, now: Instant) {
        (self.bytes, self.shrank, self.acknowledged) = (bytes.max(LEAST * self.mtu), now, 0);
    }

    fn grow(&mut self, bytes: u64, waits: Duration) {
        if self.bytes < self.threshold && waits < TARGET / 2 {
            self.bytes += bytes;
            return;
        }
        self.acknowledged += bytes;
        if self.acknowledged >= self.bytes {
            self.acknowledged -= self.bytes;
            self.bytes += self.mtu;
        }
    }

    fn lose(&mut self, now: Instant, sent: Instant, persistent: bool) {
        if sent <= self.shrank {
            return;
        }
        self.shrink_to(if persistent { 0 } else { self.bytes / 2 }, now);
        self.threshold = self.bytes;
    }
}

impl Controller for Window {
    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.acknowledge(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, _in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        self.judge(now, app_limited);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, _lost_bytes: u64) {
        self.lose(now, sent, persistent);
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
        (metrics.congestion_window, metrics.ssthresh) = (self.bytes, Some(self.threshold));
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

/// The shortest round trip of the last periods.
#[derive(Debug, Clone)]
struct Shortest {
    since: Instant,
    periods: VecDeque<Duration>,
}

impl Shortest {
    fn new(now: Instant) -> Self {
        Self { since: now, periods: VecDeque::from([Duration::MAX]) }
    }

    fn see(&mut self, trip: Duration, now: Instant) {
        if now.saturating_duration_since(self.since) >= PERIOD {
            if self.periods.len() == PERIODS {
                self.periods.pop_front();
            }
            self.periods.push_back(Duration::MAX);
            self.since = now;
        }
        if let Some(newest) = self.periods.back_mut() {
            *newest = trip.min(*newest);
        }
    }

    fn value(&self) -> Duration {
        self.periods.iter().min().copied().unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u16 = 1452;
    /// Acknowledgements come in so many batches a round trip.
    const BATCHES: u64 = 16;

    /// A link that somebody else uses, too.
    struct Road {
        /// Bytes a second.
        rate: f64,
        way: Duration,
        now: Instant,
    }

    impl Road {
        /// Sends as much as the window lets for `time`, beside others whose bytes wait for `others`. Returns the
        /// longest that anything waited in the end, and what share of the link was used.
        fn drive(&mut self, window: &mut Window, others: Duration, time: Duration) -> (Duration, f64) {
            let end = self.now + time;
            let (mut sent, began, mut waited) = (0, self.now, Duration::ZERO);
            while self.now < end {
                let bytes = window.window();
                let surplus = (bytes as f64 - self.rate * self.way.as_secs_f64()).max(0.0);
                waited = others + Duration::from_secs_f64(surplus / self.rate);
                let trip = self.way + waited;
                let start = self.now;
                self.now += trip;
                for _ in 0..BATCHES {
                    window.acknowledge(self.now, start, bytes / BATCHES);
                    window.judge(self.now, false);
                }
                sent += bytes;
            }
            (waited, sent as f64 / (self.rate * (self.now - began).as_secs_f64()))
        }
    }

    fn roads() -> impl Iterator<Item = Road> {
        let rates = [2e6, 12.5e6, 125e6, 1.25e9];
        let ways = [Duration::from_micros(200), Duration::from_millis(5), Duration::from_millis(60)];
        let all = rates.into_iter().flat_map(move |rate| ways.map(|way| (rate, way)));
        all.map(|(rate, way)| Road { rate, way, now: Instant::now() })
    }

    #[test]
    fn alone_it_fills_the_link_and_keeps_its_queue_short() {
        for mut road in roads() {
            let mut window = Window::new(road.now, MTU);
            road.drive(&mut window, Duration::ZERO, Duration::from_secs(3));
            let (waited, used) = road.drive(&mut window, Duration::ZERO, Duration::from_secs(5));
            assert!(used > 0.95, "{used} of {} with {:?}", road.rate, road.way);
            assert!(waited <= TARGET * 2, "{waited:?} of queue on {} with {:?}", road.rate, road.way);
        }
    }

    #[test]
    fn it_gives_way_to_who_fills_the_queue_and_comes_back_when_he_has_left() {
        for mut road in roads() {
            let mut window = Window::new(road.now, MTU);
            road.drive(&mut window, Duration::ZERO, Duration::from_secs(3));
            road.drive(&mut window, TARGET * 2, Duration::from_secs(3));
            assert_eq!(window.window(), LEAST * u64::from(MTU), "{} with {:?}", road.rate, road.way);
            let back = road.way * 40 + Duration::from_secs(1);
            road.drive(&mut window, Duration::ZERO, back);
            let (_, used) = road.drive(&mut window, Duration::ZERO, Duration::from_secs(1));
            assert!(used > 0.9, "{used} of {} with {:?}", road.rate, road.way);
        }
    }

    #[test]
    fn one_late_acknowledgement_is_no_queue_and_one_loss_halves_the_window_once() {
        let now = Instant::now();
        let mut window = Window::new(now, MTU);
        let at = |ms: u64| now + Duration::from_millis(ms);
        for round in 1..20_u64 {
            let trip = if round % LATELY as u64 == 0 { 90 } else { 1 };
            let before = window.window();
            window.acknowledge(at(100 * round + trip), at(100 * round), 1);
            window.judge(at(100 * round + trip), true);
            assert!(window.window() >= before, "round {round}");
        }
        window.bytes = 1 << 20;
        window.lose(at(3000), at(2990), false);
        window.lose(at(3001), at(2999), false);
        assert_eq!(window.window(), 1 << 19);
        window.lose(at(4000), at(3500), true);
        assert_eq!(window.window(), LEAST * u64::from(MTU));
    }

    #[test]
    fn a_way_that_became_longer_is_believed_after_some_minutes() {
        let now = Instant::now();
        let mut shortest = Shortest::new(now);
        shortest.see(Duration::from_millis(1), now);
        for minute in 1..=PERIODS as u32 {
            assert_eq!(shortest.value(), Duration::from_millis(1), "{minute}");
            shortest.see(Duration::from_millis(40), now + PERIOD * minute);
        }
        assert_eq!(shortest.value(), Duration::from_millis(40));
    }
}
