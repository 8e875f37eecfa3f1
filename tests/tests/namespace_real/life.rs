//! From start to acknowledged report, through the death of everybody who looks after it.

use crate::world::{World, eventually, exe, groups, processes_with, shell, start};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use novacron_agent::attempt::{Admitted, AttemptError, AttemptRunner, Settings};
use novacron_common::{
    record::AttemptOutcome,
    spec::JobTarget,
    units::Epoch,
    wire::{AttemptStart, Denial, DenialCode},
};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};
use tempfile::TempDir;

#[tokio::test]
async fn exit_codes_and_signals_are_reported_as_they_were() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    for (script, outcome) in [
        ("exit 0", AttemptOutcome::Exited(0)),
        ("exit 42", AttemptOutcome::Exited(42)),
        ("kill -SEGV $$", AttemptOutcome::Signaled(libc::SIGSEGV)),
        ("kill -KILL $$", AttemptOutcome::Signaled(libc::SIGKILL)),
        // Rust's runtime ignores SIGPIPE; the command must not inherit that.
        ("kill -PIPE $$", AttemptOutcome::Signaled(libc::SIGPIPE)),
        ("kill -TERM $$", AttemptOutcome::Signaled(libc::SIGTERM)),
    ] {
        let end = world.sh(script).await;
        assert_eq!(end.outcome, outcome, "{script}");
        assert!(end.started_at.is_some_and(|started| started <= end.ended_at), "{end:?}");
    }
    world.leave_no_trace().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut missing = shell("");
    missing.program.argv = vec!["no-such-program".into()];
    let end = world.run(start(missing)).await;
    let AttemptOutcome::FailedToStart { reason } = &end.outcome else { panic!("{end:?}") };
    assert!(reason.contains("no-such-program") && reason.contains("ENOENT"), "{reason}");
    assert_eq!(end.started_at, None);

    let mut lost = shell("true");
    lost.program.working_dir = Some("/nowhere".into());
    let end = world.run(start(lost)).await;
    let AttemptOutcome::FailedToStart { reason } = &end.outcome else { panic!("{end:?}") };
    assert!(reason.contains("/nowhere"), "{reason}");

    let mut empty = shell("");
    empty.program.argv.clear();
    let refused = world.runner.start(start(empty)).await.unwrap_err();
    assert_eq!(Denial::from(&refused).code, DenialCode::Invalid);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_killed_runner_harms_no_attempt_and_its_successor_reports_the_real_exit() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let mut driver = Command::new(exe())
        .arg("hold")
        .arg(folder.path())
        .args(["sh", "-c", "echo before; sleep 2.9876; echo after; exit 7"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(driver.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "started\n");
    eventually("the command runs", || !processes_with("sleep 2.9876").is_empty()).await;
    driver.kill().unwrap();
    driver.wait().unwrap();

    let mut world = World::on(folder).await;
    assert_eq!(processes_with("sleep 2.9876").len(), 1, "the attempt was harmed");
    assert_eq!(world.runner.running().len(), 1, "it was not adopted");
    let report = world.report().await;
    assert_eq!(report.end.outcome, AttemptOutcome::Exited(7));
    assert_eq!(report.end.output.to_text(), "before\nafter\n");
    assert_eq!(world.runner.unacknowledged().await.unwrap(), [report]);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn an_end_while_nobody_looked_is_still_reported() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = start(shell("exit 9"));
    let attempt = start.attempt;
    world.runner.start(start.clone()).await.unwrap();
    let report = world.report().await;
    let World { folder, runner, .. } = world;
    drop(runner);
    let world = World::on(folder).await;
    assert_eq!(world.runner.unacknowledged().await.unwrap(), [report]);
    world.runner.acknowledge(attempt).await.unwrap();
    assert_eq!(world.runner.unacknowledged().await.unwrap(), []);
    // A command that was under way all that time does not run it again.
    assert_eq!(world.runner.start(start).await.unwrap(), Admitted::AlreadySo);
    world.leave_no_trace().await;
}

fn supervisor_of(folder: &Path, start: &AttemptStart) -> Pid {
    let pid = std::fs::read_to_string(folder.join("attempts").join(start.attempt.to_string()).join("pid"));
    Pid::from_raw(pid.unwrap().trim().parse().unwrap())
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_tree_along_and_the_attempt_is_lost() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = start(shell("(setsid sleep 600.2468 &); sleep 600.2468"));
    world.runner.start(start.clone()).await.unwrap();
    eventually("the command runs", || processes_with("sleep 600.2468").len() == 2).await;
    kill(supervisor_of(world.folder.path(), &start), Signal::SIGKILL).unwrap();
    let report = world.report().await;
    assert_eq!(report.end.outcome, AttemptOutcome::Lost);
    assert_eq!(processes_with("sleep 600.2468"), Vec::<String>::new());
    world.leave_no_trace().await;
}

#[tokio::test]
async fn an_attempt_that_was_lost_while_nobody_looked_is_found_lost() {
    novacron_tests::require!(root);
    let world = World::new().await;
    let start = start(shell("sleep 600.1357"));
    world.runner.start(start.clone()).await.unwrap();
    eventually("the command runs", || !processes_with("sleep 600.1357").is_empty()).await;
    let World { folder, runner, .. } = world;
    let supervisor = supervisor_of(folder.path(), &start);
    drop(runner);
    kill(supervisor, Signal::SIGKILL).unwrap();
    eventually("the tree is gone", || processes_with("sleep 600.1357").is_empty()).await;
    let world = World::on(folder).await;
    let reports = world.runner.unacknowledged().await.unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].end.outcome, AttemptOutcome::Lost);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_signal_that_nobody_ordered_ends_nothing() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let start = start(shell("sleep 1.3579; exit 5"));
    world.runner.start(start.clone()).await.unwrap();
    eventually("the command runs", || !processes_with("sleep 1.3579").is_empty()).await;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        kill(supervisor_of(world.folder.path(), &start), signal).unwrap();
    }
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::Exited(5));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_kill_ends_it_once_and_only_under_its_epoch() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut start = start(shell("trap '' TERM; sleep 600.8642; sleep 600.8642"));
    start.epoch = Epoch(5);
    let attempt = start.attempt;
    let unknown = world.runner.kill(attempt, Epoch(5)).await.unwrap_err();
    assert_eq!(Denial::from(&unknown).code, DenialCode::Unknown);
    world.runner.start(start).await.unwrap();
    let stale = world.runner.kill(attempt, Epoch(4)).await.unwrap_err();
    assert_eq!(Denial::from(&stale).code, DenialCode::StaleEpoch);
    assert_eq!(world.runner.kill(attempt, Epoch(5)).await.unwrap(), Admitted::Accepted);
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::Killed);
    assert_eq!(world.runner.kill(attempt, Epoch(5)).await.unwrap(), Admitted::AlreadySo);
    assert_eq!(processes_with("sleep 600.8642"), Vec::<String>::new());
    world.leave_no_trace().await;
}

#[tokio::test]
async fn one_fire_has_one_living_attempt_and_epochs_only_rise() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut first = start(shell("sleep 600.9753"));
    first.epoch = Epoch(3);
    assert_eq!(world.runner.start(first.clone()).await.unwrap(), Admitted::Accepted);
    assert_eq!(world.runner.start(first.clone()).await.unwrap(), Admitted::AlreadySo);

    let mut second = first.clone();
    (second.attempt.number, second.epoch) = (2, Epoch(4));
    let early = world.runner.start(second.clone()).await.unwrap_err();
    assert!(matches!(early, AttemptError::StillRuns { running: 1, .. }), "{early}");
    world.runner.kill(first.attempt, Epoch(3)).await.unwrap();
    world.report().await;

    second.target = JobTarget::Noop;
    assert_eq!(world.runner.start(second.clone()).await.unwrap(), Admitted::Accepted);
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::Exited(0));
    let stale = world.runner.start(first.clone()).await.unwrap_err();
    assert_eq!(Denial::from(&stale).code, DenialCode::StaleEpoch);
    world.runner.acknowledge(first.attempt).await.unwrap();
    world.runner.acknowledge(second.attempt).await.unwrap();

    // Acknowledged, forgotten, restarted: the epoch is still known.
    let World { folder, runner, .. } = world;
    drop(runner);
    let world = World::on(folder).await;
    let stale = world.runner.start(first).await.unwrap_err();
    assert_eq!(Denial::from(&stale).code, DenialCode::StaleEpoch);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_supervisor_program_that_is_missing_is_a_failed_start() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let runner = AttemptRunner::open(folder.path(), Settings::new("/nowhere/agent")).await.unwrap();
    let mut reports = runner.reports().unwrap();
    assert_eq!(runner.start(start(shell("true"))).await.unwrap(), Admitted::Accepted);
    let report = reports.recv().await.unwrap();
    let AttemptOutcome::FailedToStart { reason } = report.end.outcome else { panic!("{:?}", report.end) };
    assert!(reason.contains("/nowhere/agent"), "{reason}");
    assert!(groups(&folder.path().join("attempts")).is_empty());
}

#[tokio::test]
async fn twenty_at_once_all_end_and_start_fast() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let mut alone = Vec::new();
    for _ in 0..10 {
        let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let end = world.sh("true").await;
        alone.push(end.started_at.unwrap().0 - i64::try_from(began.as_millis()).unwrap());
    }
    alone.sort_unstable();
    println!("start() to running, alone: {alone:?} ms");
    assert!(alone[alone.len() / 2] < 250, "{alone:?}");
    for _ in 0..20 {
        world.runner.start(start(shell("sleep 0.3; echo done"))).await.unwrap();
    }
    for _ in 0..20 {
        let end = world.report().await.end;
        assert_eq!((end.outcome, end.output.to_text().as_str()), (AttemptOutcome::Exited(0), "done\n"));
    }
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_small_text_file_is_handed_on_as_the_result_and_anything_else_is_explained() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let end = world.sh("echo before; printf '{\"rows\": 7}' > $NOVACRON_OUTPUT; exit 3").await;
    assert_eq!((end.outcome, end.result.as_deref()), (AttemptOutcome::Exited(3), Some("{\"rows\": 7}")));
    assert_eq!(end.output.to_text(), "before\n");
    assert_eq!(world.sh("true").await.result, None);
    for (script, word) in [
        ("head -c 20000 /dev/zero > $NOVACRON_OUTPUT", "16384"),
        ("ln -s /etc/hostname $NOVACRON_OUTPUT", "NOVACRON_OUTPUT"),
        ("mkfifo $NOVACRON_OUTPUT", "plain file"),
    ] {
        let end = world.sh(script).await;
        assert_eq!((&end.outcome, &end.result), (&AttemptOutcome::Exited(0), &None), "{script}");
        assert!(end.output.to_text().contains(word), "{script}: {}", end.output.to_text());
    }
    world.leave_no_trace().await;
}

#[tokio::test]
async fn standard_input_is_read_to_its_end_and_is_no_files_business() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let text = "line\n".repeat(3276);
    let mut target = shell("cat | wc -c; readlink /proc/self/fd/0");
    target.program.stdin = Some(text.clone());
    let printed = world.run(start(target)).await.output.to_text();
    assert!(printed.starts_with(&format!("{}\n", text.len())), "{printed}");
    assert!(!printed.contains(world.folder.path().to_str().unwrap()), "{printed}");
    // Nobody has to fill it while the command reads, and nobody minds if it does not.
    let mut unread = shell("exit 6");
    unread.program.stdin = Some(text);
    assert_eq!(world.run(start(unread)).await.outcome, AttemptOutcome::Exited(6));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn each_record_attempt_leaves_one_line() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let starts: Vec<_> =
        (0..20).map(|_| AttemptStart { target: JobTarget::Record, ..start(shell("")) }).collect();
    for start in &starts {
        world.runner.start(start.clone()).await.unwrap();
        assert_eq!(world.runner.start(start.clone()).await.unwrap(), Admitted::AlreadySo);
    }
    for _ in &starts {
        assert_eq!(world.report().await.end.outcome, AttemptOutcome::Exited(0));
    }
    let text = std::fs::read_to_string(world.folder.path().join("attempts/record.log")).unwrap();
    let mut lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), starts.len(), "{text}");
    for start in &starts {
        let fire = start.attempt.fire.to_string();
        let line = lines.iter().find(|line| line[0] == fire).unwrap();
        assert_eq!(line[1..4], ["1", "1", &start.scheduled_at.0.to_string()]);
        assert!(line[4].parse::<i64>().unwrap() > 1_600_000_000_000, "{line:?}");
    }
    world.leave_no_trace().await;
}

#[tokio::test]
async fn an_attempt_whose_folder_went_down_with_the_host_is_reported_lost() {
    novacron_tests::require!(root);
    let world = World::new().await;
    let start = start(shell("sleep 600.4321"));
    world.runner.start(start.clone()).await.unwrap();
    eventually("the command runs", || !processes_with("sleep 600.4321").is_empty()).await;
    let World { folder, runner, .. } = world;
    let supervisor = supervisor_of(folder.path(), &start);
    drop(runner);
    kill(supervisor, Signal::SIGKILL).unwrap();
    eventually("the tree is gone", || processes_with("sleep 600.4321").is_empty()).await;
    // The journal is durable; the folder is not, and a power cut may take it.
    std::fs::remove_dir_all(folder.path().join("attempts").join(start.attempt.to_string())).unwrap();
    let world = World::on(folder).await;
    let reports = world.runner.unacknowledged().await.unwrap();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].attempt, &reports[0].end.outcome), (start.attempt, &AttemptOutcome::Lost));
    world.leave_no_trace().await;
}

#[tokio::test]
async fn more_attempts_than_the_host_takes_are_refused() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let settings = Settings { live_max: 2, ..Settings::new(exe()) };
    let runner = AttemptRunner::open(folder.path(), settings).await.unwrap();
    let mut reports = runner.reports().unwrap();
    let (first, second) = (start(shell("sleep 600.9871")), start(shell("sleep 600.9871")));
    runner.start(first.clone()).await.unwrap();
    runner.start(second.clone()).await.unwrap();
    let denial = Denial::from(&runner.start(start(shell("true"))).await.unwrap_err());
    assert_eq!(denial.code, DenialCode::NoRoom);
    assert!(denial.text.contains("jobs.attempts_max"), "{}", denial.text);
    for attempt in [first.attempt, second.attempt] {
        runner.kill(attempt, Epoch(1)).await.unwrap();
        reports.recv().await.unwrap();
    }
    assert_eq!(runner.start(start(shell("true"))).await.unwrap(), Admitted::Accepted);
    reports.recv().await.unwrap();
}

/// Milliseconds from before the first start command to the first instruction of each attempt, sorted.
async fn until_first_instruction(world: &mut World, starts: Vec<AttemptStart>) -> Vec<f64> {
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let count = starts.len();
    let mut asked = tokio::task::JoinSet::new();
    for start in starts {
        let runner = world.runner.clone();
        asked.spawn(async move { runner.start(start).await.unwrap() });
    }
    assert!(asked.join_all().await.into_iter().all(|answer| answer == Admitted::Accepted));
    let mut took = Vec::new();
    for _ in 0..count {
        let end = world.report().await.end;
        assert_eq!(end.outcome, AttemptOutcome::Exited(0));
        // A command tells its own time; a record's is that of its supervisor, to the millisecond.
        let own = end.output.to_text().trim().parse().ok();
        let by_supervisor = || f64::from(i32::try_from(end.started_at.unwrap().0 % 1_000_000_000).unwrap());
        let since = own.map_or_else(
            || by_supervisor() - (began * 1000.0) % 1_000_000_000.0,
            |own: f64| (own - began) * 1000.0,
        );
        took.push(since);
    }
    took.sort_unstable_by(f64::total_cmp);
    took
}

#[tokio::test]
async fn a_hundred_at_once_all_run() {
    novacron_tests::require!(root);
    let mut world = World::new().await;
    let date = || {
        let mut target = shell("");
        target.program.argv = vec!["date".into(), "+%s.%N".into()];
        start(target)
    };
    let record = || AttemptStart { target: JobTarget::Record, ..start(shell("")) };
    let makers: [(&str, &dyn Fn() -> AttemptStart); 2] = [("command", &date), ("record", &record)];
    for (name, make) in makers {
        let mut alone = Vec::new();
        for _ in 0..9 {
            alone.extend(until_first_instruction(&mut world, vec![make()]).await);
        }
        alone.sort_unstable_by(f64::total_cmp);
        let together = until_first_instruction(&mut world, (0..100).map(|_| make()).collect()).await;
        let (one, all) = (alone[4], (together[50], together[99]));
        println!("{name}: alone p50 {one:.1} ms; 100 at once p50 {:.1} ms, last {:.1} ms", all.0, all.1);
    }
    world.leave_no_trace().await;
}
