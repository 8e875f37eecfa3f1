//! What can be asked of the ledger. A command carries everything that `apply` needs: the time, new ids, random
//! bits and whatever was computed from time zone data, so that every replica computes the same.
//!
//! Commands are stored in the Raft log: variants and fields are append-only.

mod cluster;
mod host;
mod job;
mod migration;
mod network;
mod request;
mod vm;
mod workflow;

pub use cluster::{ClusterInit, JoinTokenPut, JoinTokenUse, TemplatePut, TokenPut};
pub use host::{HostCordon, HostDown, HostRemove, HostSeen};
pub use job::{
    AttemptPlace, AttemptSettled, FireCommit, JobExecute, JobPut, JobUpdate, NextTick, VerbBegin, VerbStep,
};
pub use migration::{Handover, MigrationAsk, MigrationDenied, MigrationObserve};
pub use network::NetworkCreate;
pub use request::{ClockAlarm, Keyed, RequestAnswered, TicketPut};
pub use vm::{VmCreate, VmDesire, VmObserve, VmPlace, VmRestart, VmUpdate};

pub use workflow::{NodeDecide, RunAdvance, RunRetry, RunStart, RunTick, Shape, WorkflowPut, WorkflowUpdate};

use crate::record::CoordinatorRecord;
use novacron_common::{
    ids::{FireKey, HostId, JobId, MigrationId, NetworkId, RunId, TemplateId, TokenId, VmId, WorkflowId},
    record::{AttemptReport, HostHello},
    spec::Sha256Digest,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's clock. The ledger's time is the latest of all stamps.
    pub at: UnixMillis,
    /// What is asked.
    pub body: CommandBody,
}

/// Each kind of command; what it does is told beside its apply function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandBody {
    /// The first command of a cluster.
    ClusterInit(ClusterInit),
    /// A coordinator's addresses.
    CoordinatorPut(CoordinatorRecord),
    /// A coordinator left.
    CoordinatorRemove {
        /// Its Raft node number.
        node: u64,
    },
    /// A one-time token for a new member.
    JoinTokenPut(JoinTokenPut),
    /// A new member shows its token. Answer: `Enrolled` or `JoinDenied`.
    JoinTokenUse(JoinTokenUse),
    /// An API token.
    TokenPut(TokenPut),
    /// An API token is worth nothing from now on.
    TokenRemove {
        /// Which.
        id: TokenId,
    },
    /// An agent opened a session.
    HostHello(Box<HostHello>),
    /// What an agent reports changed (rare: see [`crate::hosts::news`]).
    HostSeen(HostSeen),
    /// An agent was not heard from for too long.
    HostDown(HostDown),
    /// Keep new machines off a host, or not.
    HostCordon(HostCordon),
    /// A host leaves; it is cut off at once.
    HostRemove(HostRemove),
    /// An image definition, new or changed.
    TemplatePut(Box<TemplatePut>),
    /// An image definition is removed; machines made from it keep theirs.
    TemplateRemove {
        /// Which.
        id: TemplateId,
    },
    /// A new machine.
    VmCreate(Box<VmCreate>),
    /// A place for a machine that lost its host.
    VmPlace(Box<VmPlace>),
    /// What is wanted of a machine.
    VmDesire(VmDesire),
    /// Stop and run again, once.
    VmRestart(VmRestart),
    /// Another name or restart policy.
    VmUpdate(VmUpdate),
    /// What a host sees of its machines (only what changed: see [`crate::vms::news`]).
    VmObserve(VmObserve),
    /// A deleted machine is observed gone.
    VmForget {
        /// Which.
        vm: VmId,
    },
    /// A new job.
    JobPut(Box<JobPut>),
    /// A job's new definition.
    JobUpdate(Box<JobUpdate>),
    /// A job is removed, with its fires.
    JobRemove {
        /// Which.
        id: JobId,
    },
    /// Fire now.
    JobExecute(JobExecute),
    /// A tick is due (see [`crate::schedule::due`]).
    FireCommit(FireCommit),
    /// A fire's next attempt goes to this host. Answer: `AttemptStarted`.
    AttemptPlace(AttemptPlace),
    /// An attempt ended. The same report twice is harmless.
    AttemptEnd(Box<AttemptReport>),
    /// End a fire: at once if it waits, else by killing its attempt.
    FireCancel {
        /// Which.
        fire: FireKey,
    },
    /// Move a machine.
    MigrationAsk(Box<MigrationAsk>),
    /// What a side sees of a migration.
    MigrationObserve(Box<MigrationObserve>),
    /// An agent refused a step.
    MigrationDenied(MigrationDenied),
    /// The target may run the machine from now on, the source may not. Answer: `HandedOver`.
    Handover(Handover),
    /// Undo a migration; refused from the hand-over on.
    MigrationCancel {
        /// Which.
        id: MigrationId,
    },
    /// Several at once, each on its own: one that is refused does not stop the next. Batches do not nest.
    Batch(Vec<CommandBody>),
    /// A command of a request that carries an `Idempotency-Key`; committed with its key, or not at all. Answer of a
    /// repetition: `Repeated`, and nothing changes.
    Keyed(Box<Keyed>),
    /// What a keyed request was answered, to be given again.
    RequestAnswered(Box<RequestAnswered>),
    /// A ticket for a WebSocket.
    TicketPut(TicketPut),
    /// A ticket is shown; it works once. Answer: `TicketSpent`.
    TicketUse {
        /// SHA-256 of the ticket.
        digest: Sha256Digest,
    },
    /// A coordinator's clock is off, or right again.
    ClockAlarm(ClockAlarm),
    /// A new workflow.
    WorkflowPut(Box<WorkflowPut>),
    /// A workflow's new definition.
    WorkflowUpdate(Box<WorkflowUpdate>),
    /// A workflow is removed, with its runs.
    WorkflowRemove {
        /// Which.
        id: WorkflowId,
    },
    /// Run a workflow now. Answer: `RunStarted`.
    RunStart(Box<RunStart>),
    /// A workflow's tick is due (see [`crate::workflow::due_ticks`]).
    RunTick(RunTick),
    /// End a run: what waits ends at once, what is at work is killed, and within half a minute it has ended.
    RunCancel {
        /// Which.
        run: RunId,
    },
    /// Run a part of an ended run again. Answer: `RunStarted`.
    RunRetry(RunRetry),
    /// Somebody approved or rejected a node.
    NodeDecide(NodeDecide),
    /// Steps of a run that are due (see [`crate::workflow::due`]). The same again is harmless.
    RunAdvance(RunAdvance),
    /// Remove a part of a run's rows, once it is to be forgotten.
    RunForget {
        /// Which.
        run: RunId,
    },
    /// Something is done to a machine for a fire. Answer: `AttemptStarted`.
    VerbBegin(Box<VerbBegin>),
    /// A fire's deadline has passed.
    FireAlarm {
        /// Which.
        fire: FireKey,
    },
    /// A host that is out of sight is declared off: whoever does so vouches that nothing runs there any more.
    HostFence {
        /// Which.
        host: HostId,
    },
    /// An attempt that was declared over is observed gone.
    AttemptSettled(AttemptSettled),
    /// A guest that is stranded (post-copy) is wanted no more; refused of any other.
    MigrationGiveUp {
        /// Which.
        id: MigrationId,
    },
    /// A new tenant network. Answer: `NetworkStored`.
    NetworkCreate(Box<NetworkCreate>),
    /// A tenant network is removed; refused while a machine is on it.
    NetworkRemove {
        /// Which.
        id: NetworkId,
    },
}
