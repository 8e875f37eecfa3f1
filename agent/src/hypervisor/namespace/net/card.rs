//! One machine's card: a pair of virtual Ethernet links, one end on the bridge, the other the machine's `eth0`.

use super::{Card, netlink::Netlink};
use crate::hypervisor::namespace::step::{Doing, StepError};
use nix::unistd::Pid;
use rtnetlink::{
    AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoData, InfoKind, InfoVeth, LinkMessage},
    },
};
use std::{io, net::Ipv4Addr};

/// The name of the machine's end.
const INSIDE: &str = "eth0";

const LOOPBACK: &str = "lo";

impl Card {
    /// Gives it to the machine whose first process this is. By the supervisor, while that process waits.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn attach(&self, init: Pid) -> Result<(), StepError> {
        let doing = format!("give the machine its network card {}", self.link);
        self.try_attach(init).doing(&doing)
    }

    fn try_attach(&self, init: Pid) -> io::Result<()> {
        let netlink = Netlink::open()?;
        let bridge = netlink.index(&self.bridge)?;
        let pair = RouteNetlinkMessage::NewLink(self.pair(init, bridge));
        match netlink.create(pair.clone()) {
            // That of an earlier life, whose namespace the kernel has not taken down yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                netlink.remove(&self.link)?;
                netlink.create(pair)
            }
            done => done,
        }
    }

    /// Both ends at once, the inner one where it belongs from the beginning.
    fn pair(&self, init: Pid, bridge: u32) -> LinkMessage {
        let inside = LinkUnspec::new_with_name(INSIDE)
            .address(self.mac.0.to_vec())
            .setns_by_pid(init.as_raw().cast_unsigned())
            .build();
        LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(self.link.clone())
            .controller(bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
            .build()
    }

    /// Takes it away, once the machine has ended: the kernel does the same, but in its own time.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn detach(&self) -> Result<(), StepError> {
        let doing = format!("remove the network card {}", self.link);
        Netlink::open().and_then(|netlink| netlink.remove(&self.link)).doing(&doing)
    }

    /// Sets up the machine's end, and its loopback. By the machine's first process, while it may.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn configure(&self) -> Result<(), StepError> {
        self.try_configure().doing("set up the network card")
    }

    fn try_configure(&self) -> io::Result<()> {
        let netlink = Netlink::open()?;
        let (loopback, inside) = (netlink.index(LOOPBACK)?, netlink.index(INSIDE)?);
        let address = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(inside)
            .address(self.address.addr(), self.address.prefix_len());
        netlink.create(RouteNetlinkMessage::NewAddress(address.build()))?;
        for index in [loopback, inside] {
            netlink.set(LinkUnspec::new_with_index(index).up().build())?;
        }
        let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(inside).gateway(self.gateway);
        netlink.create(RouteNetlinkMessage::NewRoute(route.build()))
    }
}
