//! A hash that is the same on every replica and in every release: where `core` needs something that looks like
//! chance (jitter), it comes from here.

use novacron_common::{
    ids::{AttemptKey, FireCause, FireKey},
    splitmix::mix,
};

/// Of a fire.
pub fn of_fire(salt: u64, fire: FireKey) -> u64 {
    let job = fire.job.uuid().as_u64_pair();
    let cause = match fire.cause {
        FireCause::Schedule => 0,
        FireCause::Manual => 1,
        FireCause::Node => 2,
    };
    [job.0, job.1, fire.scheduled_at.0.cast_unsigned(), cause]
        .iter()
        .fold(mix(salt), |hash, word| mix(hash ^ word))
}

/// Of one try at a fire.
pub fn of_attempt(salt: u64, attempt: AttemptKey) -> u64 {
    mix(of_fire(salt, attempt.fire) ^ u64::from(attempt.number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{ids::JobId, units::UnixMillis};

    #[test]
    fn the_hash_is_the_same_for_ever() {
        let fire =
            FireKey { job: JobId::from_u128(1), scheduled_at: UnixMillis(2), cause: FireCause::Schedule };
        // SplitMix64 seeded with 0 begins with this number.
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_ne!(of_fire(1, fire), of_fire(2, fire));
        assert_ne!(
            of_attempt(1, AttemptKey { fire, number: 1 }),
            of_attempt(1, AttemptKey { fire, number: 2 })
        );
    }
}
