//! A tenant network, as shown.

use crate::{record::NetworkRecord, state::State};
use novacron_common::api::NetworkView;

/// The view of a tenant network.
pub fn network(state: &State, network: &NetworkRecord) -> NetworkView {
    let spec = &network.spec;
    NetworkView {
        id: network.id,
        name: spec.name.to_string(),
        subnet: spec.subnet.to_string(),
        gateway: spec.subnet.gateway().to_string(),
        dns: spec.dns.iter().map(ToString::to_string).collect(),
        machines: state.index().networks().machines(network.id),
        capacity: spec.subnet.capacity(),
        created_at: network.created_at,
    }
}
