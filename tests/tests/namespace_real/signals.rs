//! Signals to a machine's command, from outside.

use crate::{machine::definition, place::place, world::exe};
use novacron_agent::hypervisor::{Halt, Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{Signal, StopTerms},
};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Says what it hears, and ends at the second SIGQUIT.
const HEARS: &str = r#"#!/usr/bin/perl
$| = 1; my $quits = 0;
for my $name (qw(HUP INT QUIT USR1 USR2 ALRM CONT WINCH)) {
    $SIG{$name} = sub { print "$name\n"; exit 7 if $name eq 'QUIT' && ++$quits == 2 };
}
print "up\n"; sleep 1 while 1;
"#;

async fn until_printed(host: &Namespace, vm: VmId, wanted: &str) {
    let mut text = Vec::new();
    for _ in 0..2000 {
        text.clear();
        let mut printed = host.printed(vm, None, false).await.unwrap();
        while let Some(chunk) = printed.recv().await {
            text.extend(chunk.unwrap().bytes);
        }
        if text == wanted.as_bytes() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{vm} printed {:?}, not {wanted:?}", String::from_utf8_lossy(&text));
}

async fn until_stopped(host: &Namespace, vm: VmId) {
    for _ in 0..2000 {
        if host.state(vm).await.unwrap() == VmState::Stopped {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{vm} does not end");
}

#[tokio::test]
async fn a_machines_command_hears_each_signal_once_and_ends_by_those_that_end_it() {
    novacron_tests::require!(root);
    let place = place(HEARS, &["/usr/bin/perl"]);
    let wanted = place.definition();
    let (host, vm) = (Namespace::open(place.folder.path(), exe()).await.unwrap(), wanted.vm);
    host.define(&wanted).await.unwrap();
    host.start(vm).await.unwrap();
    let mut heard = "up\n".to_owned();
    until_printed(&host, vm, &heard).await;
    let ends = [Signal::Kill, Signal::Term];
    for signal in Signal::ALL.into_iter().filter(|signal| !ends.contains(signal)) {
        host.signal(vm, signal).await.unwrap();
        heard += &format!("{signal}\n");
        until_printed(&host, vm, &heard).await;
    }
    host.signal(vm, Signal::Quit).await.unwrap();
    until_printed(&host, vm, &(heard + "QUIT\n")).await;
    for signal in ends {
        until_stopped(&host, vm).await;
        host.start(vm).await.unwrap();
        until_printed(&host, vm, "up\n").await;
        host.signal(vm, signal).await.unwrap();
    }
    until_stopped(&host, vm).await;
    host.undefine(vm).await.unwrap();
}

/// Ends on SIGUSR1, and on nothing else that can be heard.
const STUBBORN: &str = r#"#!/usr/bin/perl
$| = 1; $SIG{TERM} = sub { print "TERM\n" }; $SIG{USR1} = sub { print "USR1\n"; exit 0 };
print "up\n"; sleep 1 while 1;
"#;

#[tokio::test]
async fn a_stop_sends_the_wanted_signal_and_tells_who_had_to_be_killed() {
    novacron_tests::require!(root);
    let place = place(STUBBORN, &["/usr/bin/perl"]);
    let wanted = place.definition();
    let (host, vm) = (Namespace::open(place.folder.path(), exe()).await.unwrap(), wanted.vm);
    host.define(&wanted).await.unwrap();
    let stop = async |terms: StopTerms, heard: &str| {
        host.start(vm).await.unwrap();
        until_printed(&host, vm, "up\n").await;
        let halt = host.stop(vm, terms).await.unwrap();
        assert_eq!(host.state(vm).await.unwrap(), VmState::Stopped);
        until_printed(&host, vm, &format!("up\n{heard}")).await;
        halt
    };
    let began = Instant::now();
    let patient = StopTerms { signal: Some(Signal::Usr1), grace_ms: 600_000 };
    assert_eq!(stop(patient, "USR1\n").await, Halt::OnAsking(patient.signal));
    assert!(began.elapsed() < patient.grace(), "the grace was waited for");
    let short = StopTerms::within_ms(300);
    let overdue = Halt::Overdue { signal: Some(Signal::Term), grace: short.grace() };
    assert_eq!(stop(short, "TERM\n").await, overdue);
    assert_eq!(stop(StopTerms::AT_ONCE, "").await, Halt::Unasked);
    assert_eq!(host.stop(vm, patient).await.unwrap(), Halt::WasDown);
    host.undefine(vm).await.unwrap();
}

#[tokio::test]
async fn an_images_own_stop_signal_is_sent_where_nobody_names_another() {
    novacron_tests::require!(root);
    let mut place = place(STUBBORN, &["/usr/bin/perl"]);
    place.image.run.stop_signal = Some(Signal::Usr1);
    let wanted = place.definition();
    let (host, vm) = (Namespace::open(place.folder.path(), exe()).await.unwrap(), wanted.vm);
    host.define(&wanted).await.unwrap();
    for (asked, heard, halt) in [
        (None, "USR1\n", Halt::OnAsking(Some(Signal::Usr1))),
        (Some(Signal::Int), "", Halt::OnAsking(Some(Signal::Int))),
    ] {
        host.start(vm).await.unwrap();
        until_printed(&host, vm, "up\n").await;
        assert_eq!(host.stop(vm, StopTerms { signal: asked, grace_ms: 600_000 }).await.unwrap(), halt);
        until_printed(&host, vm, &format!("up\n{heard}")).await;
    }
    host.undefine(vm).await.unwrap();
}

#[tokio::test]
async fn a_machine_without_a_command_ends_whatever_it_is_sent() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let wanted = definition(folder.path(), None);
    let host = Namespace::open(folder.path(), exe()).await.unwrap();
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    let quit = StopTerms { signal: Some(Signal::Quit), grace_ms: 60_000 };
    assert_eq!(host.stop(wanted.vm, quit).await.unwrap(), Halt::OnAsking(Some(Signal::Term)));
    host.undefine(wanted.vm).await.unwrap();
}
