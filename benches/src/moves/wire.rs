//! Bytes on the wire between the hosts: the same count for every mover, whatever it says of itself.

use anyhow::{Context, Result};
use novacron_tests::lab::Host;
use serde_json::Value;

/// What the host's `eth0` has sent, in bytes. A packet that the kernel sends in one piece and would cut later (GSO) counts
/// its headers once.
pub fn sent(host: &Host) -> Result<u64> {
    let said = host.exec("ip", &["-j", "-s", "link", "show", "dev", "eth0"])?;
    sent_of(&serde_json::from_str(&said)?).with_context(|| format!("no count of bytes in {said}"))
}

fn sent_of(links: &Value) -> Option<u64> {
    links.get(0)?.get("stats64")?.get("tx")?.get("bytes")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_ip_prints() {
        let links =
            json!([{"ifname": "eth0", "stats64": {"rx": {"bytes": 1}, "tx": {"bytes": 42, "packets": 2}}}]);
        assert_eq!(sent_of(&links), Some(42));
        assert_eq!(sent_of(&json!([])), None);
    }
}
