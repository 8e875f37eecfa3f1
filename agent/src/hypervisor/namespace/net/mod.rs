//! The network of namespace machines: a card for each machine, a bridge for each tenant network that has machines here.
//!
//! ```text
//! machine's network namespace │ host
//!     eth0 10.1.2.7/24 ───────┼─── nv….0a010207 ─┬─ nb….0a010200 10.1.2.1 (the machines' default route)
//!     eth0 10.1.2.8/24 ───────┼─── nv….0a010208 ─┘
//! ```
//!
//! * What belongs to one machine ([`card`]) is made by its supervisor, and its inner end is put into the machine's network
//!   namespace as it is made: whoever is killed, the kernel removes the pair with the namespace.
//! * What machines share ([`bridge`]) is made and removed by the agent, in whose ledger the machines are. Names tell whose it
//!   is and for what: no two subnets of a cluster have an address in common, so an address names a network or a machine.
//! * What may pass is in the [`firewall`], whose rules are there before a bridge is.

pub mod bridge;
pub mod card;
pub mod firewall;
mod netlink;
pub mod ports;
pub mod resolvers;

use ipnet::{IpNet, Ipv4Net};
use novacron_common::{
    ids::VmId,
    spec::{MacAddress, NetworkSpec, PublishedPort},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};

/// What the bridges' names begin with, and the cards'.
const BRIDGE: &str = "nb";
const CARD: &str = "nv";

/// One machine's card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The host's end of it.
    pub link: String,
    /// What that is attached to.
    pub bridge: String,
    /// The machine's Ethernet address.
    pub mac: MacAddress,
    /// Its address, with the prefix of its network.
    pub address: Ipv4Net,
    /// Its default route: the bridge's own address.
    pub gateway: Ipv4Addr,
    /// Ports of the host that lead to it.
    pub publish: Vec<PublishedPort>,
    /// Whom it asks for names.
    pub resolvers: Vec<IpAddr>,
}

impl Card {
    /// The card that a spec asks for, if it does. `tag` is whose it is.
    pub fn of(tag: &Tag, vm: VmId, spec: &NetworkSpec) -> Option<Self> {
        match (spec.tenant, spec.address, spec.gateway) {
            (Some(_), Some(IpNet::V4(address)), Some(IpAddr::V4(gateway))) => Some(Self {
                link: tag.name(CARD, address.addr()),
                bridge: tag.name(BRIDGE, address.network()),
                mac: spec.mac(vm),
                address,
                gateway,
                publish: spec.publish.clone(),
                resolvers: spec.dns.clone(),
            }),
            _ => None,
        }
    }
}

/// The part of names that tells agents under one kernel apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// As many characters as a name of at most 15 has room for.
    const CHARS: usize = 5;

    /// Of an instance's name.
    pub fn of(instance: &str) -> Self {
        Self(instance.chars().take(Self::CHARS).collect())
    }

    fn name(&self, kind: &str, address: Ipv4Addr) -> String {
        format!("{kind}{}{:08x}", self.0, address.to_bits())
    }

    /// Whether a link of this name is one of ours.
    fn is_ours(&self, link: &str) -> bool {
        let address = [BRIDGE, CARD].iter().find_map(|kind| link.strip_prefix(kind)?.strip_prefix(&*self.0));
        address.is_some_and(|address| address.len() == 8 && address.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::ids::NetworkId;

    fn spec(address: &str) -> NetworkSpec {
        NetworkSpec {
            address: Some(address.parse().unwrap()),
            gateway: Some("10.1.2.1".parse().unwrap()),
            tenant: Some(NetworkId::from_u128(1)),
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn names_fit_and_tell_agents_machines_and_networks_apart() {
        let (vm, tag) = (VmId::from_u128(1), Tag::of("0123456789ab"));
        let card = Card::of(&tag, vm, &spec("10.1.2.7/24")).unwrap();
        assert_eq!((card.link.as_str(), card.bridge.as_str()), ("nv012340a010207", "nb012340a010200"));
        assert!(card.link.len() <= 15);
        assert_eq!(card.mac.to_string(), "52:54:0a:01:02:07");
        assert!(tag.is_ours(&card.link) && tag.is_ours(&card.bridge));
        for foreign in ["novabr0", "nb012340a01020", "nb987650a010200", "nvme", "nb01234zzzzzzzz", "eth0"] {
            assert!(!tag.is_ours(foreign), "{foreign}");
        }
    }

    #[test]
    fn there_is_no_card_but_on_a_tenant_network() {
        let of = |spec: &NetworkSpec| Card::of(&Tag::of("0123456789ab"), VmId::from_u128(1), spec);
        assert_eq!(of(&NetworkSpec::default()), None);
        assert_eq!(of(&NetworkSpec { tenant: None, ..spec("10.1.2.7/24") }), None);
    }
}
