//! What a machine writes: it outlives a stop, a crash and the agent, it is bounded, and it goes with the machine.

use crate::{
    place::{Place, place},
    world::{eventually, exe},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_agent::hypervisor::{Definition, Hypervisor, namespace::Namespace};
use novacron_common::{ids::VmId, record::VmState, units::ByteCount};
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};

const PROGRAMS: &[&str] = &["/bin/sh", "/usr/bin/perl"];

/// Counts its lives in a file, gives away and removes files at its first, and tells what it finds.
const LIVES: &str = r#"#!/usr/bin/perl
open(my $before, '<', '/var/tmp/lives'); my $lives = 1 + (<$before> // 0);
open(STDOUT, '>', '/tmp/told'); $| = 1;
print "life $lives\n";
mkdir $_ for '/var', '/var/tmp', '/etc/own'; open(my $after, '>', '/var/tmp/lives') or print "errno $!\n";
print $after $lives; close $after;
if ($lives == 1) { chown 33, 34, '/etc/own'; unlink '/etc/motto'; open(my $shadow, '>', '/tmp/gone') }
printf "owners %s\n", join ' ', map { join ':', (stat $_)[4, 5] } '/', '/var/tmp/lives', '/etc/own', '/etc/passwd';
print -e '/etc/motto' ? "motto\n" : "no motto\n"; print -e '/tmp/gone' ? "tmp kept\n" : "tmp new\n" if $lives > 1;
print "END\n"; $SIG{TERM} = sub { exit 0 }; sleep 1 while 1;
"#;

fn disk(place: &Place, vm: VmId) -> PathBuf {
    place.folder.path().join("machines").join(vm.to_string()).join("upper.ext4")
}

/// The loop devices over files of this place, as the kernel lists them.
pub fn devices(place: &Place) -> Vec<String> {
    let files = fs::read_dir("/sys/block").unwrap().flatten();
    let files = files.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    files.filter(|file| file.starts_with(place.folder.path().to_str().unwrap())).collect()
}

async fn defined(host: &Namespace, wanted: &Definition) {
    host.define(wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
}

#[tokio::test]
async fn it_outlives_stops_crashes_and_another_range_of_ids_and_goes_with_the_machine() {
    novacron_tests::require!(root);
    let place = place(LIVES, PROGRAMS);
    let (first, other) = (place.definition(), place.definition());
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    defined(&host, &first).await;
    let told = place.told(first.vm).await;
    let owners = "owners 0:0 0:0 33:34 0:0";
    assert!(told.contains("life 1\n") && told.contains(owners) && told.contains("no motto\n"), "{told}");
    let ids = fs::metadata(place.told_file(first.vm).unwrap()).unwrap().uid();

    host.stop(first.vm, Duration::from_secs(30).into()).await.unwrap();
    defined(&host, &other).await; // takes the range that is free now
    assert!(place.told(other.vm).await.contains("life 1\n"), "two machines share a layer");
    host.start(first.vm).await.unwrap();
    let told = place.told(first.vm).await;
    assert!(told.contains("life 2\n") && told.contains(owners) && told.contains("no motto\n"), "{told}");
    assert!(told.contains("tmp new\n"), "{told}");
    assert_ne!(fs::metadata(place.told_file(first.vm).unwrap()).unwrap().uid(), ids);
    assert_eq!(devices(&place).len(), 2);

    // As at a crash: nobody unmounts anything, and the next start does not wait for it either.
    kill(supervisor(&place, first.vm).unwrap(), Signal::SIGKILL).unwrap();
    while host.state(first.vm).await.unwrap() != VmState::Stopped {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(host);
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    host.start(first.vm).await.unwrap();
    assert!(place.told(first.vm).await.contains("life 3\n"));

    for vm in [first.vm, other.vm] {
        host.undefine(vm).await.unwrap();
        assert!(!disk(&place, vm).exists());
    }
    eventually("the loop devices are free", || devices(&place).is_empty()).await;
}

const FILL: &str = r#"#!/usr/bin/perl
open(STDOUT, '>', '/tmp/told'); $| = 1; print "up\n"; my $block = 'x' x (1 << 16);
open(my $file, '>', '/srv/big'); my $written = 0;
while (my $more = syswrite $file, $block) { $written += $more }
printf "errno %d after %d\n", $! + 0, $written >> 20; close $file; unlink '/srv/big';
print "END\n"; $SIG{TERM} = sub { exit 0 }; sleep 1 while 1;
"#;

#[tokio::test]
async fn it_ends_where_the_storage_does_and_harms_nobody() {
    novacron_tests::require!(root);
    let place = place(FILL, PROGRAMS);
    let mut wanted = place.definition();
    wanted.spec.storage = ByteCount::mib(24);
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    defined(&host, &wanted).await;
    let told = place.told(wanted.vm).await;
    let written = told.lines().find_map(|line| line.strip_prefix("errno 28 after "));
    let written: u64 = written.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
    assert!((8..24).contains(&written), "{told}");
    let file = fs::metadata(disk(&place, wanted.vm)).unwrap();
    assert!(file.len() == 24 << 20 && file.blocks() * 512 <= 24 << 20, "{file:?}");
    assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Running);
    host.undefine(wanted.vm).await.unwrap();
}

fn supervisor(place: &Place, vm: VmId) -> Option<Pid> {
    let file = place.folder.path().join("machines").join(vm.to_string()).join("run/pid");
    fs::read_to_string(file).ok()?.trim().parse().ok().map(Pid::from_raw)
}
