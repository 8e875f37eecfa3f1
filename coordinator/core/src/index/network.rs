//! What is derived for tenant networks: who is named how, which ranges are taken, and which addresses machines have.

use crate::record::NetworkRecord;
use ipnet::IpNet;
use novacron_common::{
    ids::{HostId, NetworkId},
    spec::{Name, NetworkSpec, Protocol, PublishedPort, Subnet},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    num::NonZeroU16,
};

/// Names, ranges, leases and published ports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkIndex {
    names: BTreeMap<Name, NetworkId>,
    /// By the first address. No two overlap, so they are in the order of their last addresses too.
    subnets: BTreeMap<Ipv4Addr, (Subnet, NetworkId)>,
    leases: BTreeSet<(NetworkId, Ipv4Addr)>,
    ports: BTreeSet<(HostId, Protocol, NonZeroU16)>,
}

impl NetworkIndex {
    /// The network of this name.
    pub fn named(&self, name: &Name) -> Option<NetworkId> {
        self.names.get(name).copied()
    }

    /// A network that has an address in common with this range.
    pub fn overlapping(&self, subnet: Subnet) -> Option<NetworkId> {
        // The last that begins before the range's end; those before it end before it begins.
        let (_, (last, network)) = self.subnets.range(..=subnet.net().broadcast()).next_back()?;
        last.overlaps(subnet).then_some(*network)
    }

    /// Whether a machine has this address.
    pub fn is_leased(&self, network: NetworkId, address: Ipv4Addr) -> bool {
        self.leases.contains(&(network, address))
    }

    /// How many machines have an address there.
    pub fn machines(&self, network: NetworkId) -> u32 {
        let range = (network, Ipv4Addr::UNSPECIFIED)..=(network, Ipv4Addr::BROADCAST);
        u32::try_from(self.leases.range(range).count()).unwrap_or(u32::MAX)
    }

    /// A port of this host that leads to a machine already, of those that a card wants.
    pub fn taken_port(&self, host: HostId, card: &NetworkSpec) -> Option<PublishedPort> {
        card.publish.iter().copied().find(|port| self.ports.contains(&(host, port.protocol, port.host)))
    }

    pub(crate) fn publish(&mut self, host: HostId, card: &NetworkSpec) {
        self.ports.extend(card.publish.iter().map(|port| (host, port.protocol, port.host)));
    }

    pub(crate) fn withdraw(&mut self, host: HostId, card: &NetworkSpec) {
        for port in &card.publish {
            self.ports.remove(&(host, port.protocol, port.host));
        }
    }

    pub(crate) fn add(&mut self, network: &NetworkRecord) {
        let subnet = network.spec.subnet;
        self.names.insert(network.spec.name.clone(), network.id);
        self.subnets.insert(subnet.net().network(), (subnet, network.id));
    }

    pub(crate) fn drop(&mut self, network: &NetworkRecord) {
        self.names.remove(&network.spec.name);
        self.subnets.remove(&network.spec.subnet.net().network());
    }

    pub(crate) fn lease(&mut self, card: &NetworkSpec) {
        self.leases.extend(lease_of(card));
    }

    pub(crate) fn give_back(&mut self, card: &NetworkSpec) {
        if let Some(lease) = lease_of(card) {
            self.leases.remove(&lease);
        }
    }
}

fn lease_of(card: &NetworkSpec) -> Option<(NetworkId, Ipv4Addr)> {
    match (card.tenant, card.address) {
        (Some(network), Some(IpNet::V4(net))) => Some((network, net.addr())),
        _ => None,
    }
}
