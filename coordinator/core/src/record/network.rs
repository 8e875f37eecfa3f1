//! A tenant network as the ledger keeps it.

use novacron_common::{ids::NetworkId, spec::TenantNetwork, units::UnixMillis};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// One tenant network. Which machine has which of its addresses is in the machines' own records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Its id.
    pub id: NetworkId,
    /// What it is.
    pub spec: TenantNetwork,
    /// The address that was given last (at first the gateway's). The search for the next begins behind it: an address that was
    /// given back rests for a whole round, so that nobody speaks to a new machine who means the old one.
    pub last: Ipv4Addr,
    /// When it was made.
    pub created_at: UnixMillis,
}
