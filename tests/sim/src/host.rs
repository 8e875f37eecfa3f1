//! A host: an [`agent`] that admits, reports and renews; supervisors, which live on when the agent crashes; and what is
//! done to them.

mod agent;
mod supervisor;

use crate::{
    executor::{Executor, Machine},
    history::History,
    identities::{host_id, identity},
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
}

/// What survives a crash of the agent.
struct Kept {
    up: bool,
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
        let kept =
            Kept { up: false, incarnation: 0, folder, running, kills, until, outcomes: BTreeMap::new() };
        let ended = Arc::new(Notify::new());
        Self { executor, history, net, agent, metal, kept: Arc::new(Mutex::new(kept)), ended }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> HostId {
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
        }
    }

    /// The host loses its power: the agent and everything that runs is gone, and so is what its journal had not
    /// synced.
    pub fn lose_power(&self) {
        self.kill_agent();
        self.executor.crash(self.metal);
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
