//! Commands about tenant networks.

use novacron_common::{
    ids::NetworkId,
    spec::{Name, Subnet},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// See [`super::CommandBody::NetworkCreate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkCreate {
    /// The new network's id. The same again is answered as the first time.
    pub id: NetworkId,
    /// Unique in the cluster.
    pub name: Name,
    /// Its addresses; without them `apply` takes a free range.
    pub subnet: Option<Subnet>,
    /// The resolvers of its machines.
    pub dns: Vec<IpAddr>,
}
