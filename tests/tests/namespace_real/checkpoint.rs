//! Machines whose processes are saved and restored by the real CRIU.

use crate::{
    network::{GREETER, hears, on_a_host, sh},
    place::{Place, place},
    world::{eventually, exe, processes_with},
};
use novacron_agent::hypervisor::{Definition, Halt, Hypervisor, Printed, namespace::Namespace};
use novacron_common::{
    ids::{NetworkId, VmId},
    record::VmState,
    spec::{Mobility, NetworkSpec, Signal},
    units::ByteCount,
    wire::ExecCommand,
};
use novacron_tests::talk::Talk;
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

/// Longest that a machine may take to say what it is to say.
const PATIENCE: Duration = Duration::from_secs(60);

/// Rewrites its memory again and again, checks each time that all of it is as it was left, and counts aloud.
const REWRITER: &str = r#"#!/usr/bin/perl
$| = 1;
my ($size, $n) = (4 << 20, 0);
my $memory = chr(0) x $size;
while (1) {
    if ($memory ne chr($n % 256) x $size) { print "BAD $n\n"; exit 3 }
    $n++;
    $memory = chr($n % 256) x $size;
    print "count $n pid $$\n";
    select(undef, undef, undef, 0.01);
}
"#;

fn migratable(place: &Place) -> Definition {
    let mut definition = place.definition();
    definition.spec.mobility = Mobility::Migratable;
    definition
}

/// A host, and this machine running on it.
async fn started(place: &Place, wanted: Definition) -> (Namespace, VmId) {
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    (host, wanted.vm)
}

/// What a machine says, line by line.
struct Lines {
    printed: Printed,
    text: String,
}

impl Lines {
    async fn of(host: &Namespace, vm: VmId) -> Self {
        Self { printed: host.printed(vm, Some(1), true).await.unwrap(), text: String::new() }
    }

    async fn next(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.text = rest;
                return line;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.printed.recv()).await.expect("it says nothing");
            self.text += &String::from_utf8_lossy(&chunk.expect("it has ended").unwrap().bytes);
        }
    }

    /// The number after this word, in the next line that has it.
    async fn number(&mut self, word: &str) -> u64 {
        loop {
            let line = self.next().await;
            assert!(!line.contains("BAD"), "{line}");
            let mut words = line.split(' ').skip_while(|other| *other != word);
            if let Some(number) = words.nth(1).and_then(|number| number.parse().ok()) {
                return number;
            }
        }
    }
}

fn checkpoint_folder(place: &Place, vm: VmId) -> PathBuf {
    place.folder.path().join("machines").join(vm.to_string()).join("checkpoint")
}

#[tokio::test]
async fn a_machine_that_rewrites_its_memory_counts_on_where_it_was_saved() {
    novacron_tests::require!(root, criu);
    let place = place(REWRITER, &["/usr/bin/perl", "/bin/sh"]);
    let (host, vm) = started(&place, migratable(&place)).await;
    let mut lines = Lines::of(&host, vm).await;
    let (mut before, pid) = (0, lines.number("pid").await);
    while before < 20 {
        before = lines.number("count").await;
    }
    host.checkpoint(vm, false).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(host.state(vm).await.unwrap(), VmState::Paused);
    let folder = checkpoint_folder(&place, vm);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);

    assert_eq!(processes_with("/usr/bin/perl /bin/tell"), Vec::<String>::new());
    // Whatever becomes of the agent meanwhile.
    drop(host);
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    assert_eq!(host.state(vm).await.unwrap(), VmState::Paused);

    host.restore(vm).await.unwrap_or_else(|error| {
        panic!("{error:?}\n{}", fs::read_to_string(folder.with_file_name("run").join("criu.log")).unwrap())
    });
    assert_eq!(host.state(vm).await.unwrap(), VmState::Running);
    let mut lines = Lines::of(&host, vm).await;
    assert!(lines.number("count").await > before);
    assert_eq!(lines.number("pid").await, pid);
    let statistics = host.statistics(vm).await.unwrap();
    assert!(statistics.memory > ByteCount::mib(4) && statistics.processes == Some(2), "{statistics:?}");
    let id = sh(&host, vm, "read id </proc/2/comm; echo $id $(umask)").await;
    assert_eq!(id.output, "tell 0022\n", "{id:?}");
    assert!(!folder.exists(), "its disk goes on, and the images fit it no more");
    let halt = host.stop(vm, Duration::from_secs(30).into()).await.unwrap();
    assert_eq!(halt, Halt::OnAsking(Some(Signal::Term)));
    host.undefine(vm).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_ran_on_goes_back_to_what_it_was_disk_and_all() {
    novacron_tests::require!(root, criu);
    let place = place(REWRITER, &["/usr/bin/perl", "/bin/sh"]);
    let (host, vm) = started(&place, migratable(&place)).await;
    assert_eq!(sh(&host, vm, "echo then >/srv/when; echo then >/tmp/when").await.errors, "");
    host.checkpoint(vm, true).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(host.state(vm).await.unwrap(), VmState::Running);
    assert_eq!(sh(&host, vm, "echo now >/srv/when; echo now >/tmp/when").await.errors, "");
    let mut lines = Lines::of(&host, vm).await;
    let saved_before = lines.number("count").await;
    while lines.number("count").await < saved_before + 50 {}
    // As often as one likes.
    for _ in 0..2 {
        host.restore(vm).await.unwrap_or_else(|error| panic!("{error:?}"));
        let mut lines = Lines::of(&host, vm).await;
        let back = lines.number("count").await;
        assert!(back < saved_before + 50, "{back} {saved_before}");
        assert_eq!(
            sh(&host, vm, "read a </srv/when; read b </tmp/when; echo $a $b").await.output,
            "then then\n"
        );
    }
    host.undefine(vm).await.unwrap();
    assert!(!place.folder.path().join("machines").join(vm.to_string()).exists());
}

#[tokio::test]
async fn what_cannot_be_saved_runs_on_and_says_why() {
    novacron_tests::require!(root, criu);
    let place = place(REWRITER, &["/usr/bin/perl", "/bin/sh", "/bin/sleep"]);
    let (host, vm) = started(&place, migratable(&place)).await;
    let refused = async || {
        let error = host.checkpoint(vm, false).await.unwrap_err();
        let mut lines = Lines::of(&host, vm).await;
        let count = lines.number("count").await;
        while lines.number("count").await < count + 5 {}
        assert_eq!(host.state(vm).await.unwrap(), VmState::Running);
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    };
    // Its processes are looked at first ...
    let command = ExecCommand { argv: vec!["sleep".into(), "600".into()], ..ExecCommand::default() };
    let session = Talk::begun(host.exec(vm, &command).await.unwrap()).await.unwrap();
    let why = refused().await;
    assert!(why.contains("(sleep) came in from outside") && why.contains("vm exec"), "{why}");
    drop(session);
    eventually("the command has ended", || processes_with("sleep 600").is_empty()).await;
    // ... and where CRIU has saved all, but the checkpoint cannot be put in its place, they are let go.
    let folder = checkpoint_folder(&place, vm);
    fs::write(&folder, "in the way").unwrap();
    let why = refused().await;
    assert!(why.contains("finish the checkpoint"), "{why}");
    assert!(!folder.with_extension("new").exists());
    fs::remove_file(folder).unwrap();
    host.checkpoint(vm, false).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(host.stop(vm, Duration::ZERO.into()).await.unwrap(), Halt::Unasked);
    assert_eq!(host.state(vm).await.unwrap(), VmState::Stopped);
    host.undefine(vm).await.unwrap();

    let usual = place.definition();
    host.define(&usual).await.unwrap();
    host.start(usual.vm).await.unwrap();
    let error = host.checkpoint(usual.vm, false).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("--migratable"));
    host.undefine(usual.vm).await.unwrap();
}

#[test]
fn a_listener_is_reached_at_its_address_again() {
    novacron_tests::require!(root, criu);
    on_a_host(|| async {
        let place =
            place("#!/bin/sh\n", &["/usr/bin/perl", "/bin/sh", "/bin/bash", "/bin/cat", "/usr/bin/timeout"]);
        let mut wanted = migratable(&place);
        wanted.spec.cmdline = Some(GREETER.into());
        wanted.spec.network = NetworkSpec {
            address: Some("10.77.1.2/24".parse().unwrap()),
            gateway: Some("10.77.1.1".parse().unwrap()),
            tenant: Some(NetworkId::from_u128(1)),
            ..NetworkSpec::default()
        };
        let (host, vm) = started(&place, wanted).await;
        let here = "10.77.1.2/7000";
        hears(&host, vm, here, "hi", "it listens").await;
        let mac = "read mac </sys/class/net/eth0/address; echo $mac";
        let before = sh(&host, vm, mac).await;
        host.checkpoint(vm, false).await.unwrap_or_else(|error| panic!("{error:?}"));
        host.restore(vm).await.unwrap_or_else(|error| panic!("{error:?}"));
        hears(&host, vm, here, "hi", "it listens again").await;
        assert_eq!(sh(&host, vm, mac).await.output, before.output);
        assert!(before.output.contains(':'), "{before:?}");
        host.undefine(vm).await.unwrap();
    });
}
