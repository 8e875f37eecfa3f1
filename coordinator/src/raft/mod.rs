//! The replicated ledger: openraft over `novacron_store` and `novacron_transport`. openraft's types stop here.
//!
//! * `store/`: log, vote, state and snapshots on disk;
//! * `network`, `rpc`, `forward`: what coordinators say to each other;
//! * `proposer`, `commit`: group commit, and the way to the leader;
//! * `leadership`, `membership`: who leads, and who belongs;
//! * [`Ledger`] is what everybody else holds.

mod commit;
mod error;
mod forward;
mod leadership;
mod ledger;
mod membership;
mod network;
mod proposer;
mod rpc;
mod runtime;
mod settings;
mod status;
mod store;
mod types;

pub use error::{LedgerError, OpenError};
pub use leadership::Leadership;
pub use ledger::{Ledger, LedgerOptions};
pub use status::{LedgerStatus, MemberStatus};
pub use store::StoreFault;
pub use types::{Committed, Member, NodeId};

#[cfg(test)]
mod tests;
