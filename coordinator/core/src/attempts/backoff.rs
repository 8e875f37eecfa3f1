//! How long a fire waits for its next try. The jitter is a hash of what is tried, not a die: every replica and every
//! leader computes the same.

use crate::hash;
use novacron_common::{
    ids::{AttemptKey, FireKey},
    record::AttemptOutcome,
    spec::{Backoff, RetryOn, RetryPolicy},
};
use std::time::Duration;

/// Salt, so that this hash has nothing to do with others of the same key.
const SALT: u64 = 0x6261_636b_6f66_6601;
const JITTER_SALT: u64 = 0x6a69_7474_6572_6601;

/// How much later than its instant a fire starts: the same for one instant, whoever asks.
pub fn jitter(fire: FireKey, most_ms: u64) -> Duration {
    Duration::from_millis(hash::of_fire(JITTER_SALT, fire) % most_ms.saturating_add(1))
}

/// How long the next attempt at `fire` waits after `failed` attempts.
pub fn backoff(policy: &Backoff, fire: FireKey, failed: u32) -> Duration {
    let plain = plain_ms(policy, failed);
    let spread = plain.saturating_mul(u64::from(policy.jitter_percent)) / 100;
    let key = AttemptKey { fire, number: failed };
    let dice = if spread == 0 { 0 } else { hash::of_attempt(SALT, key) % (spread.saturating_mul(2) + 1) };
    Duration::from_millis((plain - spread.min(plain)).saturating_add(dice).min(policy.max_ms))
}

fn plain_ms(policy: &Backoff, failed: u32) -> u64 {
    let mut wait = policy.initial_ms.min(policy.max_ms);
    // The cap ends the loop: with a factor of 100 % each round is the same.
    for _ in 1..failed.min(200) {
        wait = wait.saturating_mul(u64::from(policy.factor_percent)) / 100;
        if wait >= policy.max_ms {
            return policy.max_ms;
        }
    }
    wait
}

/// How long a fire waits that `declined` hosts could not take. Not its job's back-off: nothing of it has failed.
pub fn declined_wait(fire: FireKey, declined: u32) -> Duration {
    let pause = Backoff { initial_ms: 1000, max_ms: 15_000, ..Backoff::default() };
    backoff(&pause, fire, declined)
}

/// Whether an attempt that ended so, the `tries`th that counts, is followed by another.
pub fn is_retried(policy: &RetryPolicy, tries: u32, outcome: &AttemptOutcome) -> bool {
    match outcome {
        AttemptOutcome::Declined { .. } => true,
        _ => tries <= policy.max_retries && is_worth_it(&policy.retry_on, outcome),
    }
}

fn is_worth_it(on: &RetryOn, outcome: &AttemptOutcome) -> bool {
    match outcome {
        AttemptOutcome::Exited(code) => on.exit_codes.hold(*code),
        AttemptOutcome::Failed { .. } => on.exit_codes == novacron_common::spec::ExitCodes::Any,
        AttemptOutcome::Signaled(_) | AttemptOutcome::OutOfMemory => on.signal,
        AttemptOutcome::TimedOut => on.timeout,
        AttemptOutcome::Lost | AttemptOutcome::LeaseLost => on.lost_host,
        AttemptOutcome::FailedToStart { .. } => on.failed_start,
        AttemptOutcome::Done | AttemptOutcome::Killed | AttemptOutcome::Declined { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, JobId},
        spec::ExitCodes,
        units::UnixMillis,
    };

    fn fire(at: i64) -> FireKey {
        FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(at), cause: FireCause::Schedule }
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let policy = Backoff { jitter_percent: 0, ..Backoff::default() };
        let seconds: Vec<_> =
            [1, 2, 3, 8, 9, 10, 1000].map(|n| backoff(&policy, fire(0), n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 128, 256, 300, 300]);
        let steady = Backoff { factor_percent: 100, ..policy };
        assert_eq!(backoff(&steady, fire(0), u32::MAX).as_secs(), 1);
    }

    #[test]
    fn jitter_spreads_within_its_bounds_and_is_the_same_each_time() {
        let policy = Backoff { initial_ms: 10_000, jitter_percent: 20, ..Backoff::default() };
        let waits: Vec<u128> = (0..500).map(|at| backoff(&policy, fire(at), 1).as_millis()).collect();
        assert!(waits.iter().all(|ms| (8_000..=12_000).contains(ms)), "{waits:?}");
        let (low, high) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(high - low > 3_000, "{low} to {high}");
        assert_eq!(waits, (0..500).map(|at| backoff(&policy, fire(at), 1).as_millis()).collect::<Vec<_>>());
    }

    #[test]
    fn fires_are_spread_over_their_jitter_and_one_instant_gets_one_delay() {
        assert_eq!(jitter(fire(1), 0), Duration::ZERO);
        let delays: Vec<_> = (0..1000).map(|at| jitter(fire(at), 60_000).as_millis()).collect();
        assert!(delays.iter().all(|ms| *ms <= 60_000));
        let early = delays.iter().filter(|ms| **ms < 30_000).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
        assert_eq!(jitter(fire(7), 60_000), jitter(fire(7), 60_000));
    }

    #[test]
    fn every_end_is_retried_or_not_as_the_policy_says() {
        let all = RetryPolicy { max_retries: 2, ..RetryPolicy::default() };
        let nothing = RetryOn {
            exit_codes: ExitCodes::List(vec![75]),
            signal: false,
            timeout: false,
            lost_host: false,
            failed_start: false,
        };
        let picky = RetryPolicy { retry_on: nothing, ..all.clone() };
        let reason = || "x".to_owned();
        let table = [
            (AttemptOutcome::Exited(0), false, false),
            (AttemptOutcome::Exited(1), true, false),
            (AttemptOutcome::Exited(75), true, true),
            (AttemptOutcome::Signaled(9), true, false),
            (AttemptOutcome::OutOfMemory, true, false),
            (AttemptOutcome::TimedOut, true, false),
            (AttemptOutcome::Lost, true, false),
            (AttemptOutcome::LeaseLost, true, false),
            (AttemptOutcome::FailedToStart { reason: reason() }, true, false),
            (AttemptOutcome::Failed { reason: reason() }, true, false),
            (AttemptOutcome::Killed, false, false),
            (AttemptOutcome::Done, false, false),
        ];
        for (outcome, by_default, by_list) in table {
            assert_eq!(is_retried(&all, 1, &outcome), by_default, "{outcome:?}");
            assert_eq!(is_retried(&picky, 2, &outcome), by_list, "{outcome:?}");
            assert!(!is_retried(&all, 3, &outcome), "{outcome:?} after the last try");
        }
        let full = AttemptOutcome::Declined { reason: reason() };
        assert!(is_retried(&picky, 0, &full) && is_retried(&RetryPolicy::default(), 99, &full));
    }
}
