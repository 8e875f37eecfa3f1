//! Holding a machine where it is, by its cgroup's freezer, and signals to its command.

use super::life::Shared;
use crate::hypervisor::{HvError, HypervisorEvent, namespace::exec::Machine};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{Signal, StopTerms},
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How long its processes may take to stand still. Only the kernel's uninterruptible sleep outlives it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often they are looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Shared {
    /// Returns once every process stands still; a machine that does not come to that runs on.
    pub(super) async fn pause(&self, vm: VmId) -> Result<(), HvError> {
        self.defined(vm)?;
        if self.state(vm) == VmState::Stopped {
            return Err(HvError::State { vm, state: VmState::Stopped, remedy: "start it first" });
        }
        if self.is_suspended(vm) {
            return Ok(());
        }
        let doing = || format!("pause {vm}");
        let group = self.group(vm);
        let was_held = group.is_frozen();
        group.freeze().map_err(|cause| HvError::failed(doing(), cause))?;
        let still = timeout(PATIENCE, async {
            while !group.is_still() {
                sleep(LOOK_AGAIN).await;
            }
        });
        if still.await.is_err() {
            group.thaw().map_err(|cause| HvError::failed(doing(), cause))?;
            return Err(HvError::failed(
                doing(),
                "one of its processes waits in the kernel and cannot be held",
            ));
        }
        if !was_held {
            let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
        }
        Ok(())
    }

    /// By way of init, which passes it on.
    pub(super) async fn signal(&self, vm: VmId, signal: Signal) -> Result<(), HvError> {
        self.defined(vm)?;
        let refused = |state, remedy| Err(HvError::State { vm, state, remedy });
        match (self.state(vm), signal) {
            (VmState::Stopped, _) => return refused(VmState::Stopped, "start it first"),
            (_, Signal::Kill) => return self.stop(vm, StopTerms::AT_ONCE).await.map(drop),
            (VmState::Paused, _) => return refused(VmState::Paused, "resume it first"),
            _ => {}
        }
        let doing = format!("send SIG{signal} to {vm}");
        let machine = Machine::find(&self.run_folder(vm)).map_err(|cause| HvError::failed(&doing, cause))?;
        machine.signal(signal).map_err(|cause| HvError::failed(doing, cause))
    }

    pub(super) fn resume(&self, vm: VmId) -> Result<(), HvError> {
        self.defined(vm)?;
        match self.state(vm) {
            VmState::Running => Ok(()),
            VmState::Paused if self.is_suspended(vm) => Err(HvError::State {
                vm,
                state: VmState::Paused,
                remedy: "it is in a checkpoint: restore it instead",
            }),
            VmState::Paused => {
                self.group(vm).thaw().map_err(|cause| HvError::failed(format!("resume {vm}"), cause))?;
                let _nobody_listens = self.events.send(HypervisorEvent::Changed(vm));
                Ok(())
            }
            state => Err(HvError::State { vm, state, remedy: "start it instead" }),
        }
    }
}
