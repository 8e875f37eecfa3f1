//! Bridges of tenant networks: one for each network that has machines on this host.

use super::{Card, Tag, netlink::Netlink};
use crate::hypervisor::namespace::step::{Doing, StepError};
use novacron_common::spec::MacAddress;
use rtnetlink::{
    AddressMessageBuilder, LinkBridge, LinkUnspec,
    packet_route::{RouteNetlinkMessage, link::BridgeStpState},
};
use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    net::Ipv4Addr,
};

/// Has the bridge of this card's network there. What is so already is left as it is; what a crash left half made is made whole.
///
/// # Errors
/// [`StepError`] if the kernel refuses.
pub fn ensure(card: &Card) -> Result<(), StepError> {
    try_ensure(card).doing(&format!("make the bridge {}", card.bridge))
}

fn try_ensure(card: &Card) -> io::Result<()> {
    let netlink = Netlink::open()?;
    // With an address of its own: else it would take that of one of its ports, and change it with them.
    let bridge = LinkBridge::new(&card.bridge)
        .stp_state(BridgeStpState::Disabled)
        .forward_delay(0)
        .address(MacAddress::of_ip(card.gateway).0.to_vec());
    netlink.ensure(RouteNetlinkMessage::NewLink(bridge.build()))?;
    set_switches(&card.bridge)?;
    let index = netlink.index(&card.bridge)?;
    let address = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(card.gateway, card.address.prefix_len());
    netlink.ensure(RouteNetlinkMessage::NewAddress(address.build()))?;
    netlink.set(LinkUnspec::new_with_index(index).up().build())
}

/// The host forwards IPv4, which is what the machines' way to the world and back takes; the firewall says what of it passes.
/// It speaks no IPv6 there, by whose link-local addresses machines would reach it unasked.
fn set_switches(bridge: &str) -> io::Result<()> {
    const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    // A change of it is one of every single link's switch; no change is none.
    if std::fs::read_to_string(FORWARD)?.trim() != "1" {
        std::fs::write(FORWARD, "1")?;
    }
    std::fs::write(format!("/proc/sys/net/ipv4/conf/{bridge}/forwarding"), "1")?;
    match std::fs::write(format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"), "1") {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()), // a kernel without IPv6
        done => done,
    }
}

/// Removes what a machine had that has ended: its card, and its bridge if no machine of `live` is on that.
///
/// # Errors
/// [`StepError`] if the kernel refuses.
pub fn leave(card: &Card, live: &[Card]) -> Result<(), StepError> {
    let doing = format!("remove what {} had of the network", card.address);
    let netlink = Netlink::open().doing(&doing)?;
    netlink.remove(&card.link).doing(&doing)?;
    if live.iter().all(|other| other.bridge != card.bridge) {
        netlink.remove(&card.bridge).doing(&doing)?;
    }
    Ok(())
}

/// Removes every link of ours that no machine of `live` has: what earlier lives left behind.
///
/// # Errors
/// [`StepError`] if the kernel refuses.
pub fn sweep(tag: &Tag, live: &[Card]) -> Result<(), StepError> {
    let doing = "sweep network links";
    let netlink = Netlink::open().doing(doing)?;
    let there = netlink.links().doing(doing)?;
    leftovers(tag, &there, live).into_iter().try_for_each(|link| netlink.remove(link)).doing(doing)
}

fn leftovers<'l>(tag: &Tag, there: &'l [String], live: &[Card]) -> Vec<&'l str> {
    let used: BTreeSet<&str> = live.iter().flat_map(|card| [&*card.link, &*card.bridge]).collect();
    there.iter().map(String::as_str).filter(|link| tag.is_ours(link) && !used.contains(link)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{NetworkId, VmId},
        spec::NetworkSpec,
    };

    #[test]
    fn only_our_own_links_that_nobody_uses_are_left_over() {
        let tag = Tag::of("0123456789ab");
        let card = |address: &str| {
            let spec = NetworkSpec {
                address: Some(address.parse().unwrap()),
                gateway: Some("10.1.2.1".parse().unwrap()),
                tenant: Some(NetworkId::from_u128(1)),
                ..NetworkSpec::default()
            };
            Card::of(&tag, VmId::from_u128(1), &spec).unwrap()
        };
        let (runs, ended, other) = (card("10.1.2.7/24"), card("10.1.2.8/24"), card("10.9.0.2/24"));
        let there = [&runs.link, &runs.bridge, &ended.link, &other.bridge].map(Clone::clone);
        let there: Vec<String> = there.into_iter().chain(["eth0".into(), "nbother0a010200".into()]).collect();
        assert_eq!(leftovers(&tag, &there, std::slice::from_ref(&runs)), [&ended.link, &other.bridge]);
        assert_eq!(leftovers(&tag, &there, &[]).len(), 4);
    }
}
