//! One direction of a long way: two threads with a bounded queue between them.

use super::Distance;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No frame of our bridges is longer.
const FRAME_MAX: usize = 2048;
/// How often an idle thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long a packet may wait for the ones before it; then it is dropped, as by a router with a queue of that length.
const QUEUE: Duration = Duration::from_millis(100);
/// On their way at once, in packets, at most: many more than the queue and the delay hold.
const UNDER_WAY: usize = 1 << 16;

struct Packet {
    bytes: Vec<u8>,
    arrives: Instant,
}

/// When packets leave and arrive. Pure.
struct Way {
    distance: Distance,
    free: Instant,
    random: u64,
}

impl Way {
    fn new(distance: Distance, now: Instant) -> Self {
        // Any seed will do but 0.
        Self { distance, free: now, random: distance.seed | 1 }
    }

    /// When a packet of so many bytes arrives; `None` if it is lost or the queue is full.
    fn send(&mut self, bytes: usize, now: Instant) -> Option<Instant> {
        if self.next_random() % 1000 < u64::from(self.distance.lost_of_1000) {
            return None;
        }
        let begins = self.free.max(now);
        if begins - now > QUEUE {
            return None;
        }
        let seconds = bytes as f64 * 8.0 / (f64::from(self.distance.mbit) * 1e6);
        self.free = begins + Duration::from_secs_f64(seconds);
        Some(self.free + self.distance.one_way)
    }

    /// Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

/// Carries frames until `stop`.
pub fn start(
    distance: Distance,
    from: Arc<File>,
    to: Arc<File>,
    stop: &Arc<AtomicBool>,
) -> [JoinHandle<()>; 2] {
    let (under_way, arriving) = sync_channel(UNDER_WAY);
    let [stop_taking, stop_giving] = [stop.clone(), stop.clone()];
    [
        thread::spawn(move || take(distance, &from, &under_way, &stop_taking)),
        thread::spawn(move || give(&to, &arriving, &stop_giving)),
    ]
}

fn take(distance: Distance, mut from: &File, under_way: &SyncSender<Packet>, stop: &AtomicBool) {
    let (mut way, mut frame) = (Way::new(distance, Instant::now()), [0; FRAME_MAX]);
    let look = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let ready = poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], look);
        if !matches!(ready, Ok(1..)) {
            continue;
        }
        let Ok(length) = from.read(&mut frame) else { return };
        if let Some(arrives) = way.send(length, Instant::now()) {
            let _ = under_way.try_send(Packet { bytes: frame[..length].to_vec(), arrives });
        }
    }
}

fn give(mut to: &File, arriving: &Receiver<Packet>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match arriving.recv_timeout(LOOK) {
            Ok(Packet { bytes, arrives }) => {
                thread::sleep(arrives.saturating_duration_since(Instant::now()));
                // The interface may be going down: a packet more that is lost.
                let _ = to.write(&bytes);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISTANCE: Distance =
        Distance { one_way: Duration::from_millis(50), lost_of_1000: 5, mbit: 100, seed: 7 };

    #[test]
    fn packets_arrive_after_their_delay_and_no_faster_than_the_link() {
        let now = Instant::now();
        let mut way = Way::new(Distance { lost_of_1000: 0, ..DISTANCE }, now);
        let arrivals: Vec<_> = (0..2000).filter_map(|_| way.send(1250, now)).collect();
        // 0.1 ms each at 100 Mbit/s: so many leave within the queue's time, and the one that leaves then.
        assert_eq!(arrivals.len(), 1001);
        assert_eq!(arrivals[0] - now, Duration::from_micros(50_100));
        assert!((arrivals[1000] - now).abs_diff(Duration::from_micros(150_100)) < Duration::from_micros(10));
    }

    #[test]
    fn so_many_are_lost_and_the_same_with_the_same_seed() {
        let lost = |seed| {
            let (mut now, mut way) =
                (Instant::now(), Way::new(Distance { seed, ..DISTANCE }, Instant::now()));
            let all = (0..100_000).map(|_| {
                now += Duration::from_millis(1);
                way.send(1250, now).is_none()
            });
            all.collect::<Vec<_>>()
        };
        let count = lost(7).iter().filter(|lost| **lost).count();
        assert!((400..=600).contains(&count), "{count} of 100,000");
        assert!(lost(7) == lost(7) && lost(7) != lost(9));
    }
}
