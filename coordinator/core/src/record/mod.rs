//! The rows of the ledger. Separate from the JSON types; each is stored as a version byte and bincode.
//!
//! Fields are append-only in meaning: a change of layout raises the row's [`crate::table::Row::VERSION`] and keeps
//! a decoder for the version before (the golden tests beside `table.rs` hold the bytes of each).

mod cluster;
mod history;
mod host;
mod job;
mod migration;
mod network;
mod request;
mod vm;
mod workflow;

pub use cluster::{
    ApiTokenRecord, ClockRecord, ClusterRecord, CoordinatorRecord, JoinTokenRecord, TemplateRecord,
};
pub use history::{HistoryRecord, TickFate, TickReason, TickRun, TickTotals, VerbWatch};
pub use host::HostRecord;
pub use job::{AttemptRecord, FireRecord, JobPulse, JobRecord, OverdueRecord, Skip};
pub use migration::{Claim, MigrationRecord};
pub use network::NetworkRecord;
pub use request::{AlarmRecord, Answer, RequestKey, RequestRecord, TicketRecord};
pub use vm::{Observed, VmRecord};
pub use workflow::{
    MapProgress, Next, NodeKey, NodeRecord, NodeRunRecord, RunInputRecord, RunRecord, RunSkip, TaskRecord,
    WorkflowRecord,
};
