//! Ports of a host that lead to a machine.

use serde::{Deserialize, Serialize};
use std::{fmt, num::NonZeroU16, str::FromStr};

/// What a port belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the machine's host, and the machine's port that it leads to: `8080:80`, `5353:53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    /// Of both.
    pub protocol: Protocol,
    /// The host's.
    pub host: NonZeroU16,
    /// The machine's.
    pub machine: NonZeroU16,
}

/// A text that is no pair of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write it like 8080:80 or 5353:53/udp: the host's port, the machine's, and tcp (the default) or udp")]
pub struct BadPublishedPort;

impl FromStr for PublishedPort {
    type Err = BadPublishedPort;
    fn from_str(text: &str) -> Result<Self, BadPublishedPort> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(BadPublishedPort),
        };
        let (host, machine) = ports.split_once(':').ok_or(BadPublishedPort)?;
        let port = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse().map_err(|_| BadPublishedPort),
            false => Err(BadPublishedPort), // `parse` would take a sign
        };
        Ok(Self { protocol, host: port(host)?, machine: port(machine)? })
    }
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.machine, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_shown() {
        for text in ["8080:80/tcp", "5353:53/udp", "65535:1/tcp"] {
            assert_eq!(text.parse::<PublishedPort>().unwrap().to_string(), text);
        }
        assert_eq!("8080:80".parse::<PublishedPort>().unwrap().to_string(), "8080:80/tcp");
        for wrong in [
            "80",
            "80:",
            ":80",
            "0:80",
            "80:0",
            "65536:1",
            "+8080:80",
            "1:2:3",
            "80:80/sctp",
            "a:b",
            "80:80/",
        ] {
            assert_eq!(wrong.parse::<PublishedPort>(), Err(BadPublishedPort), "{wrong}");
        }
    }
}
