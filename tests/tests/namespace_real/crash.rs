//! Death at any moment of a start: of the agent's side, and of the supervisor.

use crate::world::{World, eventually, exe, processes_with, shell, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_common::record::AttemptOutcome;
use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Moments of death after the first sign of life, in milliseconds: a start takes ten to fifty here.
pub const MOMENTS: [u64; 12] = [0, 1, 2, 4, 6, 8, 11, 15, 20, 30, 45, 70];

#[tokio::test]
async fn a_runner_that_dies_during_a_start_leaves_a_true_account() {
    novacron_tests::require!(root);
    let mut ends = Vec::new();
    for moment in MOMENTS {
        let folder = TempDir::new().unwrap();
        let mut driver = Command::new(exe())
            .arg("hold")
            .arg(folder.path())
            .args(["sh", "-c", "sleep 0.3141; exit 7"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let attempts = folder.path().join("attempts");
        eventually("the runner opened", || attempts.join("fences").exists()).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        driver.kill().unwrap();
        driver.wait().unwrap();

        let world = World::on(folder).await;
        eventually("every attempt has ended", || world.runner.running().is_empty()).await;
        let outcomes: Vec<_> = world
            .runner
            .unacknowledged()
            .await
            .unwrap()
            .into_iter()
            .map(|report| report.end.outcome)
            .collect();
        match outcomes.as_slice() {
            // It had not been accepted; or the request stood and nobody had been started; or it ran to its end.
            [] | [AttemptOutcome::Lost | AttemptOutcome::Exited(7)] => {}
            other => panic!("killed after {moment} ms: {other:?}"),
        }
        assert_eq!(processes_with("sleep 0.3141"), Vec::<String>::new());
        ends.extend(outcomes);
        world.leave_no_trace().await;
    }
    assert!(ends.contains(&AttemptOutcome::Exited(7)), "no attempt survived its runner: {ends:?}");
}

#[tokio::test]
async fn a_supervisor_that_dies_at_any_moment_leaves_nothing_behind() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    for moment in MOMENTS {
        let start = start(shell("(setsid sleep 600.2718 &); sleep 600.2718"));
        let pid = world.folder.path().join("attempts").join(start.attempt.to_string()).join("pid");
        world.runner.start(start).await.unwrap();
        eventually("the supervisor says who it is", || read_pid(&pid).is_some()).await;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        kill(read_pid(&pid).unwrap(), Signal::SIGKILL).unwrap();
        let end = world.report().await.end;
        assert_eq!(end.outcome, AttemptOutcome::Lost, "killed after {moment} ms");
        assert_eq!(processes_with("sleep 600.2718"), Vec::<String>::new());
    }
    world.leave_no_trace().await;
}

pub fn read_pid(path: &Path) -> Option<Pid> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok().map(Pid::from_raw)
}
