//! Long-lived machines made of namespaces: the hypervisor port over supervisors. The root is an image's, below a
//! layer of the machine's own ([`upper`]); or, where the template has none, the host's, and what the machine writes to that is
//! gone when it stops. A machine on a tenant network has a card there ([`net`](super::net)), any other no network. There is no
//! console yet, and a machine cannot move.

mod blanks;
mod claims;
mod defined;
mod health;
mod hold;
mod life;
mod save;
mod shelf;
mod statistics;
mod upper;
mod volumes;

use super::{
    home::{Home, HomeError},
    net::{bridge, firewall::Firewall},
    observe,
};
use crate::hypervisor::{
    Capabilities, ConsoleStream, Definition, Halt, Health, HvError, Hypervisor, HypervisorEvent, Listed,
    Printed, Usage,
};
use async_trait::async_trait;
use blanks::Blanks;
use claims::{Claims, Turns};
use defined::{DEFINITION, Defined};
use life::Shared;
use novacron_common::{
    ids::VmId,
    record::{Accel, VmState, VmStatistics},
    spec::{MachineKind, Signal, StopTerms},
    wire::ExecCommand,
};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
};
use tokio::sync::{Semaphore, broadcast};

pub use shelf::Shelf;
pub(super) use upper::FILE as UPPER;
pub use volumes::Volumes;

const EVENTS_MAX: usize = 64;

/// Where blank disks are, beside the machines that they are for, so that they can be renamed.
const BLANKS: &str = ".blanks";

/// Namespace machines on this host.
pub struct Namespace {
    shared: Arc<Shared>,
}

impl Namespace {
    /// Opens the machines below `data_dir`, and adopts those that run. `exe` is the program that is run as
    /// `exe supervise FOLDER`.
    ///
    /// # Errors
    /// [`HomeError`] if the folder cannot be used.
    pub async fn open(data_dir: &Path, exe: PathBuf) -> Result<Self, HomeError> {
        let volumes = Volumes::new(data_dir, Vec::new(), Volumes::SIZE_USUAL);
        Self::open_with(data_dir, exe, volumes).await
    }

    /// The same, where machines may be shown these parts of the host.
    ///
    /// # Errors
    /// [`HomeError`] if the folder cannot be used.
    pub async fn open_with(data_dir: &Path, exe: PathBuf, volumes: Volumes) -> Result<Self, HomeError> {
        let home = Home::open(data_dir.join("machines"))?;
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let firewall = Firewall::new(home.tag()).into();
        let blanks = home.folder(BLANKS).path().to_owned();
        let blanks = Blanks::open(blanks.clone()).map_err(|cause| HomeError::Open { path: blanks, cause })?;
        let shared = Arc::new(Shared {
            home,
            exe,
            data_dir: data_dir.to_owned(),
            live: Mutex::default(),
            left: Mutex::default(),
            firewall,
            blanks,
            volumes,
            claims: Claims::default(),
            turns: Turns::default(),
            asked: Semaphore::new(health::ASKED_AT_ONCE),
            events,
        });
        for vm in shared.known()? {
            shared.adopt(vm).await;
            shared.sweep_checkpoint(vm);
        }
        let keep: Vec<String> = shared.live().keys().map(ToString::to_string).collect();
        shared.home.sweep_groups(&keep);
        let cards = shared.cards();
        // Rules first: what they let in is gone before they are.
        let rules = shared.firewall.lock().await.reset(&cards).await;
        if let Err(error) = rules.and(bridge::sweep(&shared.home.tag(), &cards)) {
            tracing::warn!(
                error = error.chain(),
                "could not bring the network in order after an earlier life"
            );
        }
        Ok(Self { shared })
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
            exec: true,
            printed: true,
            live_migration: false,
        }
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        let folder = self.shared.folder(definition.vm);
        let doing = || format!("define {}", definition.vm);
        std::fs::create_dir_all(folder.path()).map_err(|cause| HvError::failed(doing(), cause))?;
        observe::taken("make the machine's folder");
        let wanted = Defined { spec: definition.spec.clone(), root: definition.files.root.clone() };
        if self.shared.defined(definition.vm).is_ok_and(|known| known == wanted) {
            return Ok(());
        }
        // Not durable: where it did not outlive the host, the agent's ledger has it defined anew.
        folder.write_loosely(DEFINITION, &wanted).map_err(|cause| HvError::failed(doing(), cause))
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        // On its own task: a caller who gives up half-way must not leave a supervisor that nobody watches.
        let shared = Arc::clone(&self.shared);
        let started = tokio::spawn(async move { shared.start(vm).await }).await;
        started.unwrap_or_else(|cause| Err(HvError::failed(format!("start {vm}"), cause)))
    }

    async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        self.shared.stop(vm, terms).await
    }

    async fn pause(&self, vm: VmId) -> Result<(), HvError> {
        self.shared.pause(vm).await
    }

    async fn signal(&self, vm: VmId, signal: Signal) -> Result<(), HvError> {
        self.shared.signal(vm, signal).await
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.shared.resume(vm)
    }

    async fn checkpoint(&self, vm: VmId, leave_running: bool) -> Result<(), HvError> {
        // On its own task, as a start is.
        let shared = Arc::clone(&self.shared);
        let saved = tokio::spawn(async move { shared.save(vm, leave_running).await }).await;
        saved.unwrap_or_else(|cause| Err(HvError::failed(format!("save {vm}"), cause)))
    }

    async fn restore(&self, vm: VmId) -> Result<(), HvError> {
        let shared = Arc::clone(&self.shared);
        let restored = tokio::spawn(async move { shared.restore(vm).await }).await;
        restored.unwrap_or_else(|cause| Err(HvError::failed(format!("restore {vm}"), cause)))
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        match self.shared.stop(vm, StopTerms::AT_ONCE).await {
            Ok(_) | Err(HvError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        self.shared.folder(vm).remove().map_err(|cause| HvError::failed(format!("undefine {vm}"), cause))?;
        let _nobody_listens = self.shared.events.send(HypervisorEvent::Changed(vm));
        Ok(())
    }

    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        match self.shared.defined(vm) {
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
        self.shared.defined(vm)?;
        if !self.shared.live().contains_key(&vm) {
            return Ok(Usage::default());
        }
        let used = self.shared.group(vm).usage();
        Ok(Usage { cpu: used.cpu, memory: used.memory })
    }

    fn health(&self, vm: VmId) -> Option<Health> {
        self.shared.live().get(&vm).and_then(|machine| machine.health.read())
    }

    async fn statistics(&self, vm: VmId) -> Result<VmStatistics, HvError> {
        self.shared.statistics(vm)
    }

    async fn addresses(&self, vm: VmId) -> Result<Vec<IpAddr>, HvError> {
        self.shared.defined(vm)?;
        let card = self.shared.live().get(&vm).and_then(|machine| machine.card.clone());
        Ok(card.into_iter().map(|card| card.address.addr().into()).collect())
    }

    async fn console(&self, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.shared.defined(vm)?;
        Err(HvError::Unsupported { what: "the console of a namespace machine" })
    }

    async fn exec(&self, vm: VmId, command: &ExecCommand) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        self.shared.exec(vm, command).await
    }

    async fn printed(&self, vm: VmId, lines: Option<u32>, follow: bool) -> Result<Printed, HvError> {
        self.shared.printed(vm, lines, follow)
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.shared.events.subscribe()
    }
}
