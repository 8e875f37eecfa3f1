//! What can go wrong with a proposal or a read.

use super::{peers::Silent, store::StoreFault};
use novacron_common::{
    api::{Problem, ProblemCode},
    spec::Fault,
};

/// The ledger could not do it. Nothing here says that the command itself was refused: that is
/// [`novacron_core::Applied::Refused`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Nobody leads, or no quorum answers; nothing was changed.
    #[error("no coordinator leads now: a majority of the coordinators must reach each other{}", named(.0))]
    NoLeader(Vec<Silent>),
    /// Too much is waiting already; nothing was changed.
    #[error("too many commands are waiting to be committed")]
    Busy,
    /// The command is longer than an entry may be; nothing was changed.
    #[error("the command has {length} bytes, at most {max} can be replicated")]
    TooLarge {
        /// Its length.
        length: usize,
        /// Allowed.
        max: usize,
    },
    /// It was proposed, and then the leader or the quorum was lost.
    #[error(
        "the leader was lost while the command was committed: it may have happened, look before trying again"
    )]
    Unknown,
    /// The process is stopping, or its store has failed.
    #[error("this coordinator is stopping")]
    Stopped,
}

/// Who does not answer.
fn named(silent: &[Silent]) -> String {
    silent.iter().map(|silent| format!("; {silent}")).collect()
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::TooLarge { .. } => Self::new(ProblemCode::TooLarge, error.to_string()),
            LedgerError::Unknown => Self::new(ProblemCode::Unavailable, error.to_string())
                .fix("read the object, and repeat the request if it did not change"),
            LedgerError::NoLeader(ref silent) => {
                let details =
                    silent.iter().map(|s| Fault::new(format!("coordinator {}", s.node), s.to_string()));
                Self::new(ProblemCode::Unavailable, error.to_string()).details(details.collect()).fix(
                    "bring back whoever does not answer; a GET with ?stale=true shows what this one knows",
                )
            }
            LedgerError::Busy | LedgerError::Stopped => {
                Self::new(ProblemCode::Unavailable, error.to_string()).fix("try again in a moment")
            }
        }
    }
}

/// The ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its files.
    #[error("could not read the ledger")]
    Store(#[from] StoreFault),
    /// openraft's settings contradict each other: a mistake in this program.
    #[error("Raft's settings are refused")]
    Settings(#[from] openraft::ConfigError),
    /// openraft did not start.
    #[error("Raft did not start")]
    Raft(#[from] openraft::error::Fatal<u64>),
    /// The node has a log already.
    #[error("this coordinator is a member of a cluster already")]
    AlreadyFounded(#[source] Box<dyn std::error::Error + Send + Sync>),
}
