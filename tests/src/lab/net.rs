//! Wires the nodes: two bridges in the outside node, a veth pair for each interface, token buckets for shaped links.

use std::process::Command;

use anyhow::Result;

use super::addr;
use super::node::{Node, Role};

const LAN: &str = "lan0";
const GUEST: &str = "guest0";

/// The outside's end of a node's `eth0`.
pub fn lan_port(node: &Node) -> String {
    format!("{}-lan", node.name())
}

fn guest_port(node: &Node) -> String {
    format!("{}-guest", node.name())
}

/// Makes both bridges and gives the outside its addresses.
pub fn make_bridges(outside: &Node) -> Result<()> {
    for (bridge, address) in [(LAN, addr::OUTSIDE_LAN), (GUEST, addr::OUTSIDE_GUEST)] {
        ip(outside, &format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
        ip(outside, &format!("addr add {address}/{} dev {bridge}", addr::PREFIX))?;
        ip(outside, &format!("link set {bridge} up"))?;
    }
    Ok(())
}

/// Gives a node its interfaces.
pub fn attach(outside: &Node, node: &Node) -> Result<()> {
    cable(outside, node, &lan_port(node), "eth0", LAN)?;
    ip(node, &format!("addr add {}/{} dev eth0", node.address(), addr::PREFIX))?;
    if node.spec().role == Role::Hypervisor {
        cable(outside, node, &guest_port(node), "eth1", GUEST)?;
    }
    Ok(())
}

/// Takes away what a crashed node's interfaces left at the outside's end: the kernel takes dead network namespaces down in
/// its own time, and a host that boots at once would find its ports still there.
pub fn detach(outside: &Node, node: &Node) {
    for port in [lan_port(node), guest_port(node)] {
        // Fails if the kernel was faster.
        let _ = ip(outside, &format!("link del {port}"));
    }
}

fn cable(outside: &Node, node: &Node, port: &str, inside: &str, bridge: &str) -> Result<()> {
    let init = node.init_pid()?;
    ip(outside, &format!("link add {port} type veth peer name {inside} netns {init}"))?;
    ip(outside, &format!("link set {port} master {bridge} up"))?;
    ip(node, &format!("link set {inside} up"))
}

/// Limits both directions of the node's `eth0`.
pub fn shape(outside: &Node, node: &Node, mbit: u32) -> Result<()> {
    // A bucket of 5 ms at the full rate, but never less than a few packets, and a queue of 50 ms.
    let burst_kib = (mbit / 8 * 5).max(32);
    let limit = format!("root tbf rate {mbit}mbit burst {burst_kib}kb latency 50ms");
    tc(node, &format!("qdisc replace dev eth0 {limit}"))?;
    tc(outside, &format!("qdisc replace dev {} {limit}", lan_port(node)))
}

/// Takes the limits away.
pub fn unshape(outside: &Node, node: &Node) -> Result<()> {
    tc(node, "qdisc del dev eth0 root")?;
    tc(outside, &format!("qdisc del dev {} root", lan_port(node)))
}

/// Cuts or restores the node's `eth0` at the outside's end.
pub fn set_link(outside: &Node, node: &Node, up: bool) -> Result<()> {
    ip(outside, &format!("link set {} {}", lan_port(node), if up { "up" } else { "down" }))
}

/// The ends of a long way to a node: the one in the LAN, and the one that the node is behind.
pub fn long_way_taps(node: &Node) -> [String; 2] {
    ["near", "far"].map(|end| format!("{}-{end}", node.name()))
}

fn far_bridge(node: &Node) -> String {
    format!("{}-away", node.name())
}

/// Takes the node off the LAN, to the far end of its long way.
pub fn put_far(outside: &Node, node: &Node) -> Result<()> {
    let ([near, far], bridge) = (long_way_taps(node), far_bridge(node));
    ip(outside, &format!("link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    ip(outside, &format!("link set {bridge} up"))?;
    ip(outside, &format!("link set {near} master {LAN} up"))?;
    ip(outside, &format!("link set {far} master {bridge} up"))?;
    ip(outside, &format!("link set {} master {bridge}", lan_port(node)))
}

/// Puts it back.
pub fn put_near(outside: &Node, node: &Node) -> Result<()> {
    ip(outside, &format!("link set {} master {LAN}", lan_port(node)))?;
    ip(outside, &format!("link del {}", far_bridge(node)))
}

fn ip(node: &Node, words: &str) -> Result<()> {
    node.with_network(Command::new("ip").args(words.split(' '))).map(|_| ())
}

fn tc(node: &Node, words: &str) -> Result<()> {
    node.with_network(Command::new("tc").args(words.split(' '))).map(|_| ())
}
