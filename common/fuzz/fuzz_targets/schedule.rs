//! Schedules as typed by people: no text panics or takes long, a refusal stays short, and an accepted one reads back
//! as itself and has ticks that lie ahead.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::spec::{
    Schedule,
    schedule::{DAY, Ticks},
};

/// 2026-01-01.
const START: i64 = 20_454 * DAY;

fn check(text: &str) {
    let schedule = match text.parse::<Schedule>() {
        Ok(schedule) => schedule,
        Err(error) => {
            // The longest fault, and what it repeats of the text.
            assert!(error.to_string().chars().count() < 400, "{error}");
            return;
        }
    };
    let again = schedule.as_str().parse::<Schedule>().expect("reads back");
    assert_eq!(again.ticks(), schedule.ticks());
    match schedule.ticks() {
        Ticks::Every(every) => assert!((1..=365 * 24 * 3600).contains(&every.seconds())),
        Ticks::Cron(cron) => {
            let first = cron.first_match(START).expect("what never fires is refused");
            assert!(first >= START);
            assert_eq!(cron.first_match(first), Some(first), "a match is found from its own instant");
            assert!(cron.first_match(first + 1).is_none_or(|next| next > first));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check(text);
    check(&format!("@every {text}"));
    check(&format!("0 0 {text}"));
});
