//! What an isolated command's end means. Pure.

use super::spawn::Word;
use nix::sys::wait::WaitStatus;
use novacron_common::record::AttemptOutcome;

/// Why the supervisor ended the tree, where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its time was up.
    TimedOut,
    /// It was asked to.
    Killed,
    /// Its lease ran out.
    LeaseLost,
}

/// Everything that is known when the tree is gone.
#[derive(Debug)]
pub struct Evidence {
    /// Whether we ended it.
    pub ending: Option<Ending>,
    /// The last that init said.
    pub word: Option<Word>,
    /// How init itself ended.
    pub init: Option<WaitStatus>,
    /// How many of its processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

impl Evidence {
    /// The outcome. A command that had ended by itself before we could end it keeps its own.
    pub fn outcome(&self) -> AttemptOutcome {
        match (&self.word, self.ending) {
            (Some(Word::Failed(reason)), _) => AttemptOutcome::FailedToStart { reason: reason.clone() },
            (Some(Word::Ended(status)), None | Some(Ending::TimedOut | Ending::LeaseLost)) => {
                self.of_status(*status)
            }
            (Some(Word::Ended(_)), Some(Ending::Killed)) | (_, Some(Ending::Killed)) => {
                AttemptOutcome::Killed
            }
            (_, Some(Ending::TimedOut)) => AttemptOutcome::TimedOut,
            (_, Some(Ending::LeaseLost)) => AttemptOutcome::LeaseLost,
            (_, None) if self.oom_kills > 0 => AttemptOutcome::OutOfMemory,
            (_, None) => self.of_init(),
        }
    }

    fn of_status(&self, status: i32) -> AttemptOutcome {
        match (libc::WIFEXITED(status), self.oom_kills) {
            (true, _) if libc::WEXITSTATUS(status) == 0 => AttemptOutcome::Exited(0),
            (_, 1..) => AttemptOutcome::OutOfMemory,
            (true, 0) => AttemptOutcome::Exited(libc::WEXITSTATUS(status)),
            (false, 0) => AttemptOutcome::Signaled(libc::WTERMSIG(status)),
        }
    }

    fn of_init(&self) -> AttemptOutcome {
        match self.init {
            Some(WaitStatus::Signaled(_, signal, _)) => AttemptOutcome::Signaled(signal as i32),
            Some(WaitStatus::Exited(_, 0)) => AttemptOutcome::Exited(0),
            other => {
                AttemptOutcome::FailedToStart { reason: format!("its init ended without a word: {other:?}") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{sys::signal::Signal, unistd::Pid};

    fn evidence(word: Option<Word>, ending: Option<Ending>, oom_kills: u64) -> Evidence {
        Evidence {
            ending,
            word,
            init: Some(WaitStatus::Signaled(Pid::from_raw(9), Signal::SIGKILL, false)),
            oom_kills,
        }
    }

    #[test]
    fn a_commands_own_end_is_reported_as_it_was() {
        assert_eq!(evidence(Some(Word::Ended(3 << 8)), None, 0).outcome(), AttemptOutcome::Exited(3));
        assert_eq!(evidence(Some(Word::Ended(11)), None, 0).outcome(), AttemptOutcome::Signaled(11));
        let late = evidence(Some(Word::Ended(0)), Some(Ending::TimedOut), 0);
        assert_eq!(late.outcome(), AttemptOutcome::Exited(0));
    }

    #[test]
    fn want_of_memory_shows_through_a_shell_but_not_through_success() {
        assert_eq!(evidence(Some(Word::Ended(137 << 8)), None, 1).outcome(), AttemptOutcome::OutOfMemory);
        assert_eq!(evidence(Some(Word::Ended(9)), None, 1).outcome(), AttemptOutcome::OutOfMemory);
        assert_eq!(evidence(None, None, 1).outcome(), AttemptOutcome::OutOfMemory);
        assert_eq!(evidence(Some(Word::Ended(0)), None, 1).outcome(), AttemptOutcome::Exited(0));
    }

    #[test]
    fn what_we_ended_says_so() {
        assert_eq!(
            evidence(Some(Word::Started), Some(Ending::TimedOut), 0).outcome(),
            AttemptOutcome::TimedOut
        );
        assert_eq!(evidence(Some(Word::Started), Some(Ending::Killed), 2).outcome(), AttemptOutcome::Killed);
        assert_eq!(
            evidence(Some(Word::Ended(15)), Some(Ending::Killed), 0).outcome(),
            AttemptOutcome::Killed
        );
        let failed = evidence(Some(Word::Failed("no such file".into())), Some(Ending::Killed), 0);
        assert!(matches!(failed.outcome(), AttemptOutcome::FailedToStart { .. }));
    }
}
