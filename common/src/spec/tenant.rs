//! A tenant network: machines on it reach each other, and nobody else does.

use super::Name;
use ipnet::Ipv4Net;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

/// The addresses of a tenant network: a private IPv4 range, written without host bits.
///
/// The first is the gateway's, which each host holds for its own machines; the last is for broadcasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Subnet(Ipv4Net);

/// A text that is no subnet, or none that a tenant network can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubnet {
    /// Not in CIDR notation.
    #[error("write it like 10.1.2.0/24")]
    Syntax,
    /// Bits are set behind the prefix.
    #[error("has bits set behind its prefix: did you mean {0}?")]
    HostBits(Ipv4Net),
    /// Too many addresses, or too few.
    #[error("must have a prefix of {min} to {max}", min = Subnet::PREFIX_MIN, max = Subnet::PREFIX_MAX)]
    Prefix,
    /// Addresses that belong to somebody.
    #[error(
        "must lie in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10: other addresses have owners"
    )]
    Public,
}

/// The ranges that nobody owns (RFC 1918, RFC 6598).
const PRIVATE: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
];

impl Subnet {
    /// The largest subnet: more machines than a cluster has.
    pub const PREFIX_MIN: u8 = 12;
    /// The smallest: five machines.
    pub const PREFIX_MAX: u8 = 29;

    /// Checks a range.
    ///
    /// # Errors
    /// [`BadSubnet`] says what is wrong with it.
    pub fn new(net: Ipv4Net) -> Result<Self, BadSubnet> {
        if net.trunc() != net {
            return Err(BadSubnet::HostBits(net.trunc()));
        }
        if !(Self::PREFIX_MIN..=Self::PREFIX_MAX).contains(&net.prefix_len()) {
            return Err(BadSubnet::Prefix);
        }
        if !PRIVATE.iter().any(|range| range.contains(&net)) {
            return Err(BadSubnet::Public);
        }
        Ok(Self(net))
    }

    /// The range.
    pub const fn net(self) -> Ipv4Net {
        self.0
    }

    /// The default route of its machines.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0.network().to_bits() + 1)
    }

    /// How many machines it has room for.
    pub fn capacity(self) -> u32 {
        // Of a power of two at least 8: the network's own, the gateway's and the broadcast address.
        (1 << (32 - u32::from(self.0.prefix_len()))) - 3
    }

    /// The machine's address behind this one, in a circle.
    #[must_use]
    pub fn next(self, address: Ipv4Addr) -> Ipv4Addr {
        let first = self.gateway().to_bits() + 1;
        let offset = address.to_bits().wrapping_sub(first).wrapping_add(1);
        Ipv4Addr::from_bits(first + if offset < self.capacity() { offset } else { 0 })
    }

    /// Whether the two have addresses in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;
    fn from_str(text: &str) -> Result<Self, BadSubnet> {
        Self::new(text.parse().map_err(|_| BadSubnet::Syntax)?)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Ipv4Net::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// What a tenant network is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantNetwork {
    /// Unique in the cluster.
    pub name: Name,
    /// Its addresses. No two networks have any in common.
    pub subnet: Subnet,
    /// The resolvers of its machines.
    pub dns: Vec<IpAddr>,
}

impl TenantNetwork {
    /// Most resolvers.
    pub const DNS_MAX: usize = 8;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_private_range_is_refused_with_a_reason() {
        let fault = |text: &str| text.parse::<Subnet>().unwrap_err();
        assert_eq!(fault("10.1.2.3"), BadSubnet::Syntax);
        assert_eq!(fault("10.1.2.3/24"), BadSubnet::HostBits("10.1.2.0/24".parse().unwrap()));
        assert_eq!(fault("10.1.2.0/30"), BadSubnet::Prefix);
        assert_eq!(fault("10.0.0.0/8"), BadSubnet::Prefix);
        assert_eq!(fault("8.8.8.0/24"), BadSubnet::Public);
        assert_eq!(fault("127.0.0.0/24"), BadSubnet::Public);
        assert_eq!(fault("172.32.0.0/24"), BadSubnet::Public);
        assert!("100.127.0.0/16".parse::<Subnet>().is_ok());
    }

    #[test]
    fn the_addresses_of_machines_go_round_without_gateway_and_broadcast() {
        let net = subnet("10.1.2.0/29");
        assert_eq!((net.gateway(), net.capacity()), (Ipv4Addr::new(10, 1, 2, 1), 5));
        let mut address = net.gateway();
        let round: Vec<u8> = (0..6)
            .map(|_| {
                address = net.next(address);
                address.octets()[3]
            })
            .collect();
        assert_eq!(round, [2, 3, 4, 5, 6, 2]);
        // Whatever was given before: one of another network begins the round anew.
        assert_eq!(net.next(Ipv4Addr::BROADCAST), Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(net.next(Ipv4Addr::UNSPECIFIED), Ipv4Addr::new(10, 1, 2, 2));
    }

    #[test]
    fn a_subnet_overlaps_what_is_within_it_and_around_it() {
        let (wide, narrow, other) = (subnet("10.1.0.0/16"), subnet("10.1.2.0/24"), subnet("10.2.0.0/16"));
        assert!(wide.overlaps(narrow) && narrow.overlaps(wide) && wide.overlaps(wide));
        assert!(!wide.overlaps(other) && !other.overlaps(narrow));
    }

    #[test]
    fn bytes_of_another_subnet_are_refused() {
        let good = serde_json::to_string(&subnet("10.1.2.0/24")).unwrap();
        assert_eq!(serde_json::from_str::<Subnet>(&good).unwrap(), subnet("10.1.2.0/24"));
        assert!(serde_json::from_str::<Subnet>(&good.replace("10.1.2", "9.1.2")).is_err());
    }
}
