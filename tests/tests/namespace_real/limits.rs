//! What a command may use, and that it never gets more.

use crate::world::{World, eventually, processes_with, shell, start};
use novacron_agent::hypervisor::namespace::spool::SpoolReader;
use novacron_common::{
    record::{AttemptOutcome, Output},
    units::ByteCount,
};
use std::process::Command;

#[tokio::test]
async fn a_fork_bomb_is_contained() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target = shell("bomb() { bomb | bomb & }; bomb; sleep 60.4711");
    target.pids_max = 24;
    let mut start = start(target);
    start.timeout_ms = 1500;
    let end = world.run(start).await;
    assert!(
        matches!(end.outcome, AttemptOutcome::TimedOut | AttemptOutcome::Exited(1..)),
        "{:?}",
        end.outcome
    );
    assert!(end.output.to_text().contains("[pids limit: "), "{}", end.output.to_text());
    assert!(Command::new("true").status().unwrap().success(), "the host cannot fork");
    assert!(processes_with("sleep 60.4711").is_empty());
    world.leave_no_trace().await;
}

#[tokio::test]
async fn the_pids_limit_counts_the_commands_processes() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let count = r#"$n = 1; while (defined(my $pid = fork)) { if (!$pid) { sleep 60 } $n++ } print "$n\n"; kill 9, -1;"#;
    let mut target = shell("");
    target.program.argv = vec!["perl".into(), "-e".into(), format!("$| = 1; {count}")];
    target.pids_max = 10;
    let end = world.run(start(target)).await;
    assert_eq!(end.output.to_text().trim(), "10", "{:?}", end.outcome);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn want_of_memory_is_reported_as_such() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target = shell("");
    target.program.argv = vec!["perl".into(), "-e".into(), "my $x = 'a' x (400 << 20); print 'done'".into()];
    target.memory_max = ByteCount::mib(64);
    let end = world.run(start(target)).await;
    assert_eq!(end.outcome, AttemptOutcome::OutOfMemory, "{}", end.output.to_text());
    // The same behind a shell, which would exit 137.
    let mut target = shell("perl -e \"my \\$x = 'a' x (400 << 20)\"");
    target.memory_max = ByteCount::mib(64);
    assert_eq!(world.run(start(target)).await.outcome, AttemptOutcome::OutOfMemory);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn temporary_files_count_as_memory_and_are_bounded() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target = shell("head -c 400M /dev/zero > /tmp/file; echo $?");
    target.memory_max = ByteCount::gib(1);
    let end = world.run(start(target)).await;
    let text = end.output.to_text();
    assert!(text.contains("No space left"), "{:?} {text}", end.outcome);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_disk_that_is_full_is_told() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target = shell("yes | head -c 400M > /etc/file || exit 3; exit 3");
    target.memory_max = ByteCount::gib(1);
    let end = world.run(start(target)).await;
    assert_eq!(end.outcome, AttemptOutcome::Exited(3));
    assert!(end.output.to_text().contains("[disk full: "), "{}", end.output.to_text());
    // What fails for another reason is told nothing of it.
    let text = world.sh("exit 3").await.output.to_text();
    assert_eq!(text, "");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn the_cpu_quota_holds() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut target =
        shell("perl -e '$t = time + 2; 1 while time < $t; ($u, $s) = times; printf \"%.2f\", $u + $s'");
    target.cpu_millis = 200;
    let end = world.run(start(target)).await;
    let used: f64 = end.output.to_text().trim().parse().unwrap();
    assert!(used < 1.0, "{used} s of processor time in 1 to 2 s at a fifth of one CPU");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_time_out_ends_daemons_too() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    // Twice forked, in a session of its own, deaf to every signal that can be ignored.
    let script = "setsid sh -c 'trap \"\" TERM HUP INT; (sleep 600.1234 &) ; sleep 600.1234' & \
                  (setsid sleep 600.1234 </dev/null >/dev/null 2>&1 &); echo up; sleep 600.1234";
    let mut start = start(shell(script));
    start.timeout_ms = 1000;
    world.runner.start(start).await.unwrap();
    eventually("the daemons run", || processes_with("sleep 600.1234").len() >= 4).await;
    let report = world.report().await;
    assert_eq!(report.end.outcome, AttemptOutcome::TimedOut);
    assert_eq!(report.end.output.to_text(), "up\n");
    assert_eq!(processes_with("sleep 600.1234"), Vec::<String>::new());
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_daemon_does_not_outlive_its_command() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let end = world.sh("(setsid sleep 600.5678 &); exit 4").await;
    assert_eq!(end.outcome, AttemptOutcome::Exited(4));
    assert_eq!(processes_with("sleep 600.5678"), Vec::<String>::new());
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_million_lines_are_counted_and_head_and_tail_kept() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let end = world.sh("seq 1 1000000; echo to-stderr >&2").await;
    assert_eq!(end.outcome, AttemptOutcome::Exited(0));
    let Output { head, tail, total } = end.output;
    assert_eq!(total, 6_888_896 + 10);
    assert_eq!((head.len(), tail.len()), (Output::PART_MAX, Output::PART_MAX));
    assert!(head.starts_with(b"1\n2\n3\n") && tail.ends_with(b"999999\n1000000\nto-stderr\n"));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn what_is_printed_is_seen_while_it_runs_and_a_flood_costs_no_room() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = start(shell("echo first; sleep 1.7171; seq 1 1000000; echo last"));
    let folder = world.runner.folder(start.attempt);
    world.runner.start(start.clone()).await.unwrap();
    let mut reader = None;
    let mut seen = Vec::new();
    eventually("the first line shows", || {
        reader = reader.take().or_else(|| SpoolReader::open(&folder).unwrap());
        if let Some(reader) = &mut reader {
            seen.extend(reader.next(100).unwrap().1);
        }
        seen == b"first\n"
    })
    .await;
    assert!(world.runner.is_running(start.attempt), "it was shown only at the end");
    let end = world.report().await.end;
    let mut reader = reader.unwrap();
    let (at, bytes) = reader.next(usize::MAX).unwrap();
    assert_eq!(at + bytes.len() as u64, end.output.total);
    assert!(bytes.ends_with(b"999999\n1000000\nlast\n"));
    let room = std::fs::metadata(folder.path().join("spool")).unwrap().len();
    assert!(room < 300 * 1024, "{room} bytes for {} printed", end.output.total);
    world.leave_no_trace().await;
}
