//! The agent's ports over a host's [`Metal`]: what the shipped code takes for libvirt, for QEMU's processes and for the folder
//! with machines' files.

use super::{
    copy,
    metal::{Domain, Job, Metal, Power, Split},
};
use async_trait::async_trait;
use novacron_agent::{
    hypervisor::{
        Capabilities, ConsoleStream, Definition, Halt, HvError, Hypervisor, HypervisorEvent, Listed,
        MachineFiles, Printed, Usage,
    },
    migrate::ports::{
        Copied, Ear, Failure, GuestProcess, Landing, Mover, Processes, Push, Rest, Route, Standing,
    },
    vm::{Files, FilesError},
};
use novacron_common::{
    ids::VmId,
    record::{Accel, VmState, VmStatistics},
    spec::{MachineKind, Signal, StopTerms, VmSpec},
    wire::ExecCommand,
};
use novacron_runtime::time::sleep;
use std::{io, net::IpAddr, path::PathBuf, pin::Pin, sync::Arc, time::Duration};
use tokio::sync::broadcast;

/// How long files take to be made or removed, nanoseconds.
const FILES: (u64, u64) = (100_000, 60_000_000);
/// How long a guest takes to shut down, nanoseconds.
const SHUTDOWN: (u64, u64) = (1_000_000, 1_500_000_000);
/// How often a QEMU that may wait for a page of its guest heeds what is no out-of-band command, per cent.
const HEEDS: u64 = 50;
/// How long who asks it then waits for an answer.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a command of a monitor takes, nanoseconds.
const MONITOR: (u64, u64) = (100_000, 20_000_000);
/// What one pass over memory sends, bytes.
const PASS: u64 = 64 << 20;

/// What a host's agent takes for its hypervisor and its file system. Cheap to clone.
#[derive(Clone)]
pub struct Libvirt(pub Arc<Metal>);

impl Libvirt {
    fn unknown<T>(&self, vm: VmId) -> Result<T, HvError> {
        Err(HvError::Unknown { vm })
    }

    async fn shut_down(&self, vm: VmId, grace: Duration) -> Result<(), HvError> {
        self.0.call("stop").await?;
        if self.0.domain(vm).is_none() {
            return self.unknown(vm);
        }
        sleep(self.0.draw(SHUTDOWN).min(grace)).await;
        self.0.call("stop").await?;
        self.0.give_up(vm);
        Ok(())
    }

    async fn started(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("start").await?;
        match self.0.start(vm) {
            true => Ok(()),
            false => self.unknown(vm),
        }
    }

    async fn resumed(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("resume").await?;
        match self.0.resume(vm) {
            true => Ok(()),
            false => Err(HvError::Unsupported { what: "resuming a stopped machine" }),
        }
    }

    async fn defined(&self, definition: &Definition) -> Result<(), HvError> {
        self.0.call("define").await?;
        self.0.define(definition.vm);
        Ok(())
    }

    async fn undefined(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("undefine").await?;
        self.0.truth.gives_up(self.0.host, vm);
        self.0.undefine(vm);
        Ok(())
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: MachineKind::Kvm,
            accel: Accel::Tcg,
            console: false,
            exec: false,
            printed: false,
            live_migration: true,
        }
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        self.defined(definition).await
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        self.started(vm).await
    }

    async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        self.shut_down(vm, terms.grace()).await.map(|()| Halt::OnAsking(None))
    }

    async fn pause(&self, _vm: VmId) -> Result<(), HvError> {
        Err(HvError::Unsupported { what: "pausing a machine" })
    }

    async fn signal(&self, _vm: VmId, _signal: Signal) -> Result<(), HvError> {
        Err(HvError::Unsupported { what: "a signal to a machine" })
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.resumed(vm).await
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        self.undefined(vm).await
    }

    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        self.0.call("look").await?;
        Ok(self.0.seen(vm))
    }

    async fn list(&self) -> Result<Vec<Listed>, HvError> {
        self.0.call("list").await?;
        Ok(self.0.domains().into_iter().map(|(vm, _)| Listed::Ours(vm, self.0.seen(vm))).collect())
    }

    async fn usage(&self, _vm: VmId) -> Result<Usage, HvError> {
        Ok(Usage::default())
    }

    async fn statistics(&self, _vm: VmId) -> Result<VmStatistics, HvError> {
        Err(HvError::Unsupported { what: "counting what a machine uses" })
    }

    async fn addresses(&self, _vm: VmId) -> Result<Vec<IpAddr>, HvError> {
        Ok(Vec::new())
    }

    async fn console(&self, _vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        Err(HvError::Unsupported { what: "a console" })
    }

    async fn exec(&self, _vm: VmId, _command: &ExecCommand) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        Err(HvError::Unsupported { what: "a command in a machine" })
    }

    async fn printed(&self, _vm: VmId, _lines: Option<u32>, _follow: bool) -> Result<Printed, HvError> {
        Err(HvError::Unsupported { what: "what a machine prints" })
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.0.events()
    }
}

#[async_trait]
impl Mover for Libvirt {
    async fn standing(&self, vm: VmId) -> Result<Standing, HvError> {
        self.0.call("look").await?;
        Ok(match self.0.domain(vm) {
            None => Standing::Absent,
            Some(Domain { split: Some(Split::Over), .. }) => Standing::Absent,
            Some(Domain { split: Some(split), .. }) => Standing::Split { broken: split == Split::Broken },
            Some(domain) => match domain.power {
                Power::Off => Standing::Stopped,
                Power::Running => Standing::Running,
                Power::Paused => Standing::Paused { persistent: domain.persistent },
            },
        })
    }

    async fn send(&self, vm: VmId, route: Route, push: Push) -> Result<(), HvError> {
        self.0.call("migrate").await?;
        let failed = |reason: &str| HvError::failed("migrate", reason);
        let conduit = self.0.take(&route.control_uri).ok_or_else(|| failed("nobody listens there"))?;
        match self.0.domain(vm).map(|domain| domain.power) {
            None => return self.unknown(vm),
            Some(Power::Off) => return Err(failed("the domain is not running")),
            Some(_) => {}
        }
        let outcome = copy::start(&self.0, vm, conduit, push.post_copy).await;
        outcome.unwrap_or_else(|_| Err("the host lost its power".into())).map_err(|reason| failed(&reason))
    }

    async fn allow_pause(&self, _vm: VmId, _pause_ms: u32) -> Result<(), HvError> {
        self.0.call("allow a pause").await
    }

    async fn hold(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("hold").await?;
        self.0.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.held = true));
        self.0.hold(vm);
        Ok(())
    }

    async fn go_over(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("go over").await?;
        self.0.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.goes_over = true));
        let told = self.0.domain(vm).and_then(|domain| domain.job).is_some_and(|job| job.goes_over);
        told.then_some(()).ok_or_else(|| HvError::failed("go over", "no copy is under way"))
    }

    async fn abort(&self, vm: VmId) -> Result<(), HvError> {
        self.0.call("abort").await?;
        self.0.set(vm, |domain| domain.job.iter_mut().for_each(|job| job.aborted = !job.finishing));
        Ok(())
    }

    async fn copied(&self, vm: VmId) -> Result<Option<Copied>, HvError> {
        self.0.call("look at the job").await?;
        let copied = |job: Job| Copied {
            processed: job.passes * PASS,
            remaining: if job.stubborn { PASS } else { PASS >> job.passes.min(20) },
            iteration: job.passes,
            ..Copied::default()
        };
        Ok(self.0.domain(vm).and_then(|domain| domain.job).map(copied))
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.resumed(vm).await
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        self.started(vm).await
    }

    async fn stop(&self, vm: VmId, grace: Duration) -> Result<(), HvError> {
        self.shut_down(vm, grace).await
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        self.defined(definition).await
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        self.undefined(vm).await
    }

    /// Once the guest runs here its QEMU may wait for one of its pages, and heeds nobody new for a while.
    async fn ear(&self, vm: VmId, _: &MachineFiles) -> Result<Box<dyn Ear>, HvError> {
        let domain = self.0.domain(vm).filter(|domain| domain.power != Power::Off);
        let Some(domain) = domain else { return self.unknown(vm) };
        if domain.split.is_some() && !self.0.executor.draw(|rng| rng.percent(HEEDS)) {
            sleep(SILENCE).await;
            return Err(HvError::failed("reach the monitor", "no answer"));
        }
        Ok(Box::new(Monitor { metal: Arc::clone(&self.0), vm, process: domain.process }))
    }

    async fn send_again(&self, vm: VmId, _: &MachineFiles, migrate_uri: &str) -> Result<Rest, HvError> {
        sleep(self.0.draw(MONITOR)).await;
        let failed = |reason: &str| HvError::failed("send on", reason);
        if self.0.split(vm) != Some(Split::Broken) {
            return Err(failed("its copy is not broken"));
        }
        let conduit = self.0.take(migrate_uri).ok_or_else(|| failed("nobody listens there"))?;
        copy::send_on(&self.0, vm, conduit);
        Ok(Rest::Follows)
    }

    fn document(&self, definition: &Definition) -> Result<String, HvError> {
        Ok(definition.vm.to_string())
    }
}

/// A connection to a QEMU's own monitor.
struct Monitor {
    metal: Arc<Metal>,
    vm: VmId,
    process: u64,
}

#[async_trait]
impl Ear for Monitor {
    fn hears(&self) -> bool {
        let domain = self.metal.domain(self.vm);
        domain.is_some_and(|domain| domain.process == self.process && domain.power != Power::Off)
    }

    async fn listen_again(&mut self, _: &str) -> Result<(), HvError> {
        sleep(self.metal.draw(MONITOR)).await;
        if !self.hears() || self.metal.split(self.vm) != Some(Split::Broken) {
            return Err(HvError::failed("wait for its other half", "it is not cut off"));
        }
        self.metal.set(self.vm, |domain| domain.listens = true);
        Ok(())
    }
}

impl Processes for Libvirt {
    fn of(&self, vm: VmId) -> Option<Box<dyn GuestProcess>> {
        let metal = Arc::clone(&self.0);
        let process = metal.domain(vm).filter(|domain| domain.power != Power::Off)?.process;
        Some(Box::new(Process { metal, vm, process }))
    }
}

struct Process {
    metal: Arc<Metal>,
    vm: VmId,
    process: u64,
}

#[async_trait]
impl GuestProcess for Process {
    async fn ended(&self) {
        self.metal.process_gone(self.vm, self.process).await;
    }

    fn kill(&self) -> io::Result<()> {
        if self.metal.domain(self.vm).is_some_and(|now| now.process == self.process) {
            self.metal.end(self.vm);
        }
        Ok(())
    }
}

impl Libvirt {
    async fn prepared(&self, vm: VmId) -> MachineFiles {
        sleep(self.0.draw(FILES)).await;
        self.0.truth.has_disk(self.0.host, vm);
        let folder = PathBuf::from(format!("/machines/{vm}"));
        MachineFiles { disk: Some(folder.join("disk.qcow2")), ..MachineFiles::bare(folder) }
    }

    async fn removed(&self, vm: VmId) {
        sleep(self.0.draw(FILES)).await;
        self.0.truth.removes_disk(self.0.host, vm);
    }
}

#[async_trait]
impl Files for Libvirt {
    async fn prepare(&self, vm: VmId, _spec: &VmSpec) -> Result<MachineFiles, FilesError> {
        Ok(self.prepared(vm).await)
    }

    async fn remove(&self, vm: VmId) -> Result<(), FilesError> {
        self.removed(vm).await;
        Ok(())
    }
}

#[async_trait]
impl Landing for Libvirt {
    async fn prepare(&self, vm: VmId, _spec: &VmSpec) -> Result<MachineFiles, Failure> {
        Ok(self.prepared(vm).await)
    }

    async fn remove(&self, vm: VmId) -> Result<(), Failure> {
        self.removed(vm).await;
        Ok(())
    }
}
