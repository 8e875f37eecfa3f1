//! KVM machines through libvirt (`qemu:///system`).
//!
//! * [`Libvirt`] implements the port; what a move needs beyond it is in [`migration`];
//! * `connection` keeps one connection up and bounds what blocks;
//! * [`cpu`] is the processor that guests see;
//! * `xml` and `metadata` say what a domain of ours looks like;
//! * [`guest`] speaks to the agent inside a machine;
//! * [`monitor`] brings two halves of a guest together again, past libvirt, and [`kept`] has it outlive the agent;
//! * `ffi` is the only file with `unsafe` code: the calls that the `virt` crate lacks or gets wrong;
//! * `statistics` counts what machines use;
//! * `survey` measures guests for the forecast of a move, and compares hosts;
//! * [`throttle`] says how hard QEMU may push a copy;
//! * [`probe`] finds out whether KVM works by running something.

mod connection;
mod console;
pub mod cpu;
mod ffi;
#[cfg(test)]
mod fixture;
pub mod guest;
pub mod kept;
mod life;
mod metadata;
pub mod migration;
pub mod monitor;
pub mod probe;
mod statistics;
mod survey;
pub mod throttle;
pub mod xml;

pub use cpu::CpuModel;
pub use probe::AccelSetting;

use super::{
    Capabilities, ConsoleStream, Definition, Halt, HvError, Hypervisor, HypervisorEvent, Listed, Printed,
    Usage,
};
use async_trait::async_trait;
use connection::Connection;
use kept::KeptMonitors;
use novacron_common::{
    ids::VmId,
    record::{Accel, VmState, VmStatistics},
    spec::{MachineKind, Signal, StopTerms},
    wire::ExecCommand,
};
use std::{net::IpAddr, pin::Pin};
use tokio::sync::broadcast;
use xml::HostChoices;

/// The adapter. Its connection mends itself when libvirtd restarts.
pub struct Libvirt {
    connection: Connection,
    accel: Accel,
    cpu: CpuModel,
    pub(crate) monitors: KeptMonitors,
}

impl Libvirt {
    /// Connects to `uri` (e.g. `qemu:///system`) and decides how machines run.
    ///
    /// # Errors
    /// If libvirtd does not answer.
    pub async fn connect(uri: &str, accel: AccelSetting) -> Result<Self, HvError> {
        let connection = Connection::open(uri).await?;
        let accel = probe::decide(accel).await;
        tracing::info!(uri, ?accel, "connected to libvirt");
        Ok(Self { connection, accel, cpu: CpuModel::default(), monitors: KeptMonitors::default() })
    }

    /// With this processor for KVM guests.
    #[must_use]
    pub fn with_cpu(self, cpu: CpuModel) -> Self {
        Self { cpu, ..self }
    }

    /// With the monitors that an agent before this one left.
    #[must_use]
    pub fn with_monitors(self, monitors: KeptMonitors) -> Self {
        Self { monitors, ..self }
    }

    /// What this host decides about a domain whose disk's file system takes `O_DIRECT`, or does not.
    pub(crate) fn choices(&self, direct_io: bool) -> HostChoices<'_> {
        HostChoices { accel: self.accel, cpu: &self.cpu, direct_io }
    }
}

#[async_trait]
impl Hypervisor for Libvirt {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: MachineKind::Kvm,
            accel: self.accel,
            console: true,
            exec: false,
            printed: false,
            live_migration: true,
        }
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        life::define(&self.connection, self.choices(life::takes_direct_io(definition)), definition).await
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        life::start(&self.connection, vm).await
    }

    async fn stop(&self, vm: VmId, terms: StopTerms) -> Result<Halt, HvError> {
        life::stop(&self.connection, vm, terms.grace()).await
    }

    async fn pause(&self, vm: VmId) -> Result<(), HvError> {
        life::pause(&self.connection, vm).await
    }

    async fn signal(&self, vm: VmId, signal: Signal) -> Result<(), HvError> {
        match (self.state(vm).await?, signal) {
            (VmState::Missing, _) => Err(HvError::Unknown { vm }),
            (state @ VmState::Stopped, _) => Err(HvError::State { vm, state, remedy: "start it first" }),
            (_, Signal::Kill) => self.stop(vm, StopTerms::AT_ONCE).await.map(drop),
            _ => Err(HvError::Unsupported { what: "a signal other than KILL to a KVM machine" }),
        }
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        life::resume(&self.connection, vm).await
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        life::undefine(&self.connection, vm).await
    }

    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        life::state(&self.connection, vm).await
    }

    async fn list(&self) -> Result<Vec<Listed>, HvError> {
        life::list(&self.connection).await
    }

    async fn usage(&self, vm: VmId) -> Result<Usage, HvError> {
        statistics::usage(&self.connection, vm).await
    }

    async fn statistics(&self, vm: VmId) -> Result<VmStatistics, HvError> {
        statistics::of(&self.connection, vm).await
    }

    async fn addresses(&self, vm: VmId) -> Result<Vec<IpAddr>, HvError> {
        life::addresses(&self.connection, vm).await
    }

    async fn console(&self, vm: VmId) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        console::open(&self.connection, vm).await
    }

    async fn exec(&self, vm: VmId, _command: &ExecCommand) -> Result<Pin<Box<dyn ConsoleStream>>, HvError> {
        match self.state(vm).await? {
            VmState::Missing => Err(HvError::Unknown { vm }),
            _ => Err(HvError::Unsupported { what: "a command with streams in a KVM machine" }),
        }
    }

    async fn printed(&self, vm: VmId, _lines: Option<u32>, _follow: bool) -> Result<Printed, HvError> {
        match self.state(vm).await? {
            VmState::Missing => Err(HvError::Unknown { vm }),
            _ => Err(HvError::Unsupported {
                what: "printing what a KVM machine says (see `novactl vm log` and `novactl vm console`)",
            }),
        }
    }

    fn events(&self) -> broadcast::Receiver<HypervisorEvent> {
        self.connection.events()
    }
}
