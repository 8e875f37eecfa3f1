//! Whether an attempt may start here. Pure.

use novacron_common::{
    ids::AttemptKey,
    planted::{self, Mistake},
    units::Epoch,
};

/// The last that this host has seen of a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The highest epoch.
    pub epoch: Epoch,
    /// The number of the attempt that came with it.
    pub number: u32,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Start,
    /// It was started before, and perhaps has ended.
    AlreadySo,
    /// A newer epoch is known.
    Stale {
        /// That epoch.
        seen: Epoch,
    },
    /// An earlier attempt of the fire still runs here: two of them must never be alive at once.
    StillRuns {
        /// Its number.
        number: u32,
    },
}

/// Decides on `ask` under `epoch`, given what was seen of the same fire and which of its attempts runs here.
pub fn judge(ask: AttemptKey, epoch: Epoch, seen: Option<Fence>, running: Option<u32>) -> Verdict {
    match (seen, running) {
        (Some(seen), _) if epoch < seen.epoch => Verdict::Stale { seen: seen.epoch },
        (Some(seen), None) if epoch == seen.epoch && planted::is(Mistake::EchoStartedAgain) => Verdict::Start,
        (Some(seen), _) if epoch == seen.epoch && ask.number == seen.number => Verdict::AlreadySo,
        // One epoch is the right to one attempt.
        (Some(seen), _) if epoch == seen.epoch => Verdict::Stale { seen: seen.epoch },
        (_, Some(number)) => Verdict::StillRuns { number },
        _ => Verdict::Start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{FireCause, FireKey, JobId},
        units::UnixMillis,
    };

    fn attempt(number: u32) -> AttemptKey {
        let fire = FireKey {
            job: JobId::from_u128(1),
            scheduled_at: UnixMillis(60_000),
            cause: FireCause::Schedule,
        };
        AttemptKey { fire, number }
    }

    fn fence(epoch: u64, number: u32) -> Option<Fence> {
        Some(Fence { epoch: Epoch(epoch), number })
    }

    #[test]
    fn the_first_attempt_starts_and_its_echo_does_nothing() {
        assert_eq!(judge(attempt(1), Epoch(4), None, None), Verdict::Start);
        assert_eq!(judge(attempt(1), Epoch(4), fence(4, 1), Some(1)), Verdict::AlreadySo);
        assert_eq!(judge(attempt(1), Epoch(4), fence(4, 1), None), Verdict::AlreadySo);
    }

    #[test]
    fn a_lower_epoch_never_starts_and_one_epoch_starts_once() {
        assert_eq!(judge(attempt(1), Epoch(3), fence(4, 2), None), Verdict::Stale { seen: Epoch(4) });
        assert_eq!(judge(attempt(2), Epoch(4), fence(4, 1), None), Verdict::Stale { seen: Epoch(4) });
    }

    #[test]
    fn a_higher_epoch_waits_for_the_old_attempt_to_end() {
        assert_eq!(judge(attempt(2), Epoch(5), fence(4, 1), Some(1)), Verdict::StillRuns { number: 1 });
        assert_eq!(judge(attempt(2), Epoch(5), fence(4, 1), None), Verdict::Start);
    }
}
