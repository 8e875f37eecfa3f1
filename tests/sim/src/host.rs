//! A host: an [`agent`] that admits, reports and renews; supervisors, which live on when the agent crashes; and what is
//! done to them.

mod agent;
mod supervisor;

use crate::{
    executor::{Executor, Machine},
    history::History,
    identities::{host_id, identity},
    moves::{metal::Metal, yard::Moving},
    net::Net,
};
use agent::Agent;
use novacron_agent::hypervisor::namespace::lease::BootTime;
use novacron_common::{
    ids::{AttemptKey, HostId},
    record::AttemptReport,
    spec::OnLeaseLost,
    units::Epoch,
    wire::Lease,
};
use novacron_transport::Endpoint;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// One host; clones are the same.
#[derive(Clone)]
pub struct Host {
    executor: Arc<Executor>,
    history: History,
    net: Net,
    /// Where its agent runs.
    agent: Machine,
    /// Where its supervisors run.
    metal: Machine,
    kept: Arc<Mutex<Kept>>,
    /// Something ended.
    ended: Arc<Notify>,
    /// What runs virtual machines, where there are any.
    moving: Option<Moving>,
}

/// What survives a crash of the agent.
struct Kept {
    up: bool,
    /// Nothing strikes it any more.
    spared: bool,
    incarnation: u64,
    /// The folder of the journal of fences.
    folder: tempfile::TempDir,
    running: BTreeMap<AttemptKey, Running>,
    /// Requests to kill, as they lie in the attempts' folders.
    kills: BTreeSet<AttemptKey>,
    /// Deadlines of leases, where supervisors look for them.
    until: BTreeMap<AttemptKey, BootTime>,
    outcomes: BTreeMap<AttemptKey, AttemptReport>,
}

/// An attempt that runs.
struct Running {
    epoch: Epoch,
    killed: Arc<Notify>,
    terms: Option<(Lease, OnLeaseLost)>,
}

impl Host {
    /// A host whose agent runs on `agent` and whose supervisors run on `metal`; neither runs yet.
    pub fn new(
        (executor, net): (Arc<Executor>, Net),
        history: History,
        agent: Machine,
        metal: Machine,
    ) -> Self {
        let folder = folder();
        let (running, kills, until) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let kept = Kept {
            up: false,
            spared: false,
            incarnation: 0,
            folder,
            running,
            kills,
            until,
            outcomes: BTreeMap::new(),
        };
        let ended = Arc::new(Notify::new());
        let kept = Arc::new(Mutex::new(kept));
        Self { executor, history, net, agent, metal, kept, ended, moving: None }
    }

    /// Gives it what runs virtual machines.
    pub fn equip(&mut self, moving: Moving) {
        self.moving = Some(moving);
    }

    /// What runs virtual machines here.
    pub const fn moving(&self) -> Option<&Moving> {
        self.moving.as_ref()
    }

    /// The hardware that they run on.
    pub fn metal(&self) -> Option<&Arc<Metal>> {
        self.moving.as_ref().map(|moving| &moving.metal)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which host it is.
    pub const fn id(&self) -> HostId {
        host_id(self.agent)
    }

    /// Starts the agent, if it does not run.
    pub fn start(&self) {
        let mut kept = self.kept();
        if std::mem::replace(&mut kept.up, true) {
            return;
        }
        kept.incarnation += 1;
        drop(kept);
        let endpoint = Endpoint::simulated(self.net.attach(self.agent), identity(self.agent));
        self.executor.spawn_on(self.agent, Box::pin(Agent::live(self.clone(), endpoint)));
    }

    /// The agent is killed; its supervisors run on.
    pub fn kill_agent(&self) {
        if std::mem::replace(&mut self.kept().up, false) {
            self.net.detach(self.agent);
            self.executor.crash(self.agent);
            self.moving.iter().for_each(Moving::close);
        }
    }

    /// From now on nothing strikes it at an edge of a move.
    pub fn spare(&self) {
        self.kept().spared = true;
    }

    /// Until it is spared, something may.
    pub fn expose(&self) {
        self.kept().spared = false;
    }

    /// Whether something may strike it at an edge of a move.
    pub fn may_be_struck(&self) -> bool {
        !self.kept().spared
    }

    /// The agent is killed, and started again after a while.
    pub fn kill_agent_for(&self, nanoseconds: u64) {
        self.kill_agent();
        let host = self.clone();
        self.executor.act_in(nanoseconds, Box::new(move || host.start()));
    }

    /// libvirtd is killed, and started again after a while.
    pub fn kill_daemon_for(&self, nanoseconds: u64) {
        let Some(metal) = self.metal().cloned() else { return };
        metal.kill_daemon();
        self.executor.act_in(nanoseconds, Box::new(move || metal.start_daemon()));
    }

    /// The process of one of its guests is killed.
    pub fn kill_a_guest(&self, which: u64) {
        let Some(metal) = self.metal() else { return };
        let guests = metal.domains();
        let chosen = usize::try_from(which).unwrap_or(0) % guests.len().max(1);
        guests.get(chosen).into_iter().for_each(|(vm, _)| metal.kill_process(*vm));
    }

    /// Nothing reaches the agent, and nothing comes from it, until the network is mended or a while is over.
    pub fn cut_off_for(&self, nanoseconds: u64) {
        let others: Vec<Machine> = (0..self.metal).filter(|other| *other != self.agent).collect();
        for other in &others {
            self.net.cut(self.agent, *other);
            self.net.cut(*other, self.agent);
        }
        let (net, agent) = (self.net.clone(), self.agent);
        self.executor.act_in(
            nanoseconds,
            Box::new(move || {
                others.iter().for_each(|other| net.mend_between(agent, *other));
            }),
        );
    }

    /// The host loses its power: the agent and everything that runs is gone, and so is what its journal had not
    /// synced.
    pub fn lose_power(&self) {
        self.kill_agent();
        self.executor.crash(self.metal);
        self.metal().into_iter().for_each(|metal| metal.lose_power());
        let mut kept = self.kept();
        let gone = std::mem::take(&mut kept.running);
        drop(kept);
        self.lose_unsynced();
        gone.keys().for_each(|attempt| self.history.attempt_ended(*attempt));
    }

    /// Only starts are synced; of the acknowledgements after the last of them some are lost.
    fn lose_unsynced(&self) {
        let Ok(journal) = fs::read_to_string(self.journal()) else { return };
        let lines: Vec<&str> = journal.split_inclusive('\n').collect();
        let synced = lines.iter().rposition(|line| !line.ends_with("closed\n")).map_or(0, |last| last + 1);
        let left = synced + self.executor.draw(|rng| rng.below((lines.len() - synced) as u64 + 1)) as usize;
        fs::write(self.journal(), lines[..left].concat()).expect("the journal is cut");
    }

    fn journal(&self) -> PathBuf {
        self.kept().folder.path().join("fences")
    }

    /// The agent stops as by SIGSTOP; its supervisors run on.
    pub fn pause_agent(&self) {
        self.executor.pause(self.agent);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.executor.resume(self.agent);
    }

    /// The machine of its agent.
    pub const fn machine(&self) -> Machine {
        self.agent
    }
}

/// In memory where there is such a place: hundreds of journals are synced thousands of times.
fn folder() -> tempfile::TempDir {
    let made = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    made.expect("a folder for the journal")
}
