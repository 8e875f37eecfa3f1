//! Where a machine goes, and why: a decision is a record that names each host that was passed over and by how
//! much it was short.

mod explain;
mod plan;

pub use explain::{NoPlacement, Offer, Placement, Rejected, Shortfall};
pub use plan::{Constraints, check_host, plan};
