//! Which addresses an image may be fetched from. Pure: texts and addresses in, verdicts out.
//!
//! A template's URL comes from a user, and the agent stands in the host's own network: without these rules it
//! would fetch from services that trust their neighbours (server-side request forgery). The rules are applied
//! after DNS and after every redirect.

use ipnet::IpNet;
use reqwest::Url;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Why an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Not a URL.
    #[error("it is not a URL")]
    Malformed,
    /// Another scheme than http or https.
    #[error("its scheme is {0}: only http and https are fetched")]
    Scheme(String),
    /// A user name or password; it would be stored and logged.
    #[error("it carries a user name or password")]
    Credentials,
    /// A name without an address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// An address of the host's own surroundings.
    #[error(
        "{host} is {address}, {kind} address: list it in this host's url_allow ([images] or [jobs]) if it is meant"
    )]
    Forbidden {
        /// The host in the URL.
        host: String,
        /// One of its addresses.
        address: IpAddr,
        /// What kind, with its article.
        kind: &'static str,
    },
    /// More redirects than are followed.
    #[error("it redirects more than {0} times")]
    Redirects(usize),
    /// A redirect that leads elsewhere, where the request's headers must not go.
    #[error("it redirects to another scheme, host or port: give that address in its place")]
    OtherOrigin,
    /// A redirect that does not say where to.
    #[error("it redirects to nowhere")]
    NoLocation,
}

/// One entry of a `url_allow` in agent.toml: a host name, an address or a network in CIDR notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed {
    /// This name, wherever it leads.
    Host(String),
    /// These addresses.
    Net(IpNet),
}

/// A text that is neither a host name nor an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a host name nor an address nor a network such as 10.0.0.0/8")]
pub struct BadAllowed(String);

impl FromStr for Allowed {
    type Err = BadAllowed;
    fn from_str(text: &str) -> Result<Self, BadAllowed> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Net(IpNet::from(address)));
        }
        let name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if !text.is_empty() && text.chars().all(name) && text.contains(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Self::Host(text.to_ascii_lowercase()));
        }
        Err(BadAllowed(text.to_owned()))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Net(net) => write!(f, "{net}"),
        }
    }
}

/// A URL that may be asked, once its host's addresses are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The URL.
    pub url: Url,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

/// The host of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// To be looked up.
    Name(String),
    /// Written as an address, in whatever notation (the URL parser has undone `0x7f.1` and the like).
    Address(IpAddr),
}

/// Checks everything about a URL except its addresses.
///
/// # Errors
/// [`UrlFault`].
pub fn check(text: &str) -> Result<Checked, UrlFault> {
    check_parsed(Url::parse(text).map_err(|_| UrlFault::Malformed)?)
}

/// The same for a redirect, whose target may be relative.
///
/// # Errors
/// [`UrlFault`].
pub fn check_redirect(from: &Url, location: &str) -> Result<Checked, UrlFault> {
    check_parsed(from.join(location).map_err(|_| UrlFault::Malformed)?)
}

fn check_parsed(url: Url) -> Result<Checked, UrlFault> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlFault::Scheme(url.scheme().to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlFault::Credentials);
    }
    let text = url.host_str().ok_or(UrlFault::Malformed)?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let host = match bare.parse() {
        Ok(address) => Host::Address(address),
        Err(_) => Host::Name(bare.trim_end_matches('.').to_ascii_lowercase()),
    };
    let port = url.port_or_known_default().ok_or(UrlFault::Malformed)?;
    Ok(Checked { url, host, port })
}

/// Checks every address that a host has: one bad one is enough, since which one is used is not ours to say.
///
/// # Errors
/// [`UrlFault::NoAddress`] or [`UrlFault::Forbidden`].
pub fn check_addresses(host: &Host, addresses: &[IpAddr], allowed: &[Allowed]) -> Result<(), UrlFault> {
    let name = match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    if addresses.is_empty() {
        return Err(UrlFault::NoAddress(name));
    }
    let is_allowed = |address: &IpAddr| {
        allowed.iter().any(|entry| match entry {
            Allowed::Host(allowed) => *allowed == name,
            Allowed::Net(net) => net.contains(address) || net.contains(&address.to_canonical()),
        })
    };
    match addresses.iter().filter(|address| !is_allowed(address)).find_map(|a| Some((*a, forbidden(*a)?))) {
        Some((address, kind)) => Err(UrlFault::Forbidden { host: name, address, kind }),
        None => Ok(()),
    }
}

/// What kind of address it is, if it is one of the host's surroundings (IANA's special-purpose registries).
pub fn forbidden(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => forbidden_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or_else(|| forbidden_v6(v6), forbidden_v4),
    }
}

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => "an unspecified",
        (127, ..) => "a loopback",
        (169, 254, _) => "a link-local or metadata",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "a private",
        (100, 64..=127, _) => "a carrier-grade NAT",
        (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113) | (198, 18..=19, _) | (192, 88, 99) => "a reserved",
        (224..=239, ..) => "a multicast",
        (240..=255, ..) => "a reserved or broadcast",
        _ => return None,
    })
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, ..] = address.segments();
    Some(match (a, b) {
        _ if address.is_unspecified() => "an unspecified",
        _ if address.is_loopback() => "a loopback",
        (0xfc00..=0xfdff, _) => "a unique local",
        (0xfe80..=0xfebf, _) => "a link-local",
        (0xfec0..=0xfeff, _) => "a site-local",
        (0xff00..=0xffff, _) => "a multicast",
        (0x2001, 0..=0x01ff | 0xdb8) | (0x3fff, 0..=0x0fff) | (0x0064..=0x0100, _) => "a reserved",
        (0x2000..=0x3fff, _) => return None,
        _ => "a reserved", // global unicast is 2000::/3
    })
}

/// The IPv4 address that a packet to this one would end at: mapped, compatible, NAT64 (RFC 6052) or 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let at = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(at(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(at(high, low)),
        [0x2002, high, low, ..] => Some(at(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str, allowed: &[&str]) -> Result<(), UrlFault> {
        let checked = check(text)?;
        let Host::Address(address) = checked.host else { panic!("{text} has a name") };
        let allowed: Vec<Allowed> = allowed.iter().map(|entry| entry.parse().unwrap()).collect();
        check_addresses(&checked.host, &[address], &allowed)
    }

    #[test]
    fn addresses_of_the_hosts_surroundings_are_refused_in_every_notation() {
        for url in [
            "http://127.0.0.1/",
            "http://127.9.9.9/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest/meta-data",
            "http://10.1.2.3/",
            "http://172.31.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://198.18.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[2002:7f00:1::]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[fec0::1]/",
            "http://[ff02::1]/",
            "http://[2001::1]/",
            "http://[2001:db8::1]/",
            "http://[4000::1]/",
        ] {
            assert!(matches!(verdict(url, &[]), Err(UrlFault::Forbidden { .. })), "{url} was not refused");
        }
    }

    #[test]
    fn public_addresses_are_taken() {
        for url in [
            "http://93.184.215.14/image",
            "https://172.32.0.1/",
            "http://100.128.0.1/",
            "http://[2606:2800:21f::1]/",
            "http://[::ffff:8.8.8.8]/",
        ] {
            assert_eq!(verdict(url, &[]), Ok(()), "{url}");
        }
    }

    #[test]
    fn what_is_listed_is_taken() {
        assert_eq!(verdict("http://10.1.2.3:8080/x", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(verdict("http://[::ffff:10.1.2.3]/x", &["10.1.0.0/16"]), Ok(()));
        assert_eq!(verdict("http://127.0.0.1/x", &["127.0.0.1"]), Ok(()));
        assert!(verdict("http://10.2.0.1/x", &["10.1.0.0/16"]).is_err());
        let host = Host::Name("mirror.lan".to_owned());
        let private = ["192.168.0.9".parse().unwrap()];
        assert_eq!(check_addresses(&host, &private, &["mirror.lan".parse().unwrap()]), Ok(()));
        assert!(check_addresses(&host, &private, &["other.lan".parse().unwrap()]).is_err());
    }

    #[test]
    fn one_bad_address_among_good_ones_is_enough() {
        let host = Host::Name("rebind.example".to_owned());
        let mixed = ["93.184.215.14".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert!(matches!(check_addresses(&host, &mixed, &[]), Err(UrlFault::Forbidden { .. })));
        assert_eq!(check_addresses(&host, &[], &[]), Err(UrlFault::NoAddress("rebind.example".to_owned())));
    }

    #[test]
    fn other_schemes_and_credentials_are_refused_also_by_redirect() {
        for (url, fault) in [
            ("file:///etc/passwd", UrlFault::Scheme("file".to_owned())),
            ("ftp://example.org/x", UrlFault::Scheme("ftp".to_owned())),
            ("http://user:pw@example.org/", UrlFault::Credentials),
            ("not a url", UrlFault::Malformed),
        ] {
            assert_eq!(check(url), Err(fault), "{url}");
        }
        let from = Url::parse("https://example.org/a/b").unwrap();
        assert_eq!(check_redirect(&from, "file:///etc/shadow"), Err(UrlFault::Scheme("file".to_owned())));
        assert_eq!(check_redirect(&from, "../c").unwrap().url.as_str(), "https://example.org/c");
        assert_eq!(
            check_redirect(&from, "//127.0.0.1/").unwrap().host,
            Host::Address("127.0.0.1".parse().unwrap())
        );
    }

    #[test]
    fn an_entry_of_the_list_is_a_name_an_address_or_a_network() {
        assert_eq!("Mirror.LAN".parse(), Ok(Allowed::Host("mirror.lan".to_owned())));
        assert_eq!("fd00::/8".parse(), Ok(Allowed::Net("fd00::/8".parse().unwrap())));
        for bad in ["", "10.0.0.0/99", "a b", "http://x/", "1.2.3"] {
            assert!(bad.parse::<Allowed>().is_err(), "{bad:?} was taken");
        }
    }
}
