//! Tenant networks on a host: who reaches whom, and that nothing is left whoever is killed. Each test has a network namespace
//! of its own that stands for the host's.

use crate::{
    crash::{MOMENTS, read_pid},
    machine::definition,
    place::place,
    world::{eventually, exe, processes_with},
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
};
use novacron_agent::hypervisor::{Definition, Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::{NetworkId, VmId},
    record::VmState,
    spec::NetworkSpec,
    wire::ExecCommand,
};
use novacron_tests::talk::{Said, Talk};
use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Answers everybody on port 7000. One word for each argument: a machine's command line knows no quotes.
pub const GREETER: &str = r#"perl -e socket(S,2,1,0);bind(S,pack("Sna4x8",2,7000,"\0\0\0\0"));listen(S,9);while(accept(C,S)){syswrite(C,"hi");close(C)}"#;

/// Runs `work` in a network namespace of its own.
pub fn on_a_host<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // As on any host; CRIU tries out on it what the kernel can do.
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        // As on hosts where something else routes.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// The names of the host's links that are ours.
fn links() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|name| name.starts_with("nb") || name.starts_with("nv")).collect()
}

/// Everything of ours that is left on the host: links, and tables of rules.
pub fn traces() -> Vec<String> {
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap().stdout;
    let tables = String::from_utf8(tables).unwrap();
    links().into_iter().chain(tables.lines().map(str::to_owned)).collect()
}

pub fn machine(folder: &Path, address: &str, gateway: &str) -> Definition {
    let mut wanted = definition(folder, Some(GREETER));
    wanted.spec.network = NetworkSpec {
        address: Some(address.parse().unwrap()),
        gateway: Some(gateway.parse().unwrap()),
        tenant: Some(NetworkId::from_u128(1)),
        ..NetworkSpec::default()
    };
    wanted
}

pub async fn sh(host: &Namespace, vm: VmId, script: &str) -> Said {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let session = host.exec(vm, &ExecCommand { argv, ..ExecCommand::default() }).await.unwrap();
    Talk::begun(session).await.unwrap().to_end().await.unwrap()
}

/// Prints what comes from an address and port (`10.0.0.1/80`), nothing if nobody is reached.
pub fn listening(place: &str, seconds: u32) -> String {
    format!("timeout {seconds} bash -c 'cat </dev/tcp/{place}' 2>&-")
}

/// How long an answer that has to come is waited for, and one that must not, in seconds.
pub const PATIENCE: (u32, u32) = (20, 1);

/// Whether the machine hears `wanted` from an address and port; `""` is nothing at all.
pub async fn hears(host: &Namespace, from: VmId, place: &str, wanted: &str, why: &str) {
    let (seconds, tries) = if wanted.is_empty() { (PATIENCE.1, 1) } else { (PATIENCE.0, 200) };
    let mut heard = String::new();
    // Who was just started may not listen yet.
    for _ in 0..tries {
        heard = sh(host, from, &listening(place, seconds)).await.output;
        if heard == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{place}: {why}: {heard:?} and not {wanted:?}");
}

#[test]
fn machines_of_one_network_reach_each_other_and_no_others() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let folder = TempDir::new().unwrap();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        let one = machine(folder.path(), "10.77.1.2/24", "10.77.1.1");
        let two = machine(folder.path(), "10.77.1.3/24", "10.77.1.1");
        let other = machine(folder.path(), "10.77.2.2/24", "10.77.2.1");
        for wanted in [&one, &two, &other] {
            host.define(wanted).await.unwrap();
            host.start(wanted.vm).await.unwrap();
        }
        assert_eq!(links().len(), 5, "two bridges, three cards: {:?}", links());
        assert_eq!(host.addresses(one.vm).await.unwrap(), ["10.77.1.2".parse::<std::net::IpAddr>().unwrap()]);

        let seen = sh(&host, one.vm, "ip -o addr show scope global; ip -o link; ip route").await.output;
        for part in
            ["eth0    inet 10.77.1.2/24", "link/ether 52:54:0a:4d:01:02", "default via 10.77.1.1 dev eth0"]
        {
            assert!(seen.contains(part), "{part}: {seen}");
        }
        let ups = seen.lines().filter(|line| line.contains("link/") && line.contains("UP")).count();
        assert_eq!(ups, 2, "loopback and card: {seen}");

        hears(&host, one.vm, "10.77.1.2/7000", "hi", "itself").await;
        hears(&host, one.vm, "10.77.1.3/7000", "hi", "one of its own network").await;
        hears(&host, two.vm, "10.77.1.2/7000", "hi", "one of its own network").await;
        hears(&host, other.vm, "10.77.2.2/7000", "hi", "the other network's machine greets too").await;
        hears(&host, one.vm, "10.77.2.2/7000", "", "another tenant's machine was reached").await;
        hears(&host, other.vm, "10.77.1.3/7000", "", "another tenant's machine was reached").await;

        // The bridge goes with its last machine, not before.
        host.undefine(one.vm).await.unwrap();
        assert_eq!(links().len(), 4, "{:?}", links());
        hears(&host, two.vm, "10.77.1.1/7000", "", "nobody listens there").await;
        host.stop(two.vm, Duration::ZERO.into()).await.unwrap();
        assert_eq!(links().len(), 2, "{:?}", links());
        host.start(two.vm).await.unwrap();
        hears(&host, two.vm, "10.77.1.3/7000", "hi", "after another start").await;
        for vm in [two.vm, other.vm] {
            host.undefine(vm).await.unwrap();
        }
        assert_eq!(traces(), Vec::<String>::new());
    });
}

#[test]
fn a_machine_without_a_network_has_no_card() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let folder = TempDir::new().unwrap();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        let wanted = definition(folder.path(), Some(GREETER));
        host.define(&wanted).await.unwrap();
        host.start(wanted.vm).await.unwrap();
        assert_eq!(traces(), Vec::<String>::new());
        assert_eq!(sh(&host, wanted.vm, "ip -o link | wc -l").await.output, "1\n");
        host.undefine(wanted.vm).await.unwrap();
    });
}

#[test]
fn a_supervisor_that_dies_at_any_moment_leaves_no_links() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let folder = TempDir::new().unwrap();
        let host = std::sync::Arc::new(Namespace::open(folder.path(), exe()).await.unwrap());
        let wanted = machine(folder.path(), "10.77.1.2/24", "10.77.1.1");
        host.define(&wanted).await.unwrap();
        let pid = folder.path().join("machines").join(wanted.vm.to_string()).join("run/pid");
        for moment in MOMENTS {
            let starting = tokio::spawn({
                let (host, vm) = (host.clone(), wanted.vm);
                async move { host.start(vm).await }
            });
            eventually("the supervisor says who it is", || read_pid(&pid).is_some()).await;
            tokio::time::sleep(Duration::from_millis(moment)).await;
            kill(read_pid(&pid).unwrap(), Signal::SIGKILL).unwrap();
            let _started_or_not = starting.await.unwrap();
            eventually(&format!("killed after {moment} ms: nothing is left"), || traces().is_empty()).await;
            while host.state(wanted.vm).await.unwrap() != VmState::Stopped {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            fs::remove_file(&pid).unwrap();
        }
        // And none of that stands in the way of the next start.
        host.start(wanted.vm).await.unwrap();
        eventually("the bridge and the card are there", || links().len() == 2).await;
        host.undefine(wanted.vm).await.unwrap();
        assert_eq!(traces(), Vec::<String>::new());
    });
}

#[test]
fn an_agent_that_dies_at_any_moment_leaves_a_machine_that_is_adopted_or_nothing() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let mut adopted = 0;
        // And once when the start is whole, however long that takes.
        for moment in MOMENTS.map(Some).into_iter().chain([None]) {
            let folder = TempDir::new().unwrap();
            let mut driver = Command::new(exe())
                .arg("machine")
                .arg(folder.path())
                .args(["10.77.1.2/24", "10.77.1.1"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let machines = folder.path().join("machines");
            eventually("the agent opened", || machines.join(".instance").exists()).await;
            match moment {
                Some(moment) => tokio::time::sleep(Duration::from_millis(moment)).await,
                None => driver.stdout.take().unwrap().read_exact(&mut [0; "started".len()]).unwrap(),
            }
            driver.kill().unwrap();
            driver.wait().unwrap();

            let host = Namespace::open(folder.path(), exe()).await.unwrap();
            let vm = VmId::from_u128(7);
            if host.state(vm).await.unwrap() == VmState::Running {
                adopted += 1;
                let run = machines.join(vm.to_string()).join("run");
                eventually("it runs", || run.join("started").exists()).await;
                assert_eq!(links().len(), 2, "killed after {moment:?} ms: {:?}", links());
                let seen = sh(&host, vm, "ip -o addr show eth0").await.output;
                assert!(seen.contains("10.77.1.2/24"), "killed after {moment:?} ms: {seen}");
            } else {
                assert_eq!(traces(), Vec::<String>::new(), "killed after {moment:?} ms");
            }
            host.undefine(vm).await.unwrap();
            assert_eq!(traces(), Vec::<String>::new(), "killed after {moment:?} ms");
            assert_eq!(processes_with("sleep 600.4242"), Vec::<String>::new());
        }
        assert!(adopted > 0, "no machine survived its agent");
    });
}

#[test]
fn what_an_earlier_life_left_is_swept_and_what_is_half_made_is_made_whole() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        let folder = TempDir::new().unwrap();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        let wanted = machine(folder.path(), "10.77.1.2/24", "10.77.1.1");
        host.define(&wanted).await.unwrap();
        host.start(wanted.vm).await.unwrap();
        let (ours, foreign) = (links(), "nbother0a4d0100");
        let table = format!("novacron_{}", &ours[0][2..7]);
        host.stop(wanted.vm, Duration::ZERO.into()).await.unwrap();
        drop(host);

        let ip = |words: &[&str]| assert!(Command::new("ip").args(words).status().unwrap().success());
        let half_made = || ours.iter().for_each(|link| ip(&["link", "add", link, "type", "bridge"]));
        ip(&["link", "add", foreign, "type", "bridge"]);
        half_made();
        let nft = |words: &[&str]| assert!(Command::new("nft").args(words).status().unwrap().success());
        let rules_of_old = || nft(&["add", "table", "bridge", &table]);
        rules_of_old();
        let host = Namespace::open(folder.path(), exe()).await.unwrap();
        assert_eq!(traces(), [foreign], "what is somebody else's stays");

        half_made();
        rules_of_old();
        host.start(wanted.vm).await.unwrap();
        hears(&host, wanted.vm, "10.77.1.2/7000", "hi", "one of its own network").await;
        host.undefine(wanted.vm).await.unwrap();
        assert_eq!(traces(), [foreign]);
    });
}

/// Tells whom it is to ask for names, and whether it may change that.
const ASKS: &str = r#"#!/usr/bin/perl
open(my $file, '<', '/etc/resolv.conf'); open(STDOUT, '>', '/tmp/told'); $| = 1;
print <$file>; print open(my $own, '>', '/etc/resolv.conf') ? "written\n" : "read-only\n";
print "END\n"; sleep 1 while 1;
"#;

#[test]
fn a_machine_asks_the_resolvers_of_its_network_whatever_its_image_says() {
    novacron_tests::require!(root);
    on_a_host(|| async {
        for link in [None, Some("../run/nowhere"), Some("motto")] {
            let place = place(ASKS, &["/bin/sh", "/usr/bin/perl"]);
            if let Some(target) = link {
                let upper = &place.image.layers[1].join("etc");
                std::os::unix::fs::symlink(target, upper.join("resolv.conf")).unwrap();
            }
            let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
            let mut wanted = place.definition();
            let network = machine(place.folder.path(), "10.77.1.2/24", "10.77.1.1").spec.network;
            wanted.spec.network = NetworkSpec { dns: vec!["10.9.9.9".parse().unwrap()], ..network };
            host.define(&wanted).await.unwrap();
            host.start(wanted.vm).await.unwrap();
            assert_eq!(place.told(wanted.vm).await, "nameserver 10.9.9.9\nread-only\nEND\n", "{link:?}");
            host.undefine(wanted.vm).await.unwrap();
        }
    });
}
