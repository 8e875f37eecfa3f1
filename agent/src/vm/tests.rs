//! Machines and their tasks over the fake hypervisor.

use super::{
    Entry, Files, FilesError, Hypervisors, Machines, MachinesParts, SHELF, VmRecord, decide,
    record::ledger_key,
};
use crate::{
    hypervisor::{
        Health, Hypervisor as _, MachineFiles,
        fake::{Fake, Manners},
    },
    ledger::AgentLedger,
};
use futures_util::FutureExt as _;
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{HealthState, VmAction, VmAssignment, VmObservation, VmState},
    spec::{MachineKind, RestartPolicy, Signal, StopTerms, VmSpec},
    units::{Epoch, Generation},
    wire::{AgentReply, Denial, DenialCode, VmAct},
};
use std::{collections::BTreeSet, sync::Arc};

struct NoFiles;

#[async_trait::async_trait]
impl Files for NoFiles {
    async fn prepare(&self, _: VmId, _: &VmSpec) -> Result<MachineFiles, FilesError> {
        Ok(MachineFiles::bare("/x"))
    }

    async fn remove(&self, _: VmId) -> Result<(), FilesError> {
        Ok(())
    }
}

/// The machines of a ledger, over a hypervisor that knows none yet.
pub(super) fn adopt(ledger: &AgentLedger) -> (Machines, Arc<Fake>) {
    let fake = Arc::new(Fake::new(MachineKind::Kvm));
    (adopt_over(ledger, &fake), fake)
}

fn adopt_over(ledger: &AgentLedger, fake: &Arc<Fake>) -> Machines {
    adopt_while(ledger, fake, &BTreeSet::new())
}

fn adopt_while(ledger: &AgentLedger, fake: &Arc<Fake>, under_way: &BTreeSet<MigrationId>) -> Machines {
    let parts = MachinesParts {
        shelf: ledger.shelf(SHELF).unwrap(),
        hypervisors: Hypervisors { kvm: Some(fake.clone()), namespace: None },
        files: Arc::new(NoFiles),
        board: Arc::default(),
        bridge: "br".into(),
    };
    Machines::adopt(parts, under_way).unwrap()
}

pub(super) async fn until(what: impl AsyncFn() -> bool) {
    while !what().await {
        tokio::task::yield_now().await;
    }
}

const MIGRATION: MigrationId = MigrationId::from_u128(9);

fn order(epoch: u64, action: VmAction) -> VmAssignment {
    VmAssignment { epoch: Epoch(epoch), ..decide::tests::assignment(action) }
}

/// One machine that runs.
async fn running(folder: &tempfile::TempDir) -> (AgentLedger, Machines, Arc<Fake>, VmId) {
    let ledger = AgentLedger::open(folder.path()).unwrap();
    let (machines, fake) = adopt(&ledger);
    let ask = order(1, VmAction::Run);
    let vm = ask.vm;
    assert_eq!(machines.assign(ask).await, AgentReply::Accepted);
    let ran = async || {
        let entry = ledger.shelf::<Entry>(SHELF).unwrap().get(&ledger_key(vm)).unwrap();
        matches!(entry, Some(Entry::Held(VmRecord { ran: true, .. })))
    };
    until(ran).await;
    (ledger, machines, fake, vm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_its_hosts_before_its_hypervisor_was_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = AgentLedger::open(folder.path()).unwrap();
    let (vm, fake) = (decide::tests::assignment(VmAction::Run).vm, Arc::new(Fake::new(MachineKind::Kvm)));
    ledger
        .shelf::<Entry>(SHELF)
        .unwrap()
        .put(&ledger_key(vm), &Entry::Held(VmRecord::new(order(1, VmAction::Run))))
        .unwrap();
    fake.fail_next("state");
    let machines = adopt_over(&ledger, &fake);
    assert!(machines.holds(vm).await.unwrap());
    assert!(!machines.holds(VmId::from_u128(77)).await.unwrap());
    machines.left(vm, Epoch(2)).await.unwrap();
    assert!(!machines.holds(vm).await.unwrap(), "it went elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_halted_for_a_move_that_failed_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    machines.lend(vm, MIGRATION, Epoch(1)).await.unwrap();
    fake.turn(vm, VmState::Stopped).unwrap();
    machines.give_back(vm, MIGRATION, true).await.unwrap();
    until(async || fake.state(vm).await.unwrap() == VmState::Running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_to_a_migration_that_is_not_under_way_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, machines, fake, vm) = running(&folder).await;
    machines.lend(vm, MIGRATION, Epoch(1)).await.unwrap();
    drop(machines);
    let stop = VmAssignment { generation: Generation(9), ..order(1, VmAction::Stop(StopTerms::AT_ONCE)) };
    let machines = adopt_while(&ledger, &fake, &BTreeSet::from([MIGRATION]));
    assert!(matches!(machines.assign(stop.clone()).await, AgentReply::Denied(_)), "it moves");
    drop(machines);
    drop(adopt_while(&ledger, &fake, &BTreeSet::from([MigrationId::from_u128(10)])));
    let machines = adopt_while(&ledger, &fake, &BTreeSet::from([MIGRATION]));
    assert_eq!(machines.assign(stop).await, AgentReply::Accepted, "that it was given back was written down");
    until(async || fake.state(vm).await.unwrap() == VmState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_held_under_its_epoch_only_and_never_while_it_moves() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    let code = |denied: Result<(), Denial>| denied.unwrap_err().code;
    assert_eq!(code(machines.act(vm, Epoch(2), VmAct::Pause).await), DenialCode::StaleEpoch);
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Running);
    machines.act(vm, Epoch(1), VmAct::Pause).await.unwrap();
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Paused);
    // A move has the last word on whether the guest runs.
    machines.lend(vm, MIGRATION, Epoch(1)).await.unwrap();
    assert_eq!(code(machines.act(vm, Epoch(1), VmAct::Resume).await), DenialCode::Conflict);
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Paused);
    machines.give_back(vm, MIGRATION, false).await.unwrap();
    machines.act(vm, Epoch(1), VmAct::Resume).await.unwrap();
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Running);
    // What a signal ends has ended by itself.
    machines.act(vm, Epoch(1), VmAct::Signal(Signal::Kill)).await.unwrap();
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Stopped);
    assert_eq!(code(machines.act(VmId::from_u128(77), Epoch(1), VmAct::Pause).await), DenialCode::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_powers_off_while_it_moves_stays_off() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    machines.lend(vm, MIGRATION, Epoch(1)).await.unwrap();
    fake.turn(vm, VmState::Stopped).unwrap();
    machines.give_back(vm, MIGRATION, false).await.unwrap();
    until(async || machines.board().of(vm).is_some_and(|seen| seen.state == VmState::Stopped)).await;
    assert_eq!(machines.assign(order(1, VmAction::Run)).await, AgentReply::AlreadySo);
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_done_is_forgotten_once_it_has_come_about() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    let seen = |state| machines.board().of(vm).is_some_and(|seen| seen.state == state);
    fake.fail_next("stop");
    assert_eq!(machines.assign(order(2, VmAction::Stop(StopTerms::AT_ONCE))).await, AgentReply::Accepted);
    // The event tells the task to look.
    until(async || {
        fake.turn(vm, VmState::Running).unwrap();
        fake.turn(vm, VmState::Stopped).unwrap();
        seen(VmState::Stopped)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_stopped_says_whether_it_ended_by_itself_until_it_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    let says = async |state, word: Option<&str>| {
        let said = |seen: VmObservation| seen.state == state && seen.message.as_deref() == word;
        until(async || machines.board().of(vm).is_some_and(said)).await;
    };
    let stop = |generation| wish(generation, VmAction::Stop(StopTerms::within_ms(20)));
    assert_eq!(machines.assign(stop(2)).await, AgentReply::Accepted);
    says(VmState::Stopped, Some("shut down when asked")).await;
    assert_eq!(machines.assign(wish(3, VmAction::Run)).await, AgentReply::Accepted);
    says(VmState::Running, None).await;
    fake.set_manners(Manners::Deaf);
    assert_eq!(machines.assign(stop(4)).await, AgentReply::Accepted);
    says(VmState::Stopped, Some("power cut: the guest had not shut down 20ms after it was asked")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_unhealthy_says_why_and_is_started_anew_if_it_is_to_be_kept_up() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    let says = async |health: Option<HealthState>, word: Option<&str>| {
        let said = |seen: VmObservation| {
            (seen.state, seen.health) == (VmState::Running, health) && seen.message.as_deref() == word
        };
        until(async || machines.board().of(vm).is_some_and(said)).await;
    };
    let ill = || Health { state: HealthState::Unhealthy, word: Some("it coughs".into()) };
    says(None, None).await;
    fake.find(vm, Health { state: HealthState::Healthy, word: None }).unwrap();
    says(Some(HealthState::Healthy), None).await;
    fake.find(vm, ill()).unwrap();
    says(Some(HealthState::Unhealthy), Some("it coughs")).await;
    assert_eq!(fake.health(vm), Some(ill()), "it was stopped, and is to be left as it is");

    let mut keep = wish(2, VmAction::Run);
    keep.spec.restart = RestartPolicy::Always;
    assert_eq!(machines.assign(keep).await, AgentReply::Accepted);
    says(None, None).await;
    assert_eq!(fake.health(vm), None, "it was stopped");
}

/// The next wish.
fn wish(generation: u64, action: VmAction) -> VmAssignment {
    VmAssignment { generation: Generation(generation), ..order(1, action) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_powered_off_unseen_is_started_when_its_user_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    fake.turn(vm, VmState::Stopped).unwrap();
    let stopped = |seen: VmObservation| seen.state == VmState::Stopped && seen.ran;
    until(async || machines.board().of(vm).is_some_and(stopped)).await;
    assert_eq!(machines.assign(wish(2, VmAction::Run)).await, AgentReply::Accepted);
    until(async || fake.state(vm).await.unwrap() == VmState::Running).await;
    let heard = |seen: VmObservation| seen.state == VmState::Running && seen.generation == Generation(2);
    until(async || machines.board().of(vm).is_some_and(heard)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_deleted_is_not_made_anew_by_an_order_from_before() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, fake, vm) = running(&folder).await;
    assert_eq!(machines.assign(wish(2, VmAction::Delete)).await, AgentReply::Accepted);
    until(async || fake.state(vm).await.unwrap() == VmState::Missing).await;
    // Both orders come once more, as on a connection that was repeated.
    let _again = machines.assign(wish(2, VmAction::Delete)).await;
    assert!(matches!(machines.assign(wish(1, VmAction::Run)).await, AgentReply::Denied(_)));
    assert_eq!(fake.state(vm).await.unwrap(), VmState::Missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_hears_that_a_higher_epoch_has_settled_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_ledger, machines, _fake, vm) = running(&folder).await;
    machines.lend(vm, MIGRATION, Epoch(1)).await.unwrap();
    let settled = machines.settled(vm, MIGRATION);
    tokio::pin!(settled);
    assert!(settled.as_mut().now_or_never().is_none());
    machines.settled(vm, MigrationId::from_u128(8)).await.unwrap();
    assert!(settled.as_mut().now_or_never().is_none(), "that was another migration");
    assert_eq!(machines.assign(order(2, VmAction::Run)).await, AgentReply::Accepted);
    settled.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_question_is_answered_however_soon_the_machines_task_ends() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = AgentLedger::open(folder.path()).unwrap();
    let (machines, _fake) = adopt(&ledger);
    for _ in 0..20_000 {
        assert_eq!(machines.holds(VmId::from_u128(9)).await, Ok(false));
    }
}
