//! What the firewall of tenant networks lets pass, between real links: a machine, its host, and a world that is a network
//! namespace of its own behind the host.

use crate::{
    network::{GREETER, PATIENCE, hears, listening, machine, on_a_host, traces},
    world::{eventually, exe},
};
use novacron_agent::hypervisor::{
    Hypervisor,
    namespace::{Namespace, folder::Folder},
};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Tells everybody on this port where they come from.
fn mirror(port: u16) -> String {
    let greeter = GREETER.replace("7000", &port.to_string());
    greeter.replace(r#""hi""#, r#"join(".",unpack("C4",substr(getpeername(C),4,4)))"#)
}

/// A process that ends with its test.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn spawned(words: &[&str]) -> Owned {
    Owned(Command::new(words[0]).args(&words[1..]).stderr(Stdio::null()).spawn().unwrap())
}

fn done(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{line}");
}

/// What comes back from there, to a process in the network namespace of this one; nothing if nobody is reached.
fn heard_in(pid: u32, place: &str, seconds: u32) -> String {
    let script = listening(place, seconds);
    let output = Command::new("nsenter").args(["-t", &pid.to_string(), "-n", "sh", "-c", &script]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The world: behind the host's 192.0.2.1, at 192.0.2.2, where a mirror stands on port 7000.
fn world() -> (Owned, Owned) {
    let place = spawned(&["unshare", "-n", "sleep", "600"]);
    let pid = place.0.id();
    while std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap()
        == std::fs::read_link("/proc/thread-self/ns/net").unwrap()
    {
        std::thread::yield_now();
    }
    done(&format!("ip link add out0 type veth peer name in0 netns {pid}"));
    done("ip addr add 192.0.2.1/24 dev out0");
    done("ip link set out0 up");
    done("ip link set lo up");
    for line in
        ["ip addr add 192.0.2.2/24 dev in0", "ip link set in0 up", "ip route add default via 192.0.2.1"]
    {
        done(&format!("nsenter -t {pid} -n {line}"));
    }
    let mirror = mirror(7000);
    let words: Vec<&str> = mirror.split_whitespace().collect();
    let standing = spawned(&[&["nsenter", "-t", &pid.to_string(), "-n"], &words[..]].concat());
    (place, standing)
}

#[test]
fn machines_find_the_way_out_and_the_world_published_ports_and_nothing_else_passes() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let (world, _mirror) = world();
        let outside = world.0.id();
        let folder = TempDir::new().unwrap();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        let mut one = machine(folder.path(), "10.77.1.2/24", "10.77.1.1");
        one.spec.network.publish = vec!["8080:7000".parse().unwrap()];
        let two = machine(folder.path(), "10.77.1.3/24", "10.77.1.1");
        let other = machine(folder.path(), "10.77.2.2/24", "10.77.2.1");
        for wanted in [&one, &two, &other] {
            host.define(wanted).await.unwrap();
            host.start(wanted.vm).await.unwrap();
        }
        hears(&host, two.vm, "10.77.1.2/7000", "hi", "the machine listens").await;
        assert_eq!(heard_in(outside, "192.0.2.1/8080", PATIENCE.0), "hi", "by the published port");
        assert_eq!(heard_here("192.0.2.1/8080"), "hi", "the host itself, by the published port");
        for vm in [two.vm, other.vm] {
            hears(&host, vm, "192.0.2.1/8080", "hi", "a machine, by the published port").await;
        }
        hears(&host, one.vm, "192.0.2.2/7000", "192.0.2.1", "the world sees the host").await;
        assert_eq!(heard_in(outside, "10.77.1.2/7000", PATIENCE.1), "", "the world reached a machine");
        hears(&host, other.vm, "10.77.1.2/7000", "", "another tenant's machine was reached").await;

        let service = mirror(7001);
        let _service = spawned(&service.split_whitespace().collect::<Vec<_>>());
        eventually("the host's service stands", || {
            heard_in(outside, "192.0.2.1/7001", PATIENCE.0) == "192.0.2.2"
        })
        .await;
        for address in ["192.0.2.1/7001", "10.77.1.1/7001"] {
            hears(&host, one.vm, address, "", "the host's service was reached").await;
        }
        let mut greedy = machine(folder.path(), "10.77.1.4/24", "10.77.1.1");
        greedy.spec.network.publish = vec!["7001:7000".parse().unwrap()];
        host.define(&greedy).await.unwrap();
        let refused = host.start(greedy.vm).await.unwrap_err();
        let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
        assert!(cause.contains("publish the host's port 7001/tcp"), "{refused} {cause}");

        host.undefine(one.vm).await.unwrap();
        assert_eq!(
            heard_in(outside, "192.0.2.1/8080", PATIENCE.1),
            "",
            "the port leads on to a machine that is gone"
        );
        for vm in [two.vm, other.vm, greedy.vm] {
            host.undefine(vm).await.unwrap();
        }
        assert_eq!(traces(), Vec::<String>::new());
    });
}

fn heard_here(place: &str) -> String {
    let output = Command::new("sh").args(["-c", &listening(place, PATIENCE.0)]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// Connects from this address; the network namespace is that of the process.
fn heard_from(pid: i32, source: &str, to: &str, seconds: u32) -> String {
    let bytes = |address: &str| address.replace('.', ",");
    let script = format!(
        r#"socket(S,2,1,0);bind(S,pack("Sna4x8",2,0,pack("C4",{})))or die$!;connect(S,pack("Sna4x8",2,7000,pack("C4",{})))or die$!;print<S>"#,
        bytes(source),
        bytes(to)
    );
    let output = Command::new("timeout")
        .args([&seconds.to_string(), "nsenter", "-t", &pid.to_string(), "-n", "perl", "-e", &script])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_machine_cannot_speak_as_another() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let folder = TempDir::new().unwrap();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        let one = machine(folder.path(), "10.77.1.2/24", "10.77.1.1");
        let two = machine(folder.path(), "10.77.1.3/24", "10.77.1.1");
        for wanted in [&one, &two] {
            host.define(wanted).await.unwrap();
            host.start(wanted.vm).await.unwrap();
        }
        let pid = init(folder.path(), &one.vm.to_string());
        // As if the machine had rights that it does not have: the host's root in its network.
        let inside = |line: &str| done(&format!("nsenter -t {pid} -n {line}"));
        hears(&host, one.vm, "10.77.1.3/7000", "hi", "as itself").await;
        assert_eq!(heard_from(pid, "10.77.1.2", "10.77.1.3", PATIENCE.0), "hi");
        inside("ip addr add 10.77.1.99/24 dev eth0");
        assert_eq!(heard_from(pid, "10.77.1.99", "10.77.1.3", PATIENCE.1), "", "under another address");
        assert_eq!(heard_from(pid, "10.77.1.2", "10.77.1.3", PATIENCE.0), "hi");
        inside("ip link set eth0 address 52:54:0a:4d:01:63");
        assert_eq!(
            heard_from(pid, "10.77.1.2", "10.77.1.3", PATIENCE.1),
            "",
            "under another Ethernet address"
        );
        inside("ip link set eth0 address 52:54:0a:4d:01:02");
        assert_eq!(heard_from(pid, "10.77.1.2", "10.77.1.3", PATIENCE.0), "hi");
        for vm in [one.vm, two.vm] {
            host.undefine(vm).await.unwrap();
        }
        assert_eq!(traces(), Vec::<String>::new());
    });
}

fn init(folder: &Path, vm: &str) -> i32 {
    Folder::at(folder.join("machines").join(vm).join("run")).init().unwrap().unwrap()
}
