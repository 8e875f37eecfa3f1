//! Tenant networks over HTTP.

use crate::{
    ids::NetworkId,
    spec::{Faults, Name, Subnet, TenantNetwork},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// `POST /api/v1/networks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Unique in the cluster.
    pub name: String,
    /// Its addresses, a private range such as `10.1.2.0/24`; the first is the gateway's. Without it the next free range of 254
    /// addresses in `10.213.0.0/16` is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The resolvers of its machines.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
}

impl NetworkCreate {
    /// The name, the subnet if one is wanted, and the resolvers.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong.
    pub fn check(&self) -> Result<(Name, Option<Subnet>, Vec<IpAddr>), Faults> {
        let mut faults = Faults::default();
        let name = faults.take("name", self.name.parse());
        let subnet = self.subnet.as_ref().and_then(|text| faults.take("subnet", text.parse()));
        if self.dns.len() > TenantNetwork::DNS_MAX {
            faults.add("dns", format!("has more than {} resolvers", TenantNetwork::DNS_MAX));
        }
        faults.into_result(name.map(|name| (name, subnet, self.dns.clone())))
    }
}

/// A tenant network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkView {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub subnet: String,
    /// The default route of its machines.
    pub gateway: String,
    /// The resolvers of its machines.
    pub dns: Vec<String>,
    /// Machines that have an address there.
    pub machines: u32,
    /// How many it has room for.
    pub capacity: u32,
    /// When it was made.
    pub created_at: UnixMillis,
}
