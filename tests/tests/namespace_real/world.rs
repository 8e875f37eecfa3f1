//! A runner on a data folder of its own, and eyes on the host for what it leaves behind.

use nix::unistd::Pid;
use novacron_agent::attempt::{Admitted, AttemptRunner, Settings};
use novacron_common::{
    ids::{AttemptKey, FireCause, FireKey, JobId},
    record::{AttemptEnd, AttemptReport},
    spec::{CommandTarget, JobTarget, OnLeaseLost, Program, Root},
    units::{ByteCount, Epoch, UnixMillis},
    wire::AttemptStart,
};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Longest that any of these tests waits for a report.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program that stands in for the agent's own.
pub fn exe() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_attempt-driver"))
}

pub struct World {
    pub folder: TempDir,
    pub runner: Arc<AttemptRunner>,
    reports: mpsc::Receiver<AttemptReport>,
}

impl World {
    pub async fn new() -> Self {
        Self::on(TempDir::new().unwrap()).await
    }

    /// A runner on what an earlier one left.
    pub async fn on(folder: TempDir) -> Self {
        Self::with(folder, Settings::new(exe())).await
    }

    pub async fn with(folder: TempDir, settings: Settings) -> Self {
        let runner = Arc::new(AttemptRunner::open(folder.path(), settings).await.unwrap());
        let reports = runner.reports().expect("the first caller gets the channel");
        Self { folder, runner, reports }
    }

    /// Runs a shell script to its end.
    pub async fn sh(&mut self, script: &str) -> AttemptEnd {
        self.run(start(shell(script))).await
    }

    pub async fn run(&mut self, start: AttemptStart) -> AttemptEnd {
        let attempt = start.attempt;
        assert_eq!(self.runner.start(start).await.unwrap(), Admitted::Accepted);
        let report = self.report().await;
        assert_eq!(report.attempt, attempt);
        report.end
    }

    pub async fn report(&mut self) -> AttemptReport {
        let report = tokio::time::timeout(PATIENCE, self.reports.recv()).await;
        report.expect("a report in time").expect("an open channel")
    }

    /// Lets the reports go and checks that nothing of any attempt is left on the host.
    pub async fn leave_no_trace(self) {
        for report in self.runner.unacknowledged().await.unwrap() {
            self.runner.acknowledge(report.attempt).await.unwrap();
        }
        let attempts = self.folder.path().join("attempts");
        let left: Vec<_> = std::fs::read_dir(&attempts)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".instance" && name != "fences" && name != "record.log")
            .collect();
        assert!(left.is_empty(), "left in attempts: {left:?}");
        let groups = groups(&attempts);
        assert!(groups.is_empty(), "left cgroups: {groups:?}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.folder.path().to_str().unwrap();
        assert!(!mounts.contains(here), "left mounts:\n{mounts}");
    }
}

/// The cgroups that belong to a home, in whatever hierarchy.
pub fn groups(home: &Path) -> Vec<PathBuf> {
    let instance = std::fs::read_to_string(home.join(".instance")).unwrap();
    let name = format!("novacron-{}", instance.trim());
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let roots = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
    roots.map(|root| root.join(&name)).filter(|path| path.exists()).collect()
}

/// The command lines of the host's processes that begin with this text.
pub fn processes_with(marker: &str) -> Vec<String> {
    command_lines().into_iter().map(|(_, line)| line).filter(|line| line.starts_with(marker)).collect()
}

/// The ids of those, the lowest first.
pub fn pids_of(marker: &str) -> Vec<Pid> {
    let mut pids: Vec<Pid> = command_lines()
        .into_iter()
        .filter(|(_, line)| line.starts_with(marker))
        .map(|(pid, _)| pid)
        .collect();
    pids.sort_unstable();
    pids
}

fn command_lines() -> Vec<(Pid, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some((Pid::from_raw(pid), String::from_utf8_lossy(&words).replace('\0', " ")))
        })
        .collect()
}

/// What a program needs of the host to run.
pub fn libraries(program: &str) -> Vec<PathBuf> {
    novacron_tests::root_archive::libraries(program).unwrap()
}

/// A process of the host that nothing may hit.
pub struct Bystander(Child);

impl Bystander {
    pub fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Waits until `holds`, or fails.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never happened: {what}");
}

pub fn shell(script: &str) -> CommandTarget {
    CommandTarget {
        program: Program::new(["sh", "-c", script]),
        memory_max: ByteCount::mib(128),
        pids_max: 64,
        cpu_millis: 2000,
        root: Root::Host,
    }
}

/// A start of its own fire.
pub fn start(target: CommandTarget) -> AttemptStart {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let scheduled_at = UnixMillis(NEXT.fetch_add(1, Ordering::Relaxed) * 1000);
    let fire = FireKey { job: JobId::from_u128(7), scheduled_at, cause: FireCause::Schedule };
    AttemptStart {
        attempt: AttemptKey { fire, number: 1 },
        epoch: Epoch(1),
        target: JobTarget::Command(target),
        timeout_ms: 20_000,
        scheduled_at,
        lease: None,
        on_lease_lost: OnLeaseLost::Keep,
        env: Vec::new(),
    }
}
