//! The hardware of one host: its libvirtd, its guests and their disks. It lives on when the agent dies.
//!
//! Modelled of libvirt is what a move depends on (see `agent/MIGRATION.md` and the notes in `hypervisor/libvirt`): a copy that
//! arrives is paused, and stays defined once it is complete; a libvirtd that is killed ends what it was copying; and when the
//! reply to Finish is lost the source's libvirtd lets its guest run on.

use super::{copy::Conduit, truth::Truth};
use crate::executor::{Executor, Machine};
use novacron_agent::hypervisor::{HvError, HypervisorEvent};
use novacron_common::{
    ids::{HostId, VmId},
    record::VmState,
};
use novacron_runtime::time::sleep;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{broadcast, watch};

/// Events that may wait.
const EVENTS_MAX: usize = 64;
/// How long a call of libvirt takes, nanoseconds.
const CALL: (u64, u64) = (50_000, 3_000_000);

/// A host's hardware.
pub struct Metal {
    /// The world.
    pub executor: Arc<Executor>,
    /// What is true of its guests.
    pub truth: Truth,
    /// Where what outlives the agent runs.
    pub machine: Machine,
    /// Which host.
    pub host: HostId,
    state: Mutex<State>,
    /// The life of libvirtd; `None` while it is dead.
    daemon: watch::Sender<Option<u64>>,
    /// Raised with each change of a domain.
    changes: watch::Sender<u64>,
    events: broadcast::Sender<HypervisorEvent>,
}

#[derive(Default)]
struct State {
    domains: BTreeMap<VmId, Domain>,
    conduits: BTreeMap<String, Conduit>,
    lives: u64,
    processes: u64,
    loses_last_word: bool,
}

/// What a guest's processors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// There is no process.
    Off,
    /// They run.
    Running,
    /// They are held.
    Paused,
}

/// A domain.
#[derive(Debug, Clone, Copy)]
pub struct Domain {
    /// What it does.
    pub power: Power,
    /// Whether it stays defined when it stops.
    pub persistent: bool,
    /// The process in which its guest runs.
    pub process: u64,
    /// The copy away from here.
    pub job: Option<Job>,
    /// How its memory is, if it is on two hosts.
    pub split: Option<Split>,
    /// Its QEMU waits for the rest of it.
    pub listens: bool,
    /// libvirtd, once it is back, lets it run on.
    interrupted: bool,
}

/// Memory that is on two hosts (post-copy), as one host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The rest follows.
    Flows,
    /// It does not.
    Broken,
    /// All of it is on the other host.
    Over,
}

impl Domain {
    const fn new(power: Power, persistent: bool) -> Self {
        Self { power, persistent, process: 0, job: None, split: None, listens: false, interrupted: false }
    }
}

/// A copy that is under way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Job {
    /// Passes over memory.
    pub passes: u64,
    /// Somebody wants it ended.
    pub aborted: bool,
    /// The guest is held for the rest of it, by libvirt …
    pub switched: bool,
    /// … or by somebody who asked for it.
    pub held: bool,
    /// The guest writes faster than passes help: it leaves only by going over …
    pub stubborn: bool,
    /// … which is asked for.
    pub goes_over: bool,
    /// The target is asked to finish: from here on nobody ends it.
    pub finishing: bool,
}

impl Metal {
    /// A host with nothing on it.
    pub fn new(executor: Arc<Executor>, truth: Truth, machine: Machine, host: HostId) -> Arc<Self> {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let state = Mutex::new(State { lives: 1, ..State::default() });
        let (daemon, changes) = (watch::Sender::new(Some(1)), watch::Sender::new(0));
        Arc::new(Self { executor, truth, machine, host, state, daemon, changes, events })
    }

    /// Whether the link of the next copy from here breaks just as the target says that it has all of the guest.
    pub fn lose_last_word(&self, lose: bool) {
        self.state().loses_last_word = lose;
    }

    /// Once, if it was to.
    pub fn loses_last_word(&self) -> bool {
        std::mem::take(&mut self.state().loses_last_word)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.executor.elapsed()
    }

    /// Draws a time between two, in nanoseconds.
    pub fn draw(&self, (from, to): (u64, u64)) -> Duration {
        Duration::from_nanos(self.executor.draw(|rng| rng.between(from, to)))
    }

    /// A call reaches libvirtd, or fails.
    pub async fn call(&self, doing: &'static str) -> Result<(), HvError> {
        sleep(self.draw(CALL)).await;
        let up = self.daemon.borrow().is_some();
        up.then_some(()).ok_or_else(|| HvError::failed(doing, "libvirtd does not answer"))
    }

    /// Waits until the libvirtd that lives now is dead.
    pub async fn daemon_gone(&self) {
        let life = *self.daemon.borrow();
        let _ = self.daemon.subscribe().wait_for(|now| *now != life).await;
    }

    /// Waits until a guest's process has ended.
    pub async fn process_gone(&self, vm: VmId, process: u64) {
        let mut changes = self.changes();
        let lives = || self.domain(vm).is_some_and(|now| now.process == process && now.power != Power::Off);
        while lives() {
            let _ = changes.changed().await;
        }
    }

    /// A domain as it is now.
    pub fn domain(&self, vm: VmId) -> Option<Domain> {
        self.state().domains.get(&vm).copied()
    }

    /// All of them.
    pub fn domains(&self) -> Vec<(VmId, Domain)> {
        self.state().domains.iter().map(|(vm, domain)| (*vm, *domain)).collect()
    }

    /// What libvirt says of one.
    pub fn seen(&self, vm: VmId) -> VmState {
        match self.domain(vm).map(|domain| domain.power) {
            None => VmState::Missing,
            Some(Power::Off) => VmState::Stopped,
            Some(Power::Running) => VmState::Running,
            Some(Power::Paused) => VmState::Paused,
        }
    }

    /// Changes of any domain.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What libvirt tells unasked.
    pub fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.events.subscribe()
    }

    fn changed(&self, vm: VmId) {
        self.executor.note(&[0x0d0a, self.machine as u64, vm.uuid().as_u128() as u64]);
        tracing::info!(host = %self.host, %vm, domain = ?self.domain(vm), "a domain changed");
        self.changes.send_modify(|version| *version += 1);
        let _ = self.events.send(HypervisorEvent::Changed(vm)); // nobody listens: fine
    }

    /// Makes a domain known, stopped.
    pub fn define(&self, vm: VmId) {
        self.state().domains.entry(vm).or_insert(Domain::new(Power::Off, true));
        self.changed(vm);
    }

    /// Starts a stopped one; says whether it runs.
    pub fn start(&self, vm: VmId) -> bool {
        match self.domain(vm).map(|domain| domain.power) {
            None => return false,
            Some(Power::Off) => {}
            Some(power) => return power == Power::Running,
        }
        self.new_process(vm, Power::Running);
        self.truth.starts(self.host, vm);
        self.changed(vm);
        true
    }

    fn new_process(&self, vm: VmId, power: Power) {
        let mut state = self.state();
        state.processes += 1;
        let process = state.processes;
        if let Some(domain) = state.domains.get_mut(&vm) {
            (domain.process, domain.power, domain.split) = (process, power, None);
        }
    }

    /// Lets a held one run on; says whether it runs.
    pub fn resume(&self, vm: VmId) -> bool {
        let Some(domain) = self.domain(vm) else { return false };
        if domain.power == Power::Paused {
            self.set(vm, |domain| domain.power = Power::Running);
            self.truth.resumes(self.host, vm);
            self.changed(vm);
        }
        domain.power != Power::Off
    }

    /// Holds one that runs.
    pub fn hold(&self, vm: VmId) {
        if self.domain(vm).is_some_and(|domain| domain.power == Power::Running) {
            self.set(vm, |domain| domain.power = Power::Paused);
            self.truth.holds(self.host, vm, self.now());
            self.changed(vm);
        }
    }

    /// Changes a domain that is there.
    pub fn set(&self, vm: VmId, change: impl FnOnce(&mut Domain)) {
        if let Some(domain) = self.state().domains.get_mut(&vm) {
            change(domain);
        }
    }

    /// A guest ends: by itself, because it was asked to, or because its process was killed.
    pub fn end(&self, vm: VmId) {
        let Some(domain) = self.domain(vm).filter(|domain| domain.power != Power::Off) else { return };
        self.truth.ends(self.host, vm, self.now());
        match domain.persistent {
            true => self.set(vm, |domain| (domain.power, domain.split) = (Power::Off, None)),
            false => drop(self.state().domains.remove(&vm)),
        }
        self.changed(vm);
    }

    /// A guest has left, all of it: its process ends, and libvirt knows why.
    pub fn leave(&self, vm: VmId) {
        self.end(vm);
        self.set(vm, |domain| domain.split = Some(Split::Over));
    }

    /// A guest is held for good: from now on it runs elsewhere or nowhere.
    pub fn part(&self, vm: VmId) {
        self.set(vm, |domain| domain.split = Some(Split::Flows));
        self.hold(vm);
    }

    /// A guest that comes from another host runs here from now on, before all of its memory is here.
    pub fn take_over(&self, vm: VmId, from: HostId) {
        self.set(vm, |domain| {
            (domain.power, domain.split) = (Power::Running, Some(Split::Flows));
        });
        self.truth.goes_over([from, self.host], vm);
        self.changed(vm);
    }

    /// Whether the rest of its memory follows, or can be made to.
    pub fn split(&self, vm: VmId) -> Option<Split> {
        self.domain(vm).and_then(|domain| domain.split)
    }

    /// Memory comes for a half that may wait for it.
    pub fn take_up(&self, vm: VmId) {
        if self.domain(vm).is_some_and(|domain| domain.listens) {
            self.flow(vm);
        }
    }

    /// The rest follows again.
    pub fn flow(&self, vm: VmId) {
        self.set(vm, |domain| (domain.split, domain.listens) = (Some(Split::Flows), false));
        self.changed(vm);
    }

    /// It does not follow any more.
    pub fn part_ways(&self, vm: VmId) {
        if self.split(vm) == Some(Split::Flows) {
            self.set(vm, |domain| domain.split = Some(Split::Broken));
            self.changed(vm);
        }
    }

    /// All of a guest's memory has followed it here.
    pub fn complete(&self, vm: VmId) {
        self.set(vm, |domain| domain.split = None);
        self.truth.is_whole(vm);
        self.changed(vm);
    }

    /// Somebody wants a guest ended. One that shuts down needs its memory no more; one that is held for good was not asked.
    pub fn give_up(&self, vm: VmId) {
        self.truth.gives_up(self.host, vm);
        if self.split(vm).is_some() {
            self.truth.forgets(self.host, vm, self.now());
        }
        self.end(vm);
    }

    /// A guest's process is killed.
    pub fn kill_process(&self, vm: VmId) {
        self.truth.excuses(vm);
        self.end(vm);
    }

    /// Cuts a domain's power and forgets it.
    pub fn undefine(&self, vm: VmId) {
        if self.state().domains.remove(&vm).is_some() {
            self.truth.forgets(self.host, vm, self.now());
            self.changed(vm);
        }
    }

    /// A copy begins to arrive.
    ///
    /// # Errors
    /// If there is such a domain.
    pub fn expect(&self, vm: VmId) -> Result<(), String> {
        if self.domain(vm).is_some() {
            return Err(format!("{vm} is defined already"));
        }
        self.state().domains.insert(vm, Domain::new(Power::Paused, false));
        self.new_process(vm, Power::Paused);
        self.changed(vm);
        Ok(())
    }

    /// A copy that is not complete is given up.
    pub fn abandon(&self, vm: VmId) {
        if self.domain(vm).is_some_and(|domain| !domain.persistent) {
            self.undefine(vm);
        }
    }

    /// Where a source's libvirtd finds the way to the target's.
    pub fn lay(&self, uri: String, conduit: Conduit) {
        self.state().conduits.insert(uri, conduit);
    }

    /// Takes the way, if it is there.
    pub fn take(&self, uri: &str) -> Option<Conduit> {
        self.state().conduits.remove(uri)
    }

    /// libvirtd is killed. What arrives here dies with it; what leaves stays.
    pub fn kill_daemon(&self) {
        if self.daemon.send_replace(None).is_none() {
            return;
        }
        for (vm, domain) in self.domains() {
            match domain {
                Domain { persistent: false, .. } => self.undefine(vm),
                Domain { job: Some(job), .. } => {
                    self.truth.excuses(vm);
                    let interrupted = job.switched && !job.held && !job.finishing;
                    self.set(vm, |domain| (domain.job, domain.interrupted) = (None, interrupted));
                    self.part_ways(vm);
                }
                _ => {}
            }
        }
    }

    /// It is started again.
    pub fn start_daemon(&self) {
        if self.daemon.borrow().is_some() {
            return;
        }
        let mut state = self.state();
        state.lives += 1;
        let life = state.lives;
        drop(state);
        self.daemon.send_replace(Some(life));
        for (vm, _) in self.domains().into_iter().filter(|(_, domain)| domain.interrupted) {
            self.set(vm, |domain| domain.interrupted = false);
            self.resume(vm);
        }
        let _ = self.events.send(HypervisorEvent::Resync);
    }

    /// The host loses its power: every process ends. Disks and definitions stay.
    pub fn lose_power(&self) {
        self.executor.crash(self.machine);
        self.kill_daemon();
        self.state().conduits.clear();
        for (vm, _) in self.domains() {
            self.set(vm, |domain| domain.interrupted = false);
            self.kill_process(vm);
        }
        self.start_daemon();
    }
}
