//! The ledger's rows as the HTTP API shows them. HTTP answers and events are made here and nowhere else, so that they
//! cannot differ.

mod changed;
mod cluster;
mod host;
mod job;
mod ledger;
mod migration;
mod network;
mod vm;
mod workflow;

pub use changed::{ChangedObject, Object, changed};
pub use cluster::{alarm, coordinators, directory, template, token};
pub use host::host;
pub(crate) use job::outcome_text;
pub use job::{Outputs, fire, job, job_with, overdue, status};
pub use ledger::{LEDGER_MAX, ledger};
pub use migration::migration;
pub use network::network;
pub use vm::vm;
pub use workflow::{NodeOutputs, Shapes, items, node_run, run, run_detail, workflow, workflow_spec};
