//! The lives of namespace machines: who runs, how one is started, stopped, adopted, and what remains of it.

use super::{
    blanks::Blanks,
    claims::{Claim, Claims, Held, Turns},
    defined::{DEFINITION, Defined},
    health::Bulletin,
    save, upper,
    volumes::Volumes,
};
use crate::hypervisor::{
    ConsoleStream, Halt, HvError, HypervisorEvent, Printed,
    namespace::{
        cgroup::Group,
        exec,
        folder::{Folder, FolderError},
        follow,
        home::Home,
        ids,
        net::{Card, bridge, firewall::Firewall, ports, resolvers::wanted_or_the_hosts},
        process::{ProcessError, Supervisor},
        request::{Isolated, Limits, Lower, Migratable, Origin, Request, Rights, Work},
    },
};
use novacron_common::{
    ids::VmId,
    record::{AttemptEnd, AttemptOutcome, VmState},
    spec::{Mobility, StopTerms},
    units::ByteCount,
    wire::ExecCommand,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, broadcast},
    time::timeout,
};

/// Processes and threads of one machine.
const PIDS_MAX: u32 = 4096;

/// How long the walls may take to stand, and a killed machine to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often a starting machine is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Whom the command of an image runs as that names nobody.
const ROOT: &str = "0";

/// Machines take their id ranges from the upper half, attempts from the lower.
const FIRST_SLOT: u32 = ids::SLOTS / 2;

pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) exe: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) live: Mutex<BTreeMap<VmId, Live>>,
    /// Network cards of machines that have ended, until the next [`Self::tidy`].
    pub(super) left: Mutex<Vec<Card>>,
    pub(super) firewall: tokio::sync::Mutex<Firewall>,
    pub(super) blanks: Arc<Blanks>,
    pub(super) volumes: Volumes,
    /// Locked before `live`, where both are.
    pub(super) claims: Claims,
    pub(super) turns: Turns,
    /// Turns of machines that are asked whether they are well.
    pub(super) asked: Semaphore,
    pub(super) events: broadcast::Sender<HypervisorEvent>,
}

#[derive(Clone)]
pub(super) struct Live {
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) slot: u32,
    pub(super) card: Option<Card>,
    pub(super) health: Arc<Bulletin>,
}

impl Live {
    fn new(supervisor: Supervisor, slot: u32, card: Option<Card>) -> Self {
        Self { supervisor: Arc::new(supervisor), slot, card, health: Arc::default() }
    }
}

impl Shared {
    pub(super) fn live(&self) -> MutexGuard<'_, BTreeMap<VmId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The network cards of the machines that run, or are being started.
    pub(super) fn cards(&self) -> Vec<Card> {
        let (claims, live) = (self.claims.lock(), self.live());
        let starting = claims.iter().filter(|(vm, _)| !live.contains_key(vm)).map(|(_, claim)| &claim.card);
        starting.chain(live.values().map(|machine| &machine.card)).flatten().cloned().collect()
    }

    pub(super) fn folder(&self, vm: VmId) -> Folder {
        self.home.folder(&vm.to_string())
    }

    /// The supervisor's folder; each start makes it anew.
    pub(super) fn run_folder(&self, vm: VmId) -> Folder {
        Folder::at(self.folder(vm).path().join("run"))
    }

    /// One that another build wrote in its own way, or that a crash of the host spoilt, is not known: it is defined anew.
    pub(super) fn defined(&self, vm: VmId) -> Result<Defined, HvError> {
        match self.folder(vm).read(DEFINITION) {
            Ok(Some(defined)) => Ok(defined),
            Ok(None) | Err(FolderError::Bad { .. }) => Err(HvError::Unknown { vm }),
            Err(cause) => Err(HvError::failed(format!("read {vm}"), cause)),
        }
    }

    pub(super) fn known(&self) -> Result<Vec<VmId>, FolderError> {
        let ids = self.home.names()?.into_iter().filter_map(|name| name.parse::<VmId>().ok());
        Ok(ids.filter(|vm| self.defined(*vm).is_ok()).collect())
    }

    pub(super) fn state(&self, vm: VmId) -> VmState {
        if !self.live().contains_key(&vm) {
            // One that is in a checkpoint stands still, too.
            return if self.checkpoint_of(vm).is_suspended() { VmState::Paused } else { VmState::Stopped };
        }
        if self.group(vm).is_frozen() { VmState::Paused } else { VmState::Running }
    }

    pub(super) fn group(&self, vm: VmId) -> Group {
        Group::load(&self.home.group_of(&vm.to_string()))
    }

    /// What lies where our machines lie and is none of them.
    pub(super) fn foreign(&self) -> Result<Vec<String>, FolderError> {
        let is_ours = |name: &str| name.parse::<VmId>().is_ok_and(|vm| self.defined(vm).is_ok());
        Ok(self.home.names()?.into_iter().filter(|name| !is_ours(name)).collect())
    }

    /// Takes for a machine what it needs of what all share, until the result is dropped.
    fn claim(&self, vm: VmId, card: Option<Card>) -> Option<(u32, Held<'_>)> {
        let (mut claims, live) = (self.claims.lock(), self.live());
        let taken: BTreeSet<u32> = live
            .values()
            .map(|machine| machine.slot)
            .chain(claims.values().map(|claim| claim.slot))
            .collect();
        let slot = (FIRST_SLOT..ids::SLOTS).find(|slot| !taken.contains(slot))?;
        claims.insert(vm, Claim { slot, card });
        Some((slot, self.claims.held(vm)))
    }

    pub(super) async fn adopt(self: &Arc<Self>, vm: VmId) {
        let folder = self.run_folder(vm);
        let (slot, card) = match folder.request() {
            Ok(Some(Request { work, .. })) => work
                .isolated()
                .map_or((FIRST_SLOT, None), |isolated| (isolated.id_slot, isolated.card.clone())),
            _ => (FIRST_SLOT, None),
        };
        match Supervisor::adopt(&folder).await {
            Ok(Some(supervisor)) => self.watch(vm, Live::new(supervisor, slot, card)),
            Ok(None) => {}
            Err(error) => tracing::warn!(%vm, %error, "could not adopt a namespace machine"),
        }
    }

    fn watch(self: &Arc<Self>, vm: VmId, machine: Live) {
        self.live().insert(vm, machine.clone());
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = machine.supervisor.ended() => {}
                never = shared.attend(vm, &machine) => match never {},
            }
            shared.note_end(vm, &machine.supervisor);
            shared.tidy().await;
        });
    }

    /// Removes what is left of our cgroups if there is no machine, and what those that ended had of the network.
    pub(super) async fn tidy(&self) {
        self.tidy_groups();
        // Nobody joins a network meanwhile.
        let mut firewall = self.firewall.lock().await;
        let (used, left) = (self.cards(), std::mem::take(&mut *self.left()));
        // A machine that was started again has its card again.
        let gone = left.into_iter().filter(|card| used.iter().all(|other| other.link != card.link));
        for card in gone {
            let shut_out = firewall.dismiss(&card, &used).await;
            if let Err(error) = shut_out.and(bridge::leave(&card, &used)) {
                tracing::warn!(error = error.chain(), "left network links behind");
            }
        }
    }

    /// Nobody begins to start meanwhile, and makes one.
    fn tidy_groups(&self) {
        let claims = self.claims.lock();
        if claims.is_empty() && self.live().is_empty() {
            self.home.sweep_groups(&[]);
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<Card>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called by whoever sees the end first; the second call changes nothing.
    pub(super) fn note_end(&self, vm: VmId, ended: &Arc<Supervisor>) {
        let mut live = self.live();
        if live.get(&vm).is_some_and(|machine| Arc::ptr_eq(&machine.supervisor, ended)) {
            // A supervisor that was killed could not clean up.
            self.home.sweep_group(&vm.to_string());
            self.left().extend(live.remove(&vm).and_then(|machine| machine.card));
            let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        }
    }

    pub(super) async fn start(self: &Arc<Self>, vm: VmId) -> Result<(), HvError> {
        let _turn = self.turns.of(vm).await;
        self.defined(vm)?;
        if self.is_suspended(vm) {
            return Err(HvError::State {
                vm,
                state: VmState::Paused,
                remedy: "restore it, or stop it first",
            });
        }
        self.start_from(vm, Origin::Fresh).await
    }

    /// Whoever calls has the machine's turn. [`Origin::Saved`] is for a migratable machine alone.
    pub(super) async fn start_from(self: &Arc<Self>, vm: VmId, origin: Origin) -> Result<(), HvError> {
        let defined = self.defined(vm)?;
        if self.live().contains_key(&vm) {
            return Ok(());
        }
        let origin = (defined.spec.mobility == Mobility::Migratable).then_some(origin);
        if let Some(why) = origin.and_then(|_| save::obstacle(defined.root.is_some())) {
            return Err(HvError::failed(format!("start {vm}"), why));
        }
        let card = Card::of(&self.home.tag(), vm, &defined.spec.network)
            .map(|card| Card { resolvers: wanted_or_the_hosts(&card.resolvers), ..card });
        let (slot, held) = self
            .claim(vm, card.clone())
            .ok_or_else(|| HvError::failed(format!("start {vm}"), "all id ranges are taken"))?;
        if defined.root.is_some() {
            upper::ensure(vm, self.folder(vm).path(), defined.spec.storage, &self.blanks).await?;
        }
        let volumes = self.bound(vm, &defined.spec.volumes).await?;
        let isolated = Isolated { card: card.clone(), volumes, ..self.isolated(vm, &defined, slot) };
        let launched = self.join_network(vm, card.as_ref()).await.and_then(|()| {
            self.launch(vm, isolated, origin).map_err(|cause| HvError::failed(format!("start {vm}"), cause))
        });
        let supervisor = match launched {
            Ok(supervisor) => supervisor,
            Err(error) => {
                drop(held);
                self.left().extend(card);
                self.tidy().await;
                return Err(error);
            }
        };
        self.watch(vm, Live::new(supervisor, slot, card));
        drop(held);
        let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        let started = self.until_started(vm).await;
        if started.is_err() {
            self.until_gone(vm).await;
        }
        if defined.root.is_some() {
            upper::restock(defined.spec.storage, &self.blanks).await;
        }
        started
    }

    /// What is left of a start that failed ends by itself; the next start must not take it for a machine that runs.
    async fn until_gone(&self, vm: VmId) {
        let Some(Live { supervisor, .. }) = self.live().get(&vm).cloned() else { return };
        if timeout(PATIENCE, supervisor.ended()).await.is_ok() {
            self.note_end(vm, &supervisor);
        }
    }

    async fn join_network(&self, vm: VmId, card: Option<&Card>) -> Result<(), HvError> {
        let Some(card) = card else { return Ok(()) };
        let failed = |cause| HvError::failed(format!("start {vm}"), cause);
        ports::require_free(card).map_err(failed)?;
        let mut firewall = self.firewall.lock().await;
        let others: Vec<Card> = self.cards().into_iter().filter(|other| other.link != card.link).collect();
        firewall.admit(card, &others).await.map_err(failed)?;
        bridge::ensure(card).map_err(failed)
    }

    fn launch(
        &self,
        vm: VmId,
        isolated: Isolated,
        origin: Option<Origin>,
    ) -> Result<Supervisor, ProcessError> {
        self.run_folder(vm).remove()?;
        let work = match origin {
            None => Work::Isolated(isolated),
            Some(origin) => Work::Migratable(Migratable { isolated, origin }),
        };
        let request = Request { claim: None, work, lease: None };
        // Not durable, as nothing of a run outlives the host.
        let folder = Folder::create_loosely(self.run_folder(vm).path(), &request)?;
        Supervisor::start(&self.exe, &folder)
    }

    fn isolated(&self, vm: VmId, defined: &Defined, slot: u32) -> Isolated {
        let Defined { spec, root } = defined;
        // Over the host's root, all that it writes is in memory.
        let scratch = match root {
            None if spec.storage > ByteCount(0) => spec.storage,
            _ => Limits::SCRATCH,
        };
        Isolated {
            program: defined.program(),
            hostname: spec.name.to_string(),
            limits: Limits {
                memory_max: spec.memory,
                pids_max: PIDS_MAX,
                cpu_millis: spec.cpus.saturating_mul(1000),
                scratch_max: scratch,
            },
            lower: match root {
                Some(image) => {
                    Lower::Image { layers: image.layers.clone(), own: upper::path(self.folder(vm).path()) }
                }
                None => Lower::Folder("/".into()),
            },
            user: root.as_ref().map(|image| image.run.user.clone().unwrap_or_else(|| ROOT.to_owned())),
            // The host's own files are nobody's to change, whatever the number.
            rights: if root.is_some() { Rights::Machine } else { Rights::None },
            masked: vec![self.data_dir.clone()],
            cgroup: self.home.group_of(&vm.to_string()),
            id_slot: slot,
            timeout_ms: None,
            card: None,
            volumes: Vec::new(),
        }
    }

    /// Until its command runs, or it is known why not.
    async fn until_started(&self, vm: VmId) -> Result<(), HvError> {
        let folder = self.run_folder(vm);
        let failed = |cause: String| HvError::failed(format!("start {vm}"), cause);
        let looked = timeout(PATIENCE, async {
            loop {
                let is_supervised = self.live().contains_key(&vm);
                match folder.outcome() {
                    Ok(Some(AttemptEnd { outcome: AttemptOutcome::FailedToStart { reason }, .. })) => {
                        return Err(failed(reason));
                    }
                    Ok(None) if !folder.has_started() && !is_supervised => {
                        return Err(failed("its supervisor was killed before it could run".into()));
                    }
                    Ok(None) if !folder.has_started() => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(_) => return Ok(()),
                    Err(error) => return Err(HvError::failed(format!("start {vm}"), error)),
                }
            }
        });
        looked.await.unwrap_or_else(|_| Err(failed("its supervisor does not say that it runs".into())))
    }

    /// The run that is followed is the one of now: another start makes another spool.
    pub(super) fn printed(
        self: &Arc<Self>,
        vm: VmId,
        lines: Option<u32>,
        follow: bool,
    ) -> Result<Printed, HvError> {
        self.defined(vm)?;
        let run = self.live().get(&vm).map(|machine| Arc::clone(&machine.supervisor)).filter(|_| follow);
        let shared = Arc::clone(self);
        let goes_on = move || {
            let live = shared.live();
            let now = live.get(&vm).map(|machine| &machine.supervisor);
            run.as_ref().zip(now).is_some_and(|(run, now)| Arc::ptr_eq(run, now))
        };
        Ok(follow::follow(self.run_folder(vm), lines, goes_on))
    }

    pub(super) async fn exec(
        &self,
        vm: VmId,
        command: &ExecCommand,
    ) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.defined(vm)?;
        let refused = |state, remedy| Err(HvError::State { vm, state, remedy });
        match self.state(vm) {
            VmState::Running => {}
            VmState::Paused => return refused(VmState::Paused, "resume it first"),
            state => return refused(state, "start it first"),
        }
        match exec::launch(&self.exe, &self.run_folder(vm), command).await {
            Ok(socket) => Ok(Box::pin(socket)),
            Err(cause) => Err(HvError::failed(format!("run a command in {vm}"), cause)),
        }
    }

    pub(super) async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        let _turn = self.turns.of(vm).await;
        if self.is_suspended(vm) {
            let gone = self.checkpoint_of(vm).remove();
            gone.map_err(|cause| HvError::failed(format!("stop {vm}"), cause))?;
            return Ok(Halt::Unasked);
        }
        self.end(vm, terms).await
    }

    /// Whoever calls has the machine's turn.
    pub(super) async fn end(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        let defined = self.defined(vm)?;
        let Some(Live { supervisor, .. }) = self.live().get(&vm).cloned() else {
            self.tidy().await;
            return Ok(Halt::WasDown);
        };
        let terms = defined.terms(terms);
        let doing = || format!("stop {vm}");
        let folder = self.run_folder(vm);
        folder.write_kill_request_loosely(terms).map_err(|cause| HvError::failed(doing(), cause))?;
        supervisor.nudge(&folder);
        let ended = timeout(terms.grace().saturating_add(PATIENCE), supervisor.ended()).await;
        ended.map_err(|_| HvError::failed(doing(), "its supervisor does not end"))?;
        self.note_end(vm, &supervisor);
        self.tidy().await;
        Ok(folder.cut().unwrap_or(Halt::OnAsking(terms.signal)))
    }
}
