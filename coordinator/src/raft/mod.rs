//! The replicated ledger: openraft over `novacron_store` and `novacron_transport`. openraft's types stop here.
//!
//! * `store/`: log, vote, state and snapshots on disk;
//! * `network`, `rpc`, `forward`: what coordinators say to each other;
//! * `proposer`, `commit`: group commit, and the way to the leader;
//! * `reads`, `serving`: the read index, and how fresh a request's reads must be;
//! * `election`, `leadership`, `transfer`: who stands, who leads, who is to lead next;
//! * `membership`, `peers`, `clock`: who belongs, who answers, whose clock is right;
//! * [`Ledger`] is what everybody else holds.

mod alarm;
mod clock;
mod commit;
mod election;
mod error;
mod forward;
mod leadership;
mod ledger;
mod membership;
mod network;
mod peers;
mod proposer;
mod reads;
mod restored;
mod rpc;
mod runtime;
mod serving;
mod settings;
mod status;
mod store;
mod transfer;
mod types;

pub use clock::{CLOCK_OFF_MAX, ClockVerdict};
pub use error::{LedgerError, OpenError};
pub use leadership::Leadership;
pub use ledger::{Ledger, LedgerOptions};
pub use peers::Silent;
pub use restored::{begin_with, look_into};
pub use serving::{Key, Reads, Serving};
pub use status::{LedgerStatus, MemberStatus};
pub use store::StoreFault;
pub use transfer::{TRANSFER_MAX, TransferError, Transferred};
pub use types::{Committed, Member, NodeId};

#[cfg(test)]
mod tests;
