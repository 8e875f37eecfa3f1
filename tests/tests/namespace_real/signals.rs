//! Signals to a machine's command, from outside.

use crate::{place::place, world::exe};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::{ids::VmId, record::VmState, spec::Signal};
use std::time::Duration;

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
