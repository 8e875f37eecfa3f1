//! What a tick costs. Nothing is asserted about time: the figures are printed (`--success-output immediate`), for a
//! build with the core at opt-level 2.

use crate::ticks::{instant, zone};
use novacron_common::{
    spec::{Dst, Schedule},
    units::UnixMillis,
};
use novacron_core::schedule::next_after;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "measures from outside; the core itself reads no clock")]
fn timed<T>(of: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let made = of();
    (made, start.elapsed())
}

#[test]
fn the_next_tick_of_usual_schedules() {
    const CALLS: u32 = 20_000;
    let lines = [
        "* * * * * *",
        "*/5 * * * *",
        "0 2 * * *",
        "0 9 * * MON-FRI",
        "0 0 LW * *",
        "15 10 * * FRI#3",
        "0 0 1 1 *",
        "0 0 29 2 *",
        "@every 90s",
    ];
    let after = instant("2026-11-21T00:00:00Z");
    for in_zone in ["UTC", "Europe/Berlin"] {
        let in_zone = zone(in_zone);
        let first: Schedule = "0 0 * * *".parse().unwrap();
        let (_, table) = timed(|| next_after(&first, in_zone, Dst::default(), after));
        println!("{in_zone}: first use {table:?}");
        for line in lines {
            let (schedule, parsed) = timed(|| line.parse::<Schedule>().unwrap());
            let (found, took) = timed(|| {
                let at = |n: u32| UnixMillis(after.0 + i64::from(n) * 3_600_000);
                (0..CALLS)
                    .filter(|n| next_after(&schedule, in_zone, Dst::default(), at(*n)).is_some())
                    .count()
            });
            assert_eq!(found, CALLS as usize);
            println!(
                "{line:18} {in_zone:14} {:>6} ns a tick, parsed in {parsed:?}",
                (took / CALLS).as_nanos()
            );
        }
    }
}

#[test]
fn what_never_fires_is_known_after_one_turn_of_the_calendar() {
    let lines = ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 2,4,6,9,11 ?", "0 0 L-29 2 *"];
    for line in lines {
        let (found, took) = timed(|| line.parse::<Schedule>().is_err());
        assert!(found, "{line}");
        println!("{line:22} refused in {took:?}");
    }
}
