//! A VM's one network card.

use super::Name;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// An Ethernet address. It stays with the VM across moves, and so do its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address of a VM: QEMU's prefix `52:54:00` and three bytes of its id.
    pub const fn of_vm(vm: crate::ids::VmId) -> Self {
        let b = vm.uuid().as_u128().to_be_bytes();
        Self([0x52, 0x54, 0x00, b[13], b[14], b[15]])
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

/// What the VM's card is attached to and how the guest is told to configure it (by its cloud-init seed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// The host's bridge; `None` is the agent's configured default (`novabr0`).
    pub bridge: Option<Name>,
    /// A fixed address with its prefix length; `None` leaves it to DHCP, and `vm show` says what is observed.
    pub address: Option<ipnet::IpNet>,
    /// The default route.
    pub gateway: Option<IpAddr>,
    /// Resolvers.
    pub dns: Vec<IpAddr>,
}
