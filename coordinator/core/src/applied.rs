//! What comes of a command: the answer that the proposer gets, the same on every replica.

use novacron_common::{
    api::{Problem, ProblemCode, TokenRole},
    ids::{
        AttemptKey, FireKey, HostId, JobId, MigrationId, NetworkId, RunId, TemplateId, TokenId, VmId,
        WorkflowId,
    },
    spec::Fault,
    units::Epoch,
    wire::JoinDenied,
};
use serde::{Deserialize, Serialize};

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// For programs.
    pub code: ProblemCode,
    /// What happened this time.
    pub cause: String,
    /// What to do about it.
    pub fix: Option<String>,
    /// Faults by field, or hosts and what each is short of.
    pub details: Vec<Fault>,
}

impl Refusal {
    /// A refusal with its cause.
    pub fn new(code: ProblemCode, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), fix: None, details: Vec::new() }
    }

    /// Nothing has that id.
    pub fn not_found(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(ProblemCode::NotFound, format!("there is no {what} {id}"))
    }

    /// It contradicts the present state.
    pub fn conflict(cause: impl Into<String>) -> Self {
        Self::new(ProblemCode::Conflict, cause)
    }

    /// An idempotency key was used for another request.
    pub fn key_reused() -> Self {
        Self::new(
            ProblemCode::IdempotencyKeyReused,
            "this Idempotency-Key was sent with another method, path or body before",
        )
        .fix("send a new key with a new request; repeat a request with everything as it was")
    }

    /// The name is taken.
    pub fn name_taken(what: &str, name: impl std::fmt::Display) -> Self {
        Self::new(ProblemCode::NameTaken, format!("another {what} is named {name}"))
            .fix("choose another name")
    }

    /// With what to do about it.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// With a line for each field or host.
    #[must_use]
    pub fn details(mut self, details: Vec<Fault>) -> Self {
        self.details = details;
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let problem = Self::new(refusal.code, refusal.cause).details(refusal.details);
        match refusal.fix {
            Some(fix) => problem.fix(fix),
            None => problem,
        }
    }
}

/// What comes of a command. Crosses the wire from leader to follower: variants are append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It is so.
    Done,
    /// It was so before; nothing changed.
    AlreadySo,
    /// Nothing changed, and why.
    Refused(Refusal),
    /// A join token was good: the new member's id or number.
    Enrolled {
        /// The host's id, for agents.
        host: Option<HostId>,
        /// The Raft node number, for coordinators.
        node: Option<u64>,
    },
    /// A join token was not good.
    JoinDenied(JoinDenied),
    /// A token is stored.
    TokenStored(TokenId),
    /// A template is stored.
    TemplateStored(TemplateId),
    /// A machine is in the ledger, and where.
    VmCreated {
        /// Which.
        vm: VmId,
        /// Where.
        host: HostId,
    },
    /// A job is stored.
    JobStored(JobId),
    /// A fire is committed.
    FireCommitted(FireKey),
    /// An attempt may start.
    AttemptStarted {
        /// Which.
        attempt: AttemptKey,
        /// The right to run it.
        epoch: Epoch,
    },
    /// A migration is in the ledger.
    MigrationAsked(MigrationId),
    /// The hand-over is committed.
    HandedOver {
        /// The epoch that the target runs under.
        epoch: Epoch,
    },
    /// Ticks were dealt with: the fires that came of them.
    TicksCommitted(Vec<FireKey>),
    /// Of each command of a batch, in order.
    Batch(Vec<Applied>),
    /// A keyed command was applied before: what came of it then.
    Repeated(Box<Applied>),
    /// A ticket was good: the rights that it gives.
    TicketSpent(TokenRole),
    /// A workflow is stored.
    WorkflowStored(WorkflowId),
    /// A run has begun, or waits for another.
    RunStarted(RunId),
    /// A tenant network is stored.
    NetworkStored(NetworkId),
}

impl Applied {
    /// The refusal, if it is one.
    ///
    /// # Errors
    /// [`Refusal`] if nothing changed.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            other => Ok(other),
        }
    }
}

impl Applied {
    /// What came of the command when it was applied for the first time.
    #[must_use]
    pub fn first(self) -> Self {
        match self {
            Self::Repeated(first) => *first,
            other => other,
        }
    }
}

impl From<Result<Self, Refusal>> for Applied {
    fn from(result: Result<Self, Refusal>) -> Self {
        result.unwrap_or_else(Self::Refused)
    }
}
