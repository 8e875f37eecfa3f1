//! Counts fires against the wall clock: which instants were due is computed here, not taken from the scheduler.

use std::collections::BTreeMap;

use novacron_common::api::{FireState, FireView};
use novacron_common::ids::FireCause;

use super::evidence::Window;

/// The job's schedule and how many milliseconds lie between two of its instants.
pub const SCHEDULE: (&str, i64) = ("*/5 * * * * *", 5000);

/// Due, done and repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FireCount {
    /// Instants of the schedule within the window.
    pub due: u64,
    /// Of these, instants whose fire succeeded.
    pub done: u64,
    /// Runs beside the one that each instant of the schedule may have, at whatever time.
    pub repeated: u64,
}

/// Counts the fires of a job that is due whenever the Unix time is a multiple of `period_ms`.
#[must_use]
pub fn count(window: Window, period_ms: i64, fires: &[FireView]) -> FireCount {
    let mut runs: BTreeMap<i64, Runs> = BTreeMap::new();
    for fire in fires.iter().filter(|fire| fire.cause == FireCause::Schedule) {
        runs.entry(fire.scheduled_at.0).or_default().take(fire);
    }
    let first = window.from / period_ms + 1;
    let due = (first..=window.to / period_ms).map(|n| n * period_ms);
    let done = |at: &i64| runs.get(at).is_some_and(|runs| runs.succeeded > 0);
    let surplus = runs.iter().map(|(at, runs)| runs.all.saturating_sub(u64::from(at % period_ms == 0)));
    FireCount {
        due: due.clone().count() as u64,
        done: due.filter(done).count() as u64,
        repeated: surplus.sum(),
    }
}

/// What ran for one instant.
#[derive(Default)]
struct Runs {
    all: u64,
    succeeded: u64,
}

impl Runs {
    /// A fire without an attempt still counts once: two records for one instant are a fault, whatever ran.
    fn take(&mut self, fire: &FireView) {
        self.all += (fire.attempts.len() as u64).max(1);
        self.succeeded += u64::from(fire.state == FireState::Succeeded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::api::AttemptView;
    use novacron_common::ids::JobId;
    use novacron_common::units::UnixMillis;

    const WINDOW: Window = Window { from: 10_000, to: 25_000 };

    fn fire(at: i64, state: FireState, attempts: usize) -> FireView {
        let attempt = AttemptView {
            number: 1,
            host: None,
            outcome: String::new(),
            exit_code: None,
            output: None,
            started_at: None,
            ended_at: None,
        };
        FireView {
            id: String::new(),
            job: JobId::from(uuid::Uuid::nil()),
            scheduled_at: UnixMillis(at),
            committed_at: UnixMillis(at),
            cause: FireCause::Schedule,
            state,
            late_ms: 0,
            queued: false,
            overdue: false,
            not_before: None,
            unknown_since: None,
            ended_at: None,
            attempts: vec![attempt; attempts],
        }
    }

    fn good() -> Vec<FireView> {
        [10_000, 15_000, 20_000, 25_000, 30_000].map(|at| fire(at, FireState::Succeeded, 1)).to_vec()
    }

    #[test]
    fn the_window_is_open_at_its_beginning_and_closed_at_its_end() {
        assert_eq!(count(WINDOW, 5000, &good()), FireCount { due: 3, done: 3, repeated: 0 });
    }

    #[test]
    fn a_missing_and_a_failed_fire_are_not_done() {
        let mut fires = good();
        fires[1].state = FireState::Failed;
        fires.remove(2);
        assert_eq!(count(WINDOW, 5000, &fires), FireCount { due: 3, done: 1, repeated: 0 });
    }

    #[test]
    fn a_second_record_a_second_attempt_and_a_fire_off_schedule_are_repeats() {
        let mut fires = good();
        fires.push(fire(15_000, FireState::Waiting, 0));
        fires.push(fire(17_000, FireState::Succeeded, 1));
        fires[2] = fire(20_000, FireState::Succeeded, 2);
        assert_eq!(count(WINDOW, 5000, &fires), FireCount { due: 3, done: 3, repeated: 3 });
    }

    #[test]
    fn fires_that_somebody_asked_for_are_not_the_schedules() {
        let mut fires = good();
        fires[1].cause = FireCause::Manual;
        assert_eq!(count(WINDOW, 5000, &fires), FireCount { due: 3, done: 2, repeated: 0 });
    }
}
