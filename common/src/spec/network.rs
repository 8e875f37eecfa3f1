//! A machine's one network card.

use super::{Name, PublishedPort};
use crate::ids::{NetworkId, VmId};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

/// An Ethernet address. It stays with the VM across moves, and so do its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of a VM: QEMU's prefix `52:54:00` and three bytes of its id.
    pub const fn of_vm(vm: VmId) -> Self {
        let b = vm.uuid().as_u128().to_be_bytes();
        Self([0x52, 0x54, 0x00, b[13], b[14], b[15]])
    }

    /// The address of a card on a tenant network: two bytes that mark it as assigned locally, and its IP address. So it is
    /// unique wherever that is.
    pub const fn of_ip(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x52, 0x54, a, b, c, d])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the machine's card is attached to and how it is configured: that of a virtual machine by its guest (which is told
/// by its cloud-init seed), that of a namespace machine by its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The host's bridge; `None` is the agent's configured default (`novabr0`).
    pub bridge: Option<Name>,
    /// A fixed address with its prefix length; `None` leaves it to DHCP, and `vm show` says what is observed. On a tenant
    /// network the ledger chooses it when the machine is made.
    pub address: Option<ipnet::IpNet>,
    /// The default route.
    pub gateway: Option<IpAddr>,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
    /// The tenant network that a namespace machine is on; without one it has no card.
    pub tenant: Option<NetworkId>,
    /// Ports of its host that lead to it there.
    pub publish: Vec<PublishedPort>,
}

impl NetworkSpec {
    /// Most ports of one machine that are published.
    pub const PUBLISH_MAX: usize = 64;

    /// The Ethernet address of the machine's card.
    pub fn mac(&self, vm: VmId) -> MacAddress {
        match (self.tenant, self.address) {
            (Some(_), Some(ipnet::IpNet::V4(net))) => MacAddress::of_ip(net.addr()),
            _ => MacAddress::of_vm(vm),
        }
    }
}
