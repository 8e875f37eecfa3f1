//! Tenant networks, and which machine gets which of their addresses.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::NetworkCreate,
    record::NetworkRecord,
    state::State,
};
use ipnet::{IpNet, Ipv4Net};
use novacron_common::{
    api::ProblemCode,
    ids::NetworkId,
    spec::{NetworkSpec, Subnet, TenantNetwork},
};
use std::net::Ipv4Addr;

/// Where a network gets its addresses from that asks for none in particular, and the prefix of each such network.
const USUAL: (Ipv4Net, u8) = (Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16), 24);

/// Most networks in a cluster.
pub const NETWORKS_MAX: usize = 4096;

pub(super) fn create(state: &mut State, c: NetworkCreate) -> Outcome {
    if let Some(old) = state.network(c.id) {
        return same_again(old, &c);
    }
    if state.index().networks().named(&c.name).is_some() {
        return Err(Refusal::name_taken("network", &c.name));
    }
    if state.table::<NetworkRecord>().len() >= NETWORKS_MAX {
        return Err(Refusal::new(
            ProblemCode::TooLarge,
            format!("there are {NETWORKS_MAX} networks already"),
        )
        .fix("delete those that no machine is on"));
    }
    let subnet = subnet(state, c.subnet)?;
    let spec = TenantNetwork { name: c.name, subnet, dns: c.dns };
    state.write(NetworkRecord { id: c.id, spec, last: subnet.gateway(), created_at: state.now() });
    Ok(Applied::NetworkStored(c.id))
}

/// A proposal that was committed although its proposer never heard so, and came again.
fn same_again(old: &NetworkRecord, c: &NetworkCreate) -> Outcome {
    let same = old.spec.name == c.name && c.subnet.is_none_or(|subnet| subnet == old.spec.subnet);
    match same && old.spec.dns == c.dns {
        true => Ok(Applied::NetworkStored(old.id)),
        false => Err(Refusal::conflict(format!("there is another network {}", old.id))),
    }
}

fn subnet(state: &State, wanted: Option<Subnet>) -> Result<Subnet, Refusal> {
    let networks = state.index().networks();
    let Some(wanted) = wanted else {
        let (range, prefix) = USUAL;
        let all = range.subnets(prefix).into_iter().flatten().filter_map(|net| Subnet::new(net).ok());
        let free = all.into_iter().find(|subnet| networks.overlapping(*subnet).is_none());
        return free.ok_or_else(|| {
            Refusal::conflict(format!("every range of {range} is taken")).fix("name a subnet")
        });
    };
    match networks.overlapping(wanted).and_then(|other| state.network(other)) {
        Some(NetworkRecord { spec, .. }) => Err(Refusal::conflict(format!(
            "{wanted} has addresses in common with {} of the network {}",
            spec.subnet, spec.name
        ))
        .fix("choose another subnet, or leave it out")),
        None => Ok(wanted),
    }
}

pub(super) fn remove(state: &mut State, id: NetworkId) -> Outcome {
    let network = find(state, id)?;
    let machines = state.index().networks().machines(id);
    if machines > 0 {
        let are = if machines == 1 { "machine is" } else { "machines are" };
        return Err(Refusal::conflict(format!("{machines} {are} on the network {}", network.spec.name))
            .fix("delete them first"));
    }
    state.erase::<NetworkRecord>(&id);
    Ok(Applied::Done)
}

fn find(state: &State, id: NetworkId) -> Result<&NetworkRecord, Refusal> {
    state.network(id).ok_or_else(|| Refusal::not_found("network", id))
}

/// What a machine that joins its tenant network is given, and the network after that.
pub(super) struct Lease {
    card: NetworkSpec,
    network: NetworkRecord,
}

impl Lease {
    /// An address for a card that asks for one; `None` for all others.
    pub(super) fn of(state: &State, card: &NetworkSpec) -> Result<Option<Self>, Refusal> {
        let Some(id) = card.tenant else { return Ok(None) };
        let network = find(state, id)?.clone();
        let address = free_address(state, &network).ok_or_else(|| {
            let cause = format!("every address of the network {} is taken", network.spec.name);
            Refusal::conflict(cause).fix("delete a machine that is on it, or make a larger network")
        })?;
        let subnet = network.spec.subnet;
        let net = Ipv4Net::new(address, subnet.net().prefix_len()).unwrap_or(subnet.net());
        let card = NetworkSpec {
            address: Some(IpNet::V4(net)),
            gateway: Some(subnet.gateway().into()),
            dns: if card.dns.is_empty() { network.spec.dns.clone() } else { card.dns.clone() },
            ..card.clone()
        };
        Ok(Some(Self { card, network: NetworkRecord { last: address, ..network } }))
    }

    /// Writes it down, and returns the machine's card.
    pub(super) fn take(self, state: &mut State) -> NetworkSpec {
        state.write(self.network);
        self.card
    }
}

/// The next behind the last that was given.
fn free_address(state: &State, network: &NetworkRecord) -> Option<Ipv4Addr> {
    let subnet = network.spec.subnet;
    let leases = state.index().networks();
    let round = std::iter::successors(Some(subnet.next(network.last)), |address| Some(subnet.next(*address)));
    let mut round = round.take(subnet.capacity() as usize);
    round.find(|address| !leases.is_leased(network.id, *address))
}
