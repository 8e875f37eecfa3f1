//! A try at a fire, as the host that runs it reports it.

use crate::{
    ids::AttemptKey,
    units::{Epoch, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptOutcome {
    /// The command ended by itself.
    Exited(i32),
    /// A signal ended it that nobody here sent.
    Signaled(i32),
    /// Its time was up, and its whole cgroup was killed.
    TimedOut,
    /// It ran into its memory limit.
    OutOfMemory,
    /// Somebody cancelled it.
    Killed,
    /// It never started.
    FailedToStart {
        /// Why.
        reason: String,
    },
    /// Its supervisor ended without leaving an outcome (the host crashed).
    Lost,
    /// What is no process is done: a call was answered as expected, or a machine is as the verb wants it.
    Done,
    /// What is no process failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// Its lease ran out and its job says that it is to be killed then: nothing of it is left.
    LeaseLost,
    /// Its host could not take it: it had no room, or what the attempt is for is on another host. It never started, and
    /// no try of its job is used up by that.
    Declined {
        /// What the host said.
        reason: String,
    },
}

impl AttemptOutcome {
    /// Whether the fire counts as done.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0) | Self::Done)
    }
}

/// Captured output: the first and the last part, so that memory stays bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The first bytes of standard output and standard error together.
    pub head: Vec<u8>,
    /// The last bytes, if there were more than `head` holds.
    pub tail: Vec<u8>,
    /// All bytes written.
    pub total: u64,
}

impl Output {
    /// Most bytes in each of `head` and `tail`.
    pub const PART_MAX: usize = 16 * 1024;

    /// The output as text, with a note where bytes were left out.
    pub fn to_text(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let tail = String::from_utf8_lossy(&self.tail);
        let kept = (self.head.len() + self.tail.len()) as u64;
        match self.total.saturating_sub(kept) {
            0 => format!("{head}{tail}"),
            left_out => format!("{head}\n[… {left_out} bytes left out …]\n{tail}"),
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEnd {
    /// How.
    pub outcome: AttemptOutcome,
    /// When it started, by the host's clock.
    pub started_at: Option<UnixMillis>,
    /// When it ended, by the host's clock.
    pub ended_at: UnixMillis,
    /// What it printed.
    pub output: Output,
    /// What it left in the file that `NOVACRON_OUTPUT` names, or the beginning of an HTTP answer's body; at most
    /// [`AttemptEnd::RESULT_MAX`] bytes of UTF-8.
    pub result: Option<String>,
}

impl AttemptEnd {
    /// Most bytes in `result`.
    pub const RESULT_MAX: usize = 16 * 1024;
}

/// What an agent says of an attempt. Kept in the agent's ledger until the coordinator has committed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    /// Which.
    pub attempt: AttemptKey,
    /// The epoch under which it was started.
    pub epoch: Epoch,
    /// Its end.
    pub end: AttemptEnd,
}
