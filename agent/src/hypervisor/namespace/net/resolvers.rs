//! Whom a machine asks for names.

use std::net::IpAddr;

/// Where a host says whom it asks; the second is the truth behind a resolver of the host's own (systemd-resolved).
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Those that are wanted, or else the host's.
pub fn wanted_or_the_hosts(wanted: &[IpAddr]) -> Vec<IpAddr> {
    if !wanted.is_empty() {
        return wanted.to_vec();
    }
    let texts = FILES.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.map(|text| reachable(&text)).find(|found| !found.is_empty()).unwrap_or_default()
}

/// The name servers of a `resolv.conf` that a machine can reach: IPv4, and not its own loopback.
fn reachable(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    });
    servers.filter(|server| server.is_ipv4() && !server.is_loopback()).collect()
}

/// What a machine finds as its `/etc/resolv.conf`.
pub fn text(resolvers: &[IpAddr]) -> String {
    resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_resolver_is_none_of_a_machine() {
        let host = "# nameserver 10.0.0.9\nsearch example\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 10.0.0.1\n\
                    nameserver fd00::1\nnameserver\nnameserver 10.0.0.2 # second\n";
        let found = reachable(host);
        assert_eq!(text(&found), "nameserver 10.0.0.1\nnameserver 10.0.0.2\n");
        assert_eq!(reachable("nameserver 127.0.0.53\noptions edns0"), Vec::<IpAddr>::new());
        let wanted: IpAddr = "10.9.9.9".parse().unwrap();
        assert_eq!(wanted_or_the_hosts(&[wanted]), [wanted]);
    }
}
