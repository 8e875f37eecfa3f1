//! Monitors that outlive the agent, however it ends: the service manager holds a copy of each connection.
//!
//! QEMU agrees to out-of-band commands in its main loop, and in a half of a guest that loop may wait for a page until the other
//! half is back. An agent that was killed can bring the two together only over a connection on which that was agreed before.

use super::monitor::Monitor;
use crate::{
    handover,
    hypervisor::{HvError, MachineFiles},
    text::describe,
};
use novacron_common::ids::VmId;
use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What an agent before this one had kept, and nobody has asked for yet.
#[derive(Debug, Default)]
pub struct KeptMonitors {
    left: Mutex<HashMap<VmId, OwnedFd>>,
}

impl KeptMonitors {
    /// With what an agent before this one left.
    pub fn of(left: impl IntoIterator<Item = (VmId, OwnedFd)>) -> Self {
        Self { left: Mutex::new(left.into_iter().collect()) }
    }

    /// Of which machines something is left.
    pub fn machines(&self) -> Vec<VmId> {
        self.left().keys().copied().collect()
    }

    /// The monitor that is left, or else a new one, which is kept.
    ///
    /// # Errors
    /// As [`Monitor::open`].
    pub async fn open(&self, vm: VmId, files: &MachineFiles) -> Result<Monitor, HvError> {
        let reach = |error| HvError::failed(format!("reach the monitor of {vm}"), error);
        let left = self.left().remove(&vm);
        if let Some(left) = left {
            return Monitor::adopt(left).map_err(reach);
        }
        handover::forget_monitor(vm); // one that broke
        let monitor = Monitor::open(own_monitor(files)?).await.map_err(reach)?;
        if let Err(error) = handover::keep_monitor(vm, &monitor) {
            tracing::info!(%vm, reason = describe(&error), "halves of it may not meet again if this agent is killed");
        }
        Ok(monitor)
    }

    /// It is of no use any more.
    pub fn forget(&self, vm: VmId) {
        self.left().remove(&vm);
        handover::forget_monitor(vm);
    }

    fn left(&self) -> MutexGuard<'_, HashMap<VmId, OwnedFd>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a machine that allows post-copy has it.
///
/// # Errors
/// [`HvError::Unsupported`] of any other.
pub fn own_monitor(files: &MachineFiles) -> Result<&Path, HvError> {
    let what = "to bring two halves of a guest together whose machine does not allow post-copy";
    files.monitor.as_deref().ok_or(HvError::Unsupported { what })
}
