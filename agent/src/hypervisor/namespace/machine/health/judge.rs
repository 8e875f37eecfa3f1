//! What the answers of a machine mean for its health. Pure.

use crate::hypervisor::Health;
use novacron_common::{record::HealthState, spec::HealthCheck};
use std::time::Duration;

/// How often a machine is asked in its start period at least, so that it is known to be well soon (Docker's start interval).
const START_INTERVAL: Duration = Duration::from_secs(5);

/// Judges one run of a machine.
#[derive(Debug)]
pub struct Judge {
    check: HealthCheck,
    state: HealthState,
    /// In a row, since the last success.
    failures: u32,
}

impl Judge {
    /// Of a machine that was just started, or found.
    pub fn new(check: HealthCheck) -> Self {
        Self { check, state: HealthState::Starting, failures: 0 }
    }

    /// How long it is left alone, at this age of its run.
    pub fn pause(&self, age: Duration) -> Duration {
        if self.is_excused(age) { self.check.interval.min(START_INTERVAL) } else { self.check.interval }
    }

    /// Takes an answer, or why there is none; the machine's health, where it is another from now on.
    pub fn heed(&mut self, age: Duration, answer: Result<(), String>) -> Option<Health> {
        let before = self.state;
        let word = match answer {
            Ok(()) => {
                (self.state, self.failures) = (HealthState::Healthy, 0);
                None
            }
            Err(_) if self.is_excused(age) => None,
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                self.fail(&reason)
            }
        };
        (self.state != before).then_some(Health { state: self.state, word })
    }

    fn fail(&mut self, reason: &str) -> Option<String> {
        if self.failures < self.check.retries {
            return None;
        }
        self.state = HealthState::Unhealthy;
        Some(format!("unhealthy: its check failed {} times in a row, at last: {reason}", self.failures))
    }

    /// Whether a failure does not count yet: nobody has seen it well, and it is still starting.
    fn is_excused(&self, age: Duration) -> bool {
        self.state == HealthState::Starting && self.failures == 0 && age < self.check.start_period
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthState::{Healthy, Starting, Unhealthy};

    const INTERVAL: Duration = Duration::from_secs(30);

    fn judge(retries: u32, start_period: u64) -> Judge {
        Judge::new(HealthCheck {
            argv: vec!["true".into()],
            interval: INTERVAL,
            timeout: INTERVAL,
            retries,
            start_period: Duration::from_secs(start_period),
        })
    }

    #[test]
    fn a_row_of_failures_is_unhealthy_and_one_success_is_healthy() {
        /// Age in seconds, whether the answer was good, and the state after it.
        type Answer = (u64, bool, HealthState);
        let stories: [(u32, u64, &[Answer]); 6] = [
            (1, 0, &[(30, false, Unhealthy), (60, true, Healthy), (90, false, Unhealthy)]),
            (3, 0, &[(30, false, Starting), (60, false, Starting), (90, false, Unhealthy)]),
            // A success between them begins the row anew.
            (
                2,
                0,
                &[(30, false, Starting), (60, true, Healthy), (90, false, Healthy), (120, false, Unhealthy)],
            ),
            // In the start period failures do not count.
            (
                2,
                20,
                &[(5, false, Starting), (10, false, Starting), (25, false, Starting), (55, false, Unhealthy)],
            ),
            // But a success ends it.
            (1, 60, &[(5, false, Starting), (10, true, Healthy), (40, false, Unhealthy)]),
            (2, 0, &[(30, true, Healthy), (60, true, Healthy)]),
        ];
        for (retries, start_period, story) in stories {
            let mut judge = judge(retries, start_period);
            let mut state = Starting;
            for (age, is_good, after) in story {
                let answer = if *is_good { Ok(()) } else { Err("no".to_owned()) };
                let news = judge.heed(Duration::from_secs(*age), answer);
                assert_eq!(
                    news.as_ref().map(|news| news.state),
                    (state != *after).then_some(*after),
                    "{story:?}"
                );
                state = *after;
            }
        }
    }

    #[test]
    fn what_is_unhealthy_says_how_it_failed_last() {
        let mut judge = judge(2, 0);
        assert_eq!(judge.heed(INTERVAL, Err("first".into())), None);
        let word = judge.heed(INTERVAL * 2, Err("exit code 1: refused".into())).unwrap().word.unwrap();
        assert!(word.contains("2 times") && word.ends_with("exit code 1: refused"), "{word}");
        assert_eq!(judge.heed(INTERVAL * 3, Err("again".into())), None, "it is known");
        assert_eq!(judge.heed(INTERVAL * 4, Ok(())).unwrap(), Health { state: Healthy, word: None });
    }

    #[test]
    fn a_machine_is_asked_more_often_until_it_has_started() {
        let at = Duration::from_secs;
        let mut judge = judge(3, 60);
        assert_eq!(
            (judge.pause(at(0)), judge.pause(at(59)), judge.pause(at(60))),
            (START_INTERVAL, START_INTERVAL, INTERVAL)
        );
        judge.heed(at(5), Ok(()));
        assert_eq!(judge.pause(at(6)), INTERVAL);
        let quick = Judge::new(HealthCheck { interval: at(1), ..self::judge(3, 60).check });
        assert_eq!(quick.pause(at(0)), at(1));
    }
}
