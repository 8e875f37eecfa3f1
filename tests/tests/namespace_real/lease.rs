//! Leases: an attempt that is to be killed without one is killed by its own supervisor, whoever else sleeps or is
//! dead; one that is to be kept is not harmed by anything of that.

use crate::world::{World, eventually, exe, processes_with, shell, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_agent::{
    attempt::{AttemptError, Next},
    hypervisor::namespace::lease::BootTime,
};
use novacron_common::{
    record::AttemptOutcome,
    spec::OnLeaseLost,
    units::Epoch,
    wire::{AttemptStart, Denial, DenialCode, Lease, LeasesGranted},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// The drivers' leases: short, but long enough for a busy machine to renew in time.
const LEASE_MS: u64 = 3000;

/// A process that runs an attempt as the agent does, and grants its lease as the leader does.
struct Driver(Child);

impl Driver {
    fn start(data_dir: &Path, policy: &str, script: &str) -> Self {
        let mut driver = Command::new(exe())
            .args(["lease", data_dir.to_str().unwrap(), policy, &LEASE_MS.to_string(), "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(driver.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        Self(driver)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn end(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn beyond_the_lease() {
    tokio::time::sleep(Duration::from_millis(LEASE_MS + 1500)).await;
}

async fn only_outcome(world: &World) -> AttemptOutcome {
    // A supervisor that has written its outcome may still be about to exit.
    eventually("its supervisor has ended", || world.runner.running().is_empty()).await;
    let mut reports = world.runner.unacknowledged().await.unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0).end.outcome
}

#[tokio::test]
async fn an_agent_that_is_stopped_beyond_the_lease_loses_what_is_to_be_killed() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let driver = Driver::start(folder.path(), "kill", "(setsid sleep 600.3001 &); sleep 600.3001; exit 7");
    eventually("the command runs", || processes_with("sleep 600.3001").len() == 2).await;
    // Renewed three times a lease, it outlives its first one.
    beyond_the_lease().await;
    assert_eq!(processes_with("sleep 600.3001").len(), 2, "a lease that was renewed has ended");

    driver.signal(Signal::SIGSTOP);
    eventually("the supervisor has killed it", || processes_with("sleep 600.3001").is_empty()).await;
    driver.signal(Signal::SIGCONT);
    driver.end();
    let world = World::on(folder).await;
    assert_eq!(only_outcome(&world).await, AttemptOutcome::LeaseLost);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn an_agent_that_is_stopped_beyond_the_lease_keeps_what_is_to_be_kept() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let script = format!("sleep {}.3002; echo real; exit 7", LEASE_MS / 1000 + 4);
    let driver = Driver::start(folder.path(), "keep", &script);
    let marker = format!("sleep {}.3002", LEASE_MS / 1000 + 4);
    eventually("the command runs", || processes_with(&marker).len() == 1).await;
    driver.signal(Signal::SIGSTOP);
    beyond_the_lease().await;
    assert_eq!(processes_with(&marker).len(), 1, "the attempt was harmed");
    driver.signal(Signal::SIGCONT);
    driver.end();

    let mut world = World::on(folder).await;
    let end = world.report().await.end;
    assert_eq!((end.outcome, end.output.to_text().as_str()), (AttemptOutcome::Exited(7), "real\n"));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_killed_agent_whose_successor_comes_in_time_loses_nothing_and_the_real_exit_is_reported() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let driver = Driver::start(folder.path(), "kill", "sleep 6.3003; exit 9");
    eventually("the command runs", || processes_with("sleep 6.3003").len() == 1).await;
    driver.end();
    let mut world = World::on(folder).await;
    // A lease that was taken over is due at once; granted, it carries the attempt past its old end.
    let asked_at = BootTime::now();
    let Next::Ask(asked) = world.runner.next_of_leases(asked_at) else { panic!("nothing is due") };
    assert_eq!(asked.len(), 1);
    for _ in 0..8 {
        let granted = LeasesGranted(asked.iter().map(|(attempt, _)| *attempt).collect());
        world.runner.renewed(granted, BootTime::now()).await;
        tokio::time::sleep(Duration::from_millis(LEASE_MS / 4)).await;
    }
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::Exited(9));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_killed_agent_without_a_successor_loses_what_is_to_be_killed() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let driver = Driver::start(folder.path(), "kill", "sleep 600.3004");
    eventually("the command runs", || processes_with("sleep 600.3004").len() == 1).await;
    driver.end();
    assert_eq!(processes_with("sleep 600.3004").len(), 1, "the agent's death alone must not end it");
    eventually("the supervisor has killed it", || processes_with("sleep 600.3004").is_empty()).await;
    let world = World::on(folder).await;
    assert_eq!(only_outcome(&world).await, AttemptOutcome::LeaseLost);
    world.leave_no_trace().await;
}

fn leased(script: &str, duration_ms: u64) -> AttemptStart {
    let (lease, on_lease_lost) = (Some(Lease { duration_ms }), OnLeaseLost::Kill);
    AttemptStart { lease, on_lease_lost, ..start(shell(script)) }
}

#[tokio::test]
async fn nothing_runs_before_a_lease_that_was_asked_for_after_the_start_command() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = leased("echo ran", 60_000);
    let attempt = start.attempt;
    world.runner.start(start).await.unwrap();
    let pid = world.folder.path().join("attempts").join(attempt.to_string()).join("pid");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!pid.exists(), "a supervisor was started without a lease");
    let asked_at = BootTime::now();
    assert_eq!(world.runner.next_of_leases(asked_at), Next::Ask(vec![(attempt, Epoch(1))]));
    world.runner.renewed(LeasesGranted(vec![attempt]), asked_at).await;
    let end = world.report().await.end;
    assert_eq!((end.outcome, end.output.to_text().as_str()), (AttemptOutcome::Exited(0), "ran\n"));

    // A grant that took longer than the lease lasts is worth nothing.
    let start = leased("echo ran", 1000);
    let attempt = start.attempt;
    let asked_at = BootTime::now();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.runner.start(start).await.unwrap();
    world.runner.renewed(LeasesGranted(vec![attempt]), asked_at).await;
    let end = world.report().await.end;
    assert_eq!((end.outcome, end.started_at, end.output.total), (AttemptOutcome::LeaseLost, None, 0));

    // And without any grant it never runs.
    world.runner.start(leased("echo ran", 500)).await.unwrap();
    let end = world.report().await.end;
    assert_eq!((end.outcome, end.started_at, end.output.total), (AttemptOutcome::LeaseLost, None, 0));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_kill_does_not_wait_for_a_lease() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = leased("echo ran", 3_600_000);
    let attempt = start.attempt;
    world.runner.start(start).await.unwrap();
    world.runner.kill(attempt, Epoch(1)).await.unwrap();
    let end = world.report().await.end;
    assert_eq!((end.outcome, end.output.total), (AttemptOutcome::Killed, 0));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_kept_is_refused() {
    novacron_tests::require!(root);
    let world = World::new().await;
    let without = AttemptStart { lease: None, ..leased("true", 1000) };
    for (start, word) in [(without, "on_lease_lost"), (leased("true", 10), "500")] {
        let refused = world.runner.start(start).await.unwrap_err();
        assert!(matches!(refused, AttemptError::Invalid { .. }), "{refused}");
        let denial = Denial::from(&refused);
        assert_eq!(denial.code, DenialCode::Invalid);
        assert!(denial.text.contains(word), "{}", denial.text);
    }
    world.leave_no_trace().await;
}
