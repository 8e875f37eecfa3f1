//! Whether a machine is well: its check runs within it, again and again, and what it answers is told.

use crate::{
    place::place,
    world::{eventually, exe, processes_with},
};
use novacron_agent::hypervisor::{Definition, Health, Hypervisor, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    record::HealthState,
    spec::{HealthSpec, HealthTest, StopTerms},
    wire::ExecCommand,
};
use novacron_tests::talk::Talk;
use std::time::Duration;

/// A check that never answers. No other process of the host has these words.
const SILENT: &str = "sleep 600.7007";

fn shell(command: &str) -> HealthSpec {
    HealthSpec {
        test: Some(HealthTest::Shell(command.into())),
        interval_ms: Some(1000),
        timeout_ms: Some(1000),
        retries: Some(2),
        start_period_ms: None,
    }
}

async fn until(host: &Namespace, vm: VmId, wanted: HealthState) -> Health {
    for _ in 0..3000 {
        if let Some(health) = host.health(vm).filter(|health| health.state == wanted) {
            return health;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{vm} is {:?}, and does not become {wanted:?}", host.health(vm));
}

async fn sh(host: &Namespace, vm: VmId, script: &str) -> String {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let session = host.exec(vm, &ExecCommand { argv, ..ExecCommand::default() }).await.unwrap();
    Talk::begun(session).await.unwrap().to_end().await.unwrap().output
}

async fn started(host: &Namespace, wanted: &Definition) {
    host.define(wanted).await.unwrap();
    host.start(wanted.vm).await.unwrap();
}

/// Both stories are mostly waiting, so they are told at once.
#[tokio::test]
async fn a_machine_is_as_well_as_its_check_says_and_is_not_blamed_for_being_held() {
    novacron_tests::require!(root);
    tokio::join!(an_images_check_is_heeded_by_the_next_agent_too(), silence_is_ended_and_a_pause_is_none());
}

async fn an_images_check_is_heeded_by_the_next_agent_too() {
    let mut place = place("#!/bin/sh\nsleep 600\n", &["/bin/sh", "/bin/sleep", "/usr/bin/id"]);
    // As the image's user, and in the machine's own files.
    place.image.run.user = Some("www".into());
    place.image.run.health = shell("id -u >/srv/asked; test -e /srv/well || { echo 'is not' well; exit 3; }");
    let (wanted, mut unasked) = (place.definition(), place.definition());
    unasked.spec.health.test = Some(HealthTest::Off);
    let (host, vm) = (Namespace::open(place.folder.path(), exe()).await.unwrap(), wanted.vm);
    started(&host, &unasked).await;
    started(&host, &wanted).await;
    assert_eq!(host.health(vm), Some(Health { state: HealthState::Starting, word: None }));
    let word = until(&host, vm, HealthState::Unhealthy).await.word.unwrap();
    assert_eq!(word, "unhealthy: its check failed 2 times in a row, at last: exit code 3: is not well");
    assert_eq!(sh(&host, vm, "read uid </srv/asked; echo $uid; echo >/srv/well").await, "33\n");
    assert_eq!(until(&host, vm, HealthState::Healthy).await.word, None);
    drop(host);

    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    assert_eq!(host.health(vm).map(|health| health.state), Some(HealthState::Starting));
    until(&host, vm, HealthState::Healthy).await;
    assert_eq!(host.health(unasked.vm), None);
    host.stop(vm, StopTerms::AT_ONCE).await.unwrap();
    assert_eq!(host.health(vm), None, "nobody is well who does not run");
    host.undefine(vm).await.unwrap();
    host.undefine(unasked.vm).await.unwrap();
}

async fn silence_is_ended_and_a_pause_is_none() {
    let place = place("#!/bin/sh\nsleep 600\n", &["/bin/sh", "/bin/sleep"]);
    let (mut silent, mut held) = (place.definition(), place.definition());
    silent.spec.health = shell(&format!("exec {SILENT}"));
    held.spec.health = HealthSpec { retries: Some(1), ..shell("true") };
    let host = Namespace::open(place.folder.path(), exe()).await.unwrap();
    started(&host, &held).await;
    until(&host, held.vm, HealthState::Healthy).await;
    host.pause(held.vm).await.unwrap();
    started(&host, &silent).await;
    // Twice its interval and its time to answer: as long the other one is held.
    let word = until(&host, silent.vm, HealthState::Unhealthy).await.word.unwrap();
    assert!(word.ends_with("no answer within 1s"), "{word}");
    assert_eq!(host.health(held.vm).map(|health| health.state), Some(HealthState::Healthy));
    host.resume(held.vm).await.unwrap();
    host.undefine(held.vm).await.unwrap();
    host.undefine(silent.vm).await.unwrap();
    eventually("nothing of the check is left", || processes_with(SILENT).is_empty()).await;
}
