//! A leader whose clock is wrong, with real processes: it says so, fires nothing while it leads, and no tick is lost,
//! whether its clock is mended or another takes over.

use crate::{
    processes::{Api, Process, joined_as},
    support::eventually,
};
use novacron_common::{
    api::{JobView, LedgerView, TickState},
    units::UnixMillis,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// Well beyond the 500 ms at which a clock counts as wrong.
const WRONG_MS: i64 = 2000;
/// Three ticks of the jobs below.
const LOOKED_AT_FOR: Duration = Duration::from_secs(3);

/// A wall clock that can be set, of one process.
struct Clock {
    library: PathBuf,
    skew: PathBuf,
}

impl Clock {
    /// `folder` holds the library that all share, compiled from the source beside this file.
    fn new(folder: &Path, name: &str) -> Self {
        let clock = Self { library: folder.join("skewed_clock.so"), skew: folder.join(name) };
        clock.set(0);
        clock
    }

    fn set(&self, skew_ms: i64) {
        fs::write(&self.skew, skew_ms.to_ne_bytes()).unwrap();
    }

    fn of(&self, name: &str) -> Process {
        let mut process = Process::new(name);
        process.env = vec![("LD_PRELOAD", self.library.clone()), ("NOVACRON_TEST_SKEW", self.skew.clone())];
        process
    }
}

fn compile(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coordinators/skewed_clock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(folder.join("skewed_clock.so"));
    let compiled = compiler.arg(source).output().expect("cc, which also links Rust's programs");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}

/// Three coordinators, each with a clock of its own that is right.
struct Three {
    all: [Process; 3],
    clocks: [Clock; 3],
    api: Api,
    _folder: TempDir,
}

impl Three {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        compile(folder.path());
        let clocks = ["c1", "c2", "c3"].map(|name| Clock::new(folder.path(), name));
        let mut founder = clocks[0].of("c1");
        let printed = founder.output("init", &[]);
        let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &founder);
        founder.run();
        eventually("the founder serves", async || api.write(&founder).await).await;
        let second = joined_as(clocks[1].of("c2"), &founder, &api).await;
        let third = joined_as(clocks[2].of("c3"), &founder, &api).await;
        let three = Self { all: [founder, second, third], clocks, api, _folder: folder };
        let voters = async || {
            let view = three.api.cluster(&three.all[0]).await;
            view.is_some_and(|view| view.coordinators.iter().filter(|c| c.voter).count() == 3)
        };
        eventually("all three vote", voters).await;
        three
    }

    /// The index of the one that leads.
    async fn leader(&self) -> usize {
        let view = self.api.cluster(&self.all[0]).await.unwrap();
        let leader = view.coordinators.iter().find(|c| c.leader).unwrap().node;
        usize::try_from(leader).unwrap() - 1
    }

    /// Whose clock is said to be wrong, by every coordinator.
    async fn alarms(&self) -> Vec<Vec<u64>> {
        let mut alarms = Vec::new();
        for one in &self.all {
            let view = self.api.cluster(one).await;
            alarms.push(view.map_or(Vec::new(), |view| view.alarms.iter().map(|alarm| alarm.node).collect()));
        }
        alarms
    }

    async fn until_alarm(&self, of: &[u64]) {
        eventually("everybody knows whose clock is wrong", async || {
            self.alarms().await.iter().all(|known| known == of)
        })
        .await;
    }

    /// A job that is due each second and needs no host.
    async fn job(&self, name: &str, misfire: Value) -> Watched<'_> {
        let body =
            json!({"name": name, "schedule": "* * * * * *", "target": {"type": "noop"}, "misfire": misfire});
        let made: JobView = self.api.post(&self.all[1], "/api/v1/jobs", &body).await.unwrap();
        Watched { three: self, path: format!("/api/v1/jobs/{}", made.id) }
    }
}

/// A job whose ledger is read.
struct Watched<'a> {
    three: &'a Three,
    path: String,
}

impl Watched<'_> {
    async fn ledger(&self) -> LedgerView {
        let (api, from) = (&self.three.api, &self.three.all[2]);
        api.get(from, &format!("{}/ledger?n=1000", self.path)).await.unwrap()
    }

    /// How many ticks fired.
    async fn fired(&self) -> u64 {
        let fired = self.ledger().await.ticks;
        fired.iter().filter(|entry| entry.tick == TickState::Fired).map(|entry| entry.count).sum()
    }

    async fn until_fires(&self, more: u64) {
        let before = self.fired().await;
        eventually("it fires", async || self.fired().await >= before + more).await;
    }

    /// Every second between the first and the last tick has its one entry. Its entries that are no fires.
    async fn without_gap(&self) -> u64 {
        let mut ticks = self.ledger().await.ticks;
        ticks.reverse();
        let mut next: Option<UnixMillis> = None;
        for entry in &ticks {
            assert!(
                next.is_none_or(|next| next == entry.from),
                "a gap or a double before {entry:?}: {ticks:?}"
            );
            let seconds = entry.until.since(entry.from).as_secs();
            assert_eq!(seconds + 1, entry.count, "{entry:?}");
            next = Some(UnixMillis(entry.until.0 + 1000));
        }
        ticks.iter().filter(|entry| entry.tick != TickState::Fired).map(|entry| entry.count).sum()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_is_wrong_fires_nothing_and_no_tick_is_lost() {
    let three = Three::start().await;
    let all = three.job("all", json!({"policy": "all"})).await;
    let punctual = three.job("punctual", json!({"policy": "all", "window": "1s"})).await;
    all.until_fires(2).await;

    // Ahead, and mended.
    let leader = three.leader().await;
    let number = u64::try_from(leader).unwrap() + 1;
    three.clocks[leader].set(WRONG_MS);
    three.until_alarm(&[number]).await;
    let before = all.fired().await;
    tokio::time::sleep(LOOKED_AT_FOR).await;
    assert_eq!(all.fired().await, before, "it fired by a wrong clock");
    assert_eq!(three.leader().await, leader, "another leads: nothing was shown");
    three.clocks[leader].set(0);
    three.until_alarm(&[]).await;
    all.until_fires(2).await;
    assert_eq!(all.without_gap().await, 0, "every tick was to fire");

    // Behind, and another leads instead.
    three.clocks[leader].set(-WRONG_MS);
    three.until_alarm(&[number]).await;
    let before = all.fired().await;
    tokio::time::sleep(LOOKED_AT_FOR).await;
    assert_eq!(all.fired().await, before, "it fired by a wrong clock");
    let to = json!({"to": format!("c{}", (leader + 1) % 3 + 1)});
    three.api.post::<_, Value>(&three.all[leader], "/api/v1/cluster/transfer", &to).await.unwrap();
    all.until_fires(5).await;
    assert_eq!(three.alarms().await, vec![vec![number]; 3], "its clock is still wrong");
    assert_eq!(all.without_gap().await, 0, "every tick was to fire");
    // This one wants none that is late by more than a second: those are missed, and said to be.
    assert!(punctual.without_gap().await >= 2, "{:?}", punctual.ledger().await);
}
