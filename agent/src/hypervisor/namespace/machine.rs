//! Long-lived machines made of namespaces: the hypervisor port over supervisors. This is its first form: the root
//! is the host's, there is no network and no console, and a machine cannot move.

use super::{
    cgroup::Group,
    folder::{Folder, FolderError},
    home::{Home, HomeError},
    ids,
    process::{ProcessError, Supervisor},
    request::{Isolated, KillRequest, Limits, PATH, Request},
};
use crate::hypervisor::{
    Capabilities, ConsoleStream, Definition, HvError, Hypervisor, HypervisorEvent, Listed, Usage,
};
use async_trait::async_trait;
use novacron_common::{
    ids::VmId,
    record::{Accel, AttemptEnd, AttemptOutcome, VmState},
    spec::{MachineKind, Root, VmSpec},
    units::ByteCount,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::broadcast, time::timeout};

const EVENTS_MAX: usize = 64;

/// Processes and threads of one machine.
const PIDS_MAX: u32 = 4096;

/// How long the walls may take to stand, and a killed machine to be gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often a starting machine is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The record in a machine's folder that makes it known.
const DEFINITION: &str = "definition";

/// Machines take their id ranges from the upper half, attempts from the lower.
const FIRST_SLOT: u32 = ids::SLOTS / 2;

/// Namespace machines on this host.
pub struct Namespace {
    shared: Arc<Shared>,
}

struct Shared {
    home: Home,
    exe: PathBuf,
    data_dir: PathBuf,
    live: Mutex<BTreeMap<VmId, Live>>,
    /// One machine is started or stopped at a time: two starts of one machine must not both find it stopped.
    turn: tokio::sync::Mutex<()>,
    events: broadcast::Sender<HypervisorEvent>,
}

#[derive(Clone)]
struct Live {
    supervisor: Arc<Supervisor>,
    slot: u32,
}

impl Namespace {
    /// Opens the machines below `data_dir`, and adopts those that run. `exe` is the program that is run as
    /// `exe supervise FOLDER`.
    ///
    /// # Errors
    /// [`HomeError`] if the folder cannot be used.
    pub async fn open(data_dir: &Path, exe: PathBuf) -> Result<Self, HomeError> {
        let home = Home::open(data_dir.join("machines"))?;
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            home,
            exe,
            data_dir: data_dir.to_owned(),
            live: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            events,
        });
        for vm in shared.known()? {
            shared.adopt(vm).await;
        }
        let keep: Vec<String> = shared.live().keys().map(ToString::to_string).collect();
        shared.home.sweep_groups(&keep);
        Ok(Self { shared })
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, BTreeMap<VmId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, vm: VmId) -> Folder {
        self.home.folder(&vm.to_string())
    }

    /// The supervisor's folder; each start makes it anew.
    fn run_folder(&self, vm: VmId) -> Folder {
        Folder::at(self.folder(vm).path().join("run"))
    }

    fn spec(&self, vm: VmId) -> Result<VmSpec, HvError> {
        let found = self.folder(vm).read(DEFINITION);
        found.map_err(|cause| HvError::failed(format!("read {vm}"), cause))?.ok_or(HvError::Unknown { vm })
    }

    fn known(&self) -> Result<Vec<VmId>, FolderError> {
        let ids = self.home.names()?.into_iter().filter_map(|name| name.parse::<VmId>().ok());
        Ok(ids.filter(|vm| self.spec(*vm).is_ok()).collect())
    }

    fn state(&self, vm: VmId) -> VmState {
        if !self.live().contains_key(&vm) {
            return VmState::Stopped;
        }
        if self.group(vm).is_frozen() { VmState::Paused } else { VmState::Running }
    }

    fn group(&self, vm: VmId) -> Group {
        Group::load(&self.home.group_of(&vm.to_string()))
    }

    /// What lies where our machines lie and is none of them.
    fn foreign(&self) -> Result<Vec<String>, FolderError> {
        let is_ours = |name: &str| name.parse::<VmId>().is_ok_and(|vm| self.spec(vm).is_ok());
        Ok(self.home.names()?.into_iter().filter(|name| !is_ours(name)).collect())
    }

    fn free_slot(&self) -> Option<u32> {
        let live = self.live();
        (FIRST_SLOT..ids::SLOTS).find(|slot| live.values().all(|machine| machine.slot != *slot))
    }

    async fn adopt(self: &Arc<Self>, vm: VmId) {
        let folder = self.run_folder(vm);
        let slot = folder.request().ok().flatten().and_then(|r| r.isolated).map_or(FIRST_SLOT, |i| i.id_slot);
        match Supervisor::adopt(&folder).await {
            Ok(Some(supervisor)) => self.watch(vm, Live { supervisor: Arc::new(supervisor), slot }),
            Ok(None) => {}
            Err(error) => tracing::warn!(%vm, %error, "could not adopt a namespace machine"),
        }
    }

    fn watch(self: &Arc<Self>, vm: VmId, machine: Live) {
        self.live().insert(vm, machine.clone());
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            machine.supervisor.ended().await;
            shared.note_end(vm, &machine.supervisor);
            if let Ok(_turn) = shared.turn.try_lock() {
                shared.tidy();
            }
        });
    }

    /// Removes what is left of our cgroups if no machine runs. Only in a turn: a machine that is being started
    /// has a group before it is in `live`.
    fn tidy(&self) {
        if self.live().is_empty() {
            self.home.sweep_groups(&[]);
        }
    }

    /// Called by whoever sees the end first; the second call changes nothing.
    fn note_end(&self, vm: VmId, ended: &Arc<Supervisor>) {
        let mut live = self.live();
        if live.get(&vm).is_some_and(|machine| Arc::ptr_eq(&machine.supervisor, ended)) {
            // A supervisor that was killed could not clean up.
            self.home.sweep_group(&vm.to_string());
            live.remove(&vm);
            let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        }
    }

    async fn start(self: &Arc<Self>, vm: VmId) -> Result<(), HvError> {
        let _turn = self.turn.lock().await;
        let spec = self.spec(vm)?;
        if self.live().contains_key(&vm) {
            return Ok(());
        }
        let slot = self
            .free_slot()
            .ok_or_else(|| HvError::failed(format!("start {vm}"), "all id ranges are taken"))?;
        let supervisor =
            self.launch(vm, &spec, slot).map_err(|cause| HvError::failed(format!("start {vm}"), cause))?;
        self.watch(vm, Live { supervisor: Arc::new(supervisor), slot });
        let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        self.until_started(vm).await
    }

    fn launch(&self, vm: VmId, spec: &VmSpec, slot: u32) -> Result<Supervisor, ProcessError> {
        let isolated = self.isolated(vm, spec, slot);
        self.run_folder(vm).remove()?;
        let request = Request { claim: None, isolated: Some(isolated) };
        let folder = Folder::create(self.run_folder(vm).path(), &request)?;
        Supervisor::start(&self.exe, &folder)
    }

    fn isolated(&self, vm: VmId, spec: &VmSpec, slot: u32) -> Isolated {
        let scratch = if spec.storage == ByteCount(0) { Limits::SCRATCH } else { spec.storage };
        let words = spec.cmdline.as_deref().unwrap_or_default().split_ascii_whitespace();
        Isolated {
            argv: words.map(str::to_owned).collect(),
            env: vec![("PATH".into(), PATH.into())],
            working_dir: None,
            hostname: spec.name.to_string(),
            limits: Limits {
                memory_max: spec.memory,
                pids_max: PIDS_MAX,
                cpu_millis: spec.cpus.saturating_mul(1000),
                scratch_max: scratch,
            },
            root: Root::Host,
            masked: vec![self.data_dir.clone()],
            cgroup: self.home.group_of(&vm.to_string()),
            id_slot: slot,
            timeout_ms: None,
        }
    }

    /// Until its command runs, or it is known why not.
    async fn until_started(&self, vm: VmId) -> Result<(), HvError> {
        let folder = self.run_folder(vm);
        let failed = |cause: String| HvError::failed(format!("start {vm}"), cause);
        let looked = timeout(PATIENCE, async {
            loop {
                match folder.outcome() {
                    Ok(Some(AttemptEnd { outcome: AttemptOutcome::FailedToStart { reason }, .. })) => {
                        return Err(failed(reason));
                    }
                    Ok(None) if !folder.has_started() => tokio::time::sleep(LOOK_AGAIN).await,
                    Ok(_) => return Ok(()),
                    Err(error) => return Err(HvError::failed(format!("start {vm}"), error)),
                }
            }
        });
        looked.await.unwrap_or_else(|_| Err(failed("its supervisor does not say that it runs".into())))
    }

    async fn stop(&self, vm: VmId, grace: Duration) -> Result<(), HvError> {
        let _turn = self.turn.lock().await;
        self.spec(vm)?;
        let Some(Live { supervisor, .. }) = self.live().get(&vm).cloned() else {
            self.tidy();
            return Ok(());
        };
        let doing = || format!("stop {vm}");
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let request = KillRequest { grace_ms };
        self.run_folder(vm).write_kill_request(request).map_err(|cause| HvError::failed(doing(), cause))?;
        supervisor.nudge(&self.run_folder(vm));
        let ended = timeout(grace.saturating_add(PATIENCE), supervisor.ended()).await;
        ended.map_err(|_| HvError::failed(doing(), "its supervisor does not end"))?;
        self.note_end(vm, &supervisor);
        self.tidy();
        Ok(())
    }
}

#[async_trait]
impl Hypervisor for Namespace {
    fn capabilities(&self) -> Capabilities {
        // The commands run on the host's own processors, as under KVM.
        Capabilities {
            kind: MachineKind::Namespace,
            accel: Accel::Kvm,
            console: false,
            live_migration: false,
        }
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        let folder = self.shared.folder(definition.vm);
        let doing = || format!("define {}", definition.vm);
        std::fs::create_dir_all(folder.path()).map_err(|cause| HvError::failed(doing(), cause))?;
        if self.shared.spec(definition.vm).is_ok_and(|known| known == definition.spec) {
            return Ok(());
        }
        folder.write(DEFINITION, &definition.spec).map_err(|cause| HvError::failed(doing(), cause))
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        // On its own task: a caller who gives up half-way must not leave a supervisor that nobody watches.
        let shared = Arc::clone(&self.shared);
        let started = tokio::spawn(async move { shared.start(vm).await }).await;
        started.unwrap_or_else(|cause| Err(HvError::failed(format!("start {vm}"), cause)))
    }

    async fn stop(&self, vm: VmId, grace: Duration) -> Result<(), HvError> {
        self.shared.stop(vm, grace).await
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.shared.spec(vm)?;
        match self.shared.state(vm) {
            VmState::Running => Ok(()),
            VmState::Paused => {
                let thawed = self.shared.group(vm).thaw();
                thawed.map_err(|cause| HvError::failed(format!("resume {vm}"), cause))?;
                let _nobody_listens = self.shared.events.send(HypervisorEvent::Changed(vm));
                Ok(())
            }
            _ => Err(HvError::Unsupported { what: "resuming a stopped machine" }),
        }
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        match self.shared.stop(vm, Duration::ZERO).await {
            Ok(()) | Err(HvError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        self.shared.folder(vm).remove().map_err(|cause| HvError::failed(format!("undefine {vm}"), cause))?;
        let _nobody_listens = self.shared.events.send(HypervisorEvent::Changed(vm));
        Ok(())
    }

    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        match self.shared.spec(vm) {
            Ok(_) => Ok(self.shared.state(vm)),
            Err(HvError::Unknown { .. }) => Ok(VmState::Missing),
            Err(error) => Err(error),
        }
    }

    async fn list(&self) -> Result<Vec<Listed>, HvError> {
        let failed = |cause| HvError::failed("list namespace machines", cause);
        let known = self.shared.known().map_err(failed)?;
        let foreign = self.shared.foreign().map_err(failed)?;
        let ours = known.into_iter().map(|vm| Listed::Ours(vm, self.shared.state(vm)));
        Ok(ours.chain(foreign.into_iter().map(Listed::Foreign)).collect())
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, HvError> {
        self.shared.spec(vm)?;
        if self.shared.state(vm) == VmState::Stopped {
            return Ok(Usage::default());
        }
        let used = self.shared.group(vm).usage();
        Ok(Usage { cpu: used.cpu, memory: used.memory })
    }

    async fn addresses(&self, vm: VmId) -> Result<Vec<IpAddr>, HvError> {
        self.shared.spec(vm).map(|_| Vec::new())
    }

    async fn console(&self, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.shared.spec(vm)?;
        Err(HvError::Unsupported { what: "the console of a namespace machine" })
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.shared.events.subscribe()
    }
}
