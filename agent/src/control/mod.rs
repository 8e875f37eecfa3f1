//! The agent's conversation with the coordinators.
//!
//! * `session` finds the leader, introduces this host, reports, and takes the directory;
//! * `dispatch` answers the coordinator's commands;
//! * `reports` delivers what must not be lost;
//! * `logs` shows what attempts print while they run;
//! * `leases` renews the leases of attempts;
//! * `checkpoints` sees to it that nothing is kept of machines that are no more;
//! * `streams` hands every stream that arrives, from whomever, to its owner.

mod checkpoints;
mod console;
mod dispatch;
mod exec;
mod guests;
mod images;
mod leases;
mod logs;
mod reports;
mod session;
mod streams;

pub use checkpoints::keep_checkpoints;
pub use dispatch::Dispatch;
pub use guests::Guests;
pub use images::PeerFetch;
pub use leases::keep_leases;
pub use reports::Reports;
pub use session::{Introduction, Session, SessionParts};
pub use streams::{StreamOwners, serve_endpoint, serve_link};
