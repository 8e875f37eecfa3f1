//! Machines that are held where they are: what stands still, what outlives the agent, and how one that is held ends.

use crate::{
    machine::definition,
    world::{exe, groups, processes_with},
};
use novacron_agent::hypervisor::{Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    record::VmState,
    wire::{ExecCommand, ExecEnd},
};
use novacron_tests::talk::Talk;
use std::{path::Path, time::Duration};
use tempfile::TempDir;

const COUNT: &str = "perl -e $|=1;print(++$n,qq(\\n))&&select(undef,undef,undef,0.01)while(1)";

async fn opened(folder: &Path) -> Namespace {
    Namespace::open(folder, exe()).await.unwrap()
}

async fn running(host: &Namespace, folder: &Path, cmdline: &str) -> VmId {
    let wanted = definition(folder, Some(cmdline));
    host.define(&wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
    wanted.vm
}

/// The last number that it has printed.
async fn count(host: &Namespace, vm: VmId) -> u64 {
    let mut printed = host.printed(vm, Some(1), false).await.unwrap();
    let mut line = Vec::new();
    while let Some(chunk) = printed.recv().await {
        line.extend(chunk.unwrap().bytes);
    }
    String::from_utf8(line).unwrap().trim().parse().unwrap_or(0)
}

async fn until_more_than(host: &Namespace, vm: VmId, least: u64) {
    for _ in 0..2000 {
        if count(host, vm).await > least {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{vm} does not count beyond {least}");
}

#[tokio::test]
async fn a_paused_machine_and_the_commands_in_it_stand_still_also_for_another_agent() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let first = opened(folder.path()).await;
    let vm = running(&first, folder.path(), COUNT).await;
    until_more_than(&first, vm, 2).await;
    let nap = ExecCommand { argv: ["sleep", "0.3"].map(str::to_owned).to_vec(), ..ExecCommand::default() };
    let within = Talk::begun(first.exec(vm, &nap).await.unwrap()).await.unwrap();
    first.pause(vm).await.unwrap();

    // What was printed before may still be on its way to the spool; after a moment nothing is.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (reached, used) = (count(&first, vm).await, first.usage(vm).await.unwrap().cpu);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((count(&first, vm).await, first.usage(vm).await.unwrap().cpu), (reached, used));

    drop(first);
    let second = opened(folder.path()).await;
    assert_eq!(second.state(vm).await.unwrap(), VmState::Paused);
    assert_eq!(count(&second, vm).await, reached);
    second.resume(vm).await.unwrap();
    until_more_than(&second, vm, reached).await;
    assert_eq!(within.to_end().await.unwrap().end, Some(ExecEnd::Exited(0)));
    second.undefine(vm).await.unwrap();
}

#[tokio::test]
async fn a_paused_machine_is_deleted_whole() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let host = opened(folder.path()).await;
    let vm = running(&host, folder.path(), "sleep 600.9173").await;
    host.pause(vm).await.unwrap();
    host.undefine(vm).await.unwrap();
    assert_eq!(host.state(vm).await.unwrap(), VmState::Missing);
    assert_eq!(processes_with("sleep 600.9173"), Vec::<String>::new());
    assert!(groups(&folder.path().join("machines")).is_empty());
    assert!(host.pause(vm).await.is_err());
}

#[tokio::test]
async fn the_next_run_begins_a_log_of_its_own_and_a_flood_is_bounded() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let host = opened(folder.path()).await;
    let vm = running(&host, folder.path(), "perl -e print(qq(x)x1e6,qq(end))").await;
    let mut followed = host.printed(vm, None, true).await.unwrap();
    let (mut at, mut last) = (0, Vec::new());
    while let Some(chunk) = followed.recv().await {
        let chunk = chunk.unwrap();
        at = chunk.at + chunk.bytes.len() as u64;
        last = chunk.bytes;
    }
    assert_eq!(at, 1_000_003);
    assert!(last.ends_with(b"end"));
    let kept = std::fs::metadata(folder.path().join("machines").join(vm.to_string()).join("run/spool"));
    assert!(kept.unwrap().len() < 300_000);
    host.stop(vm, Duration::ZERO.into()).await.unwrap();
    host.start(vm).await.unwrap();
    let mut again = host.printed(vm, None, true).await.unwrap();
    let mut seen = 0;
    while let Some(chunk) = again.recv().await {
        let chunk = chunk.unwrap();
        seen = chunk.at + chunk.bytes.len() as u64;
    }
    assert_eq!(seen, 1_000_003, "the first run's log is gone");
    host.undefine(vm).await.unwrap();
}
