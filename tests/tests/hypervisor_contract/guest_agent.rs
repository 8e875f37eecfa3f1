//! Commands inside a machine, through QEMU's own guest agent: the attempt's whole way, from the start command to the
//! report, with real supervisors, libvirt and QEMU.

use super::{Place as _, libvirt::InLab};
use anyhow::{Context as _, Result, ensure};
use novacron_agent::{
    attempt::{AttemptRunner, Settings},
    hypervisor::Hypervisor as _,
};
use novacron_common::{
    ids::{AttemptKey, FireCause, FireKey, JobId, VmId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::{JobTarget, OnLeaseLost, Program, VmCommandTarget},
    units::{Epoch, UnixMillis},
    wire::AttemptStart,
};
use novacron_tests::{guest_image::GuestImage, lab::QemuUser, require};
use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

const VM: VmId = VmId::from_u128(1);
/// Longest that a report is waited for. The guest is emulated, and two processors are shared with others.
const PATIENCE: Duration = Duration::from_secs(180);

struct Runner {
    runner: AttemptRunner,
    reports: mpsc::Receiver<AttemptReport>,
}

impl Runner {
    async fn open(folder: &TempDir, place: &InLab) -> Result<Self> {
        let program = env!("CARGO_BIN_EXE_attempt-driver");
        let libvirt_uri = Some(place.host.libvirt_uri());
        let runner =
            AttemptRunner::open(folder.path(), Settings { libvirt_uri, ..Settings::new(program) }).await?;
        let reports = runner.reports().context("the channel was taken")?;
        Ok(Self { runner, reports })
    }

    async fn run(&mut self, start: AttemptStart) -> Result<AttemptEnd> {
        self.runner.start(start).await?;
        self.report().await
    }

    async fn report(&mut self) -> Result<AttemptEnd> {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await.context("no report")?;
        let report = report.context("the runner is gone")?;
        self.runner.acknowledge(report.attempt).await?;
        Ok(report.end)
    }
}

fn in_machine(vm: VmId, argv: &[&str]) -> AttemptStart {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let scheduled_at = UnixMillis(NEXT.fetch_add(1, Ordering::Relaxed) * 1000);
    let fire = FireKey { job: JobId::from_u128(7), scheduled_at, cause: FireCause::Schedule };
    let env = vec![("GREETING".into(), "it's; $(reboot)".into())];
    let program = Program { env, ..Program::new(argv.iter().copied()) };
    let target = VmCommandTarget { vm: vm.to_string(), program };
    AttemptStart {
        attempt: AttemptKey { fire, number: 1 },
        epoch: Epoch(1),
        target: JobTarget::VmCommand(target),
        timeout_ms: 150_000,
        scheduled_at,
        lease: None,
        on_lease_lost: OnLeaseLost::Keep,
        env: Vec::new(),
    }
}

fn sh(script: &str) -> AttemptStart {
    in_machine(VM, &["/bin/sh", "-c", script])
}

/// Whether a process of this name lives in the guest. Its init collects nobody's children: those that are dead stay listed.
async fn lives(runner: &mut Runner, name: &str) -> Result<bool> {
    let all = runner.run(sh("cat /proc/[0-9]*/stat")).await?.output.to_text();
    ensure!(all.contains("(qemu-ga)"), "no list of processes: {all}");
    let (one, dead) = (format!("({name}) "), format!("({name}) Z"));
    Ok(all.lines().any(|line| line.contains(&one) && !line.contains(&dead)))
}

async fn wait_for_process(runner: &mut Runner, name: &str) -> Result<()> {
    while !lives(runner, name).await? {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_inside_a_machine_through_its_guest_agent() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let place = InLab::with("guest-agent", QemuUser::Root, GuestImage::with_agent()?).await?;
    let definition = place.definition(1).await?;
    place.libvirt.define(&definition).await?;
    let folder = TempDir::new()?;
    let mut runner = Runner::open(&folder, &place).await?;

    let end = runner.run(sh("exit 0")).await?;
    let AttemptOutcome::FailedToStart { reason } = &end.outcome else { anyhow::bail!("stopped: {end:?}") };
    ensure!(reason.contains("does not run"), "{reason}");
    let end = runner.run(in_machine(VmId::from_u128(99), &["/bin/true"])).await?;
    let AttemptOutcome::Declined { reason } = &end.outcome else { anyhow::bail!("elsewhere: {end:?}") };
    ensure!(reason.contains("is not on this host"), "{reason}");

    place.libvirt.start(VM).await?;
    first_word(&mut runner).await?;
    what_it_is_told_and_says(&mut runner).await?;
    it_is_ended_with_all_that_it_started(&mut runner).await?;
    let mut runner = its_end_outlives_the_agent(runner, &folder, &place).await?;
    of_a_flood_both_ends_are_kept_and_nothing_stays_in_the_machine(&mut runner).await?;
    without_a_guest_agent_it_fails_to_start(&mut runner).await
}

/// The machine is only just booting: its agent is waited for, and a try that came too early says so.
async fn first_word(runner: &mut Runner) -> Result<()> {
    for _ in 0..6 {
        let end = runner.run(sh("echo hello")).await?;
        if let AttemptOutcome::FailedToStart { reason } = &end.outcome {
            ensure!(reason.contains("no guest agent answers"), "{reason}");
            continue;
        }
        ensure!(end.outcome == AttemptOutcome::Exited(0), "{end:?}");
        ensure!(end.output.to_text() == "hello\n" && end.result.as_deref() == Some("hello\n"), "{end:?}");
        return Ok(());
    }
    anyhow::bail!("the guest agent never answered")
}

async fn what_it_is_told_and_says(runner: &mut Runner) -> Result<()> {
    let mut start = sh("cat; pwd; echo \"$GREETING $NOVACRON_EPOCH $0\"; echo oh >&2; exit 3");
    let fire = start.attempt.fire;
    let JobTarget::VmCommand(target) = &mut start.target else { anyhow::bail!("another target") };
    target.program.working_dir = Some("/sys/class".into());
    target.program.stdin = Some("from outside\n".into());
    let end = runner.run(start).await?;
    ensure!(end.outcome == AttemptOutcome::Exited(3), "{end:?}");
    // The two streams keep their own order; which comes first is not told.
    let said = end.output.to_text();
    let (out, err) = (said.replace("oh\n", ""), said.matches("oh\n").count());
    ensure!(out == "from outside\n/sys/class\nit's; $(reboot) 1 /bin/sh\n" && err == 1, "{fire}: {said}");
    ensure!(end.result.as_deref() == Some(out.as_str()), "{end:?}");

    let end = runner.run(sh("kill -TERM $$")).await?;
    ensure!(end.outcome == AttemptOutcome::Signaled(15), "{end:?}");
    let end = runner.run(in_machine(VM, &["/nowhere/at-all"])).await?;
    let AttemptOutcome::FailedToStart { reason } = &end.outcome else { anyhow::bail!("{end:?}") };
    ensure!(reason.contains("/nowhere/at-all"), "{reason}");
    Ok(())
}

async fn it_is_ended_with_all_that_it_started(runner: &mut Runner) -> Result<()> {
    let start = sh("echo begun; sleep 1000 & sleep 1000");
    let attempt = start.attempt;
    runner.runner.start(start).await?;
    // Reports come in order of their ends, and this one has not ended.
    wait_for_process(runner, "sleep").await?;
    runner.runner.kill(attempt, Epoch(1)).await?;
    let end = runner.report().await?;
    ensure!(end.outcome == AttemptOutcome::Killed, "{end:?}");
    ensure!(!lives(runner, "sleep").await?, "the child of a killed command lives: {end:?}");

    let end = runner.run(AttemptStart { timeout_ms: 1500, ..sh("sleep 1000") }).await?;
    ensure!(end.outcome == AttemptOutcome::TimedOut, "{end:?}");
    ensure!(!lives(runner, "sleep").await?, "it was given up and not ended: {end:?}");
    Ok(())
}

async fn its_end_outlives_the_agent(mut runner: Runner, folder: &TempDir, place: &InLab) -> Result<Runner> {
    runner.runner.start(sh("sleep 20; echo real; exit 7")).await?;
    wait_for_process(&mut runner, "sleep").await?;
    drop(runner);
    let mut successor = Runner::open(folder, place).await?;
    let end = successor.report().await?;
    ensure!(end.outcome == AttemptOutcome::Exited(7) && end.output.to_text() == "real\n", "{end:?}");
    Ok(successor)
}

/// Far more than libvirt carries in one answer.
async fn of_a_flood_both_ends_are_kept_and_nothing_stays_in_the_machine(runner: &mut Runner) -> Result<()> {
    let end = runner.run(sh("wc -c </init")).await?;
    let init: u64 = end.output.to_text().trim().parse().context("the size of the guest's init")?;
    let copies = usize::try_from((4 << 20) / init + 1)?;
    let script = format!("echo first; cat {}; echo last; echo of it >&2; exit 5", "/init ".repeat(copies));
    let end = runner.run(sh(&script)).await?;
    ensure!(end.outcome == AttemptOutcome::Exited(5), "{:?}", end.outcome);
    let output = &end.output;
    let total = init * copies as u64 + 6 + 5 + 6;
    ensure!(output.total == total, "{} bytes were printed, {} are counted", total, output.total);
    ensure!(output.head.len() == Output::PART_MAX && output.head.starts_with(b"first\n\x7fELF"), "the head");
    let tail = String::from_utf8_lossy(&output.tail);
    let ends_well = tail.ends_with("last\nof it\n") || (tail.contains("of it\n") && tail.ends_with("last\n"));
    ensure!(output.tail.len() == Output::PART_MAX && ends_well, "the tail");
    let end = runner.run(sh("echo /run/novacron-*")).await?;
    // The one of the command that asks, and of no other.
    let said = end.output.to_text();
    ensure!(said.split_whitespace().count() == 1 && said.starts_with("/run/novacron-"), "{said}");
    Ok(())
}

async fn without_a_guest_agent_it_fails_to_start(runner: &mut Runner) -> Result<()> {
    let end = runner.run(AttemptStart { timeout_ms: 2000, ..sh("kill -KILL $PPID; sleep 1000") }).await?;
    ensure!(end.outcome == AttemptOutcome::TimedOut, "{end:?}");
    ensure!(end.output.to_text().contains("may still run in the machine"), "{end:?}");
    let end = runner.run(sh("echo hello")).await?;
    let AttemptOutcome::FailedToStart { reason } = &end.outcome else { anyhow::bail!("{end:?}") };
    ensure!(reason.contains("install qemu-guest-agent"), "{reason}");
    Ok(())
}
