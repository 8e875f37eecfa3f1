//! Turns "so many a second" into "so many now", for loops that sleep between batches.

use std::time::Duration;

/// After a stall at most this much is caught up: a guest that was paused must not burst.
const CATCH_UP: Duration = Duration::from_millis(250);

/// A rate with the fraction that is still owed.
#[derive(Debug, Default)]
pub struct Pace {
    owed: f64,
}

impl Pace {
    /// How many are due after `elapsed` at `per_second`.
    pub fn due(&mut self, per_second: f64, elapsed: Duration) -> u64 {
        self.owed += per_second * elapsed.min(CATCH_UP).as_secs_f64();
        let whole = self.owed.floor().max(0.0);
        self.owed -= whole;
        whole as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_add_up() {
        let mut pace = Pace::default();
        let total: u64 = (0..100).map(|_| pace.due(10.0, Duration::from_millis(10))).sum();
        assert!((9..=10).contains(&total), "{total}");
    }

    #[test]
    fn a_long_stall_is_not_caught_up() {
        assert_eq!(Pace::default().due(1000.0, Duration::from_secs(60)), 250);
    }
}
