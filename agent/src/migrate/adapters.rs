//! The real parts behind the ports.

use super::{
    journal::Record,
    ports::{
        Copied, Ear, Failure, Journal, Landing, Mover, Push, Residents, Rest, Route, Standing, Surveyor,
    },
};
use crate::{
    hypervisor::{
        Definition, HvError, Hypervisor, MachineFiles,
        libvirt::{
            Libvirt,
            kept::own_monitor,
            migration::{DiskCopy, MigrateCall, Presence, Split},
            monitor::{Monitor, MonitorError},
            throttle::Throttle,
            xml,
        },
    },
    ledger::Shelf,
    vm::{Files, Machines},
};
use async_trait::async_trait;
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{DirtyRate, GuestTraits, PreflightFault, VmAssignment, VmState},
    spec::VmSpec,
    units::Epoch,
    wire::Denial,
};
use std::{sync::Arc, time::Duration};

/// The least that libvirt takes, milliseconds.
const LEAST_PAUSE_MS: u32 = 1;

#[async_trait]
impl Mover for Libvirt {
    async fn standing(&self, vm: VmId) -> Result<Standing, HvError> {
        Ok(standing_of(self.presence(vm).await?))
    }

    async fn send(&self, vm: VmId, route: Route, push: Push) -> Result<(), HvError> {
        // An overlay's own clusters travel; the image below them is on the target, checked by its content.
        let disk_copy = if route.disk.is_some() { DiskCopy::Top } else { DiskCopy::None };
        let call = MigrateCall {
            dconn_uri: route.control_uri,
            migrate_uri: route.migrate_uri,
            disks_uri: route.disk.map(|_| route.disks_uri),
            disk_copy,
            disks: route.disk.map(str::to_owned).into_iter().collect(),
            paused: !push.post_copy,
            post_copy: push.post_copy,
            parallel: push.channels.map(|channels| channels.get().into()),
            bandwidth_mib: None,
            target_xml: None,
            throttle: Throttle::up_to(push.slowdown_pct),
        };
        // Set each time: an earlier move may have left another.
        self.allow_downtime(vm, push.pause_ms).await?;
        if let Some(throttle) = call.throttle {
            self.bound_throttle(vm, throttle).await?;
        }
        self.migrate_p2p(vm, call).await
    }

    async fn allow_pause(&self, vm: VmId, pause_ms: u32) -> Result<(), HvError> {
        self.allow_downtime(vm, pause_ms).await
    }

    async fn hold(&self, vm: VmId) -> Result<(), HvError> {
        self.pause(vm).await
    }

    async fn go_over(&self, vm: VmId) -> Result<(), HvError> {
        // QEMU takes a copy for complete as soon as what is left crosses within the pause allowed; a connection that breaks
        // after that ends the copy for good, and the guest with it, instead of pausing it.
        self.allow_downtime(vm, LEAST_PAUSE_MS).await?;
        // A guest that QEMU held by itself it lets run again then (`migration_iteration_finish`), here and there.
        self.pause(vm).await?;
        self.start_post_copy(vm).await
    }

    async fn abort(&self, vm: VmId) -> Result<(), HvError> {
        self.abort_job(vm).await
    }

    async fn copied(&self, vm: VmId) -> Result<Option<Copied>, HvError> {
        Ok(self.job_progress(vm).await?.map(|job| Copied {
            processed: job.data.processed,
            remaining: job.data.remaining,
            iteration: job.iteration,
            dirty_pages_per_second: job.dirty_pages_per_second,
            downtime_ms: job.downtime_ms,
            throttle_pct: job.throttle_pct,
        }))
    }

    async fn resume(&self, vm: VmId) -> Result<(), HvError> {
        Hypervisor::resume(self, vm).await
    }

    async fn start(&self, vm: VmId) -> Result<(), HvError> {
        Hypervisor::start(self, vm).await
    }

    async fn stop(&self, vm: VmId, grace: Duration) -> Result<(), HvError> {
        Hypervisor::stop(self, vm, grace.into()).await.map(drop)
    }

    async fn define(&self, definition: &Definition) -> Result<(), HvError> {
        Hypervisor::define(self, definition).await
    }

    async fn undefine(&self, vm: VmId) -> Result<(), HvError> {
        Hypervisor::undefine(self, vm).await
    }

    async fn ear(&self, vm: VmId, files: &MachineFiles) -> Result<Box<dyn Ear>, HvError> {
        Ok(Box::new(self.monitors.open(vm, files).await?))
    }

    fn forget_ear(&self, vm: VmId) {
        self.monitors.forget(vm);
    }

    async fn send_again(&self, vm: VmId, files: &MachineFiles, migrate_uri: &str) -> Result<Rest, HvError> {
        let failed = |error: MonitorError| HvError::failed(format!("have {vm} send on"), error);
        let mut monitor = Monitor::open(own_monitor(files)?).await.map_err(failed)?;
        match monitor.send_again(migrate_uri).await {
            Ok(()) => Ok(Rest::Follows),
            Err(MonitorError::Refused(_)) if monitor.copy_failed().await.map_err(failed)? => {
                Ok(Rest::GivenUp)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn document(&self, definition: &Definition) -> Result<String, HvError> {
        let host = self.choices(true);
        let document = xml::domain_xml(definition, host);
        Ok(document.map_err(|error| HvError::failed(format!("describe {}", definition.vm), error))?.text)
    }
}

fn standing_of(presence: Presence) -> Standing {
    match presence {
        Presence::Absent => Standing::Absent,
        // libvirt forgets it itself, unless the call that was to see to that had ended before (post-copy that broke).
        Presence::Here { split: Some(Split::Over), .. } => Standing::Absent,
        Presence::Here { split: Some(Split::Flows), .. } => Standing::Split { broken: false },
        Presence::Here { split: Some(Split::Broken), .. } => Standing::Split { broken: true },
        Presence::Here { state, persistent, split: None } => match state {
            VmState::Running => Standing::Running,
            VmState::Paused => Standing::Paused { persistent },
            VmState::Stopped => Standing::Stopped,
            VmState::Missing => Standing::Absent,
            // A QEMU that is told to end says that it shuts down, what it holds may be half a guest or one that is held here,
            // and soon nothing of it is left.
            VmState::Stopping
            | VmState::Pending
            | VmState::Preparing
            | VmState::Failed
            | VmState::Unknown => Standing::Unclear,
        },
    }
}

#[async_trait]
impl Ear for Monitor {
    fn hears(&self) -> bool {
        self.is_usable()
    }

    async fn listen_again(&mut self, migrate_uri: &str) -> Result<(), HvError> {
        let told = Monitor::listen_again(self, migrate_uri).await;
        told.map_err(|error| HvError::failed("have it wait for its other half", error))
    }
}

#[async_trait]
impl Surveyor for Libvirt {
    async fn state(&self, vm: VmId) -> Result<VmState, HvError> {
        Hypervisor::state(self, vm).await
    }

    /// What QEMU's process holds: a little more than the guest's own, which only a balloon's driver could tell.
    async fn in_use(&self, vm: VmId) -> Result<u64, HvError> {
        Ok(self.usage(vm).await?.memory.0)
    }

    async fn dirty_rate(&self, vm: VmId) -> Result<Option<DirtyRate>, HvError> {
        Libvirt::dirty_rate(self, vm).await
    }

    async fn traits(&self, vm: VmId) -> Result<GuestTraits, HvError> {
        self.traits_of(vm).await
    }

    async fn compare(&self, traits: &GuestTraits) -> Result<Vec<PreflightFault>, HvError> {
        self.lacks_for(traits).await
    }
}

/// The agent's files, as a place for arrivals to land.
#[async_trait]
impl<F: Files + ?Sized> Landing for Arc<F> {
    async fn prepare(&self, vm: VmId, spec: &VmSpec) -> Result<MachineFiles, Failure> {
        Ok(Files::prepare(&**self, vm, spec).await?)
    }

    async fn remove(&self, vm: VmId) -> Result<(), Failure> {
        Ok(Files::remove(&**self, vm).await?)
    }
}

#[async_trait]
impl Residents for Machines {
    async fn lend(&self, vm: VmId, migration: MigrationId, epoch: Epoch) -> Result<(), Denial> {
        Machines::lend(self, vm, migration, epoch).await.map(drop)
    }

    async fn give_back(&self, vm: VmId, migration: MigrationId, halted: bool) -> Result<(), Denial> {
        Machines::give_back(self, vm, migration, halted).await
    }

    async fn arrived(&self, assignment: VmAssignment) -> Result<(), Denial> {
        Machines::arrived(self, assignment).await
    }

    async fn settled(&self, vm: VmId, migration: MigrationId) -> Result<(), Denial> {
        Machines::settled(self, vm, migration).await
    }

    async fn left(&self, vm: VmId, epoch: Epoch) -> Result<(), Denial> {
        Machines::left(self, vm, epoch).await
    }

    async fn holds(&self, vm: VmId) -> Result<bool, Denial> {
        Machines::holds(self, vm).await
    }
}

impl Journal for Shelf<Record> {
    fn put(&self, migration: MigrationId, record: &Record) -> Result<(), Failure> {
        Ok(Shelf::put(self, &key(migration), record)?)
    }

    fn remove(&self, migration: MigrationId) -> Result<(), Failure> {
        Ok(Shelf::remove(self, &key(migration))?)
    }

    fn list(&self) -> Result<Vec<(MigrationId, Record)>, Failure> {
        let id = |key: Vec<u8>| key.try_into().map(|key| MigrationId::from_u128(u128::from_be_bytes(key)));
        let rows = Shelf::list(self)?.into_iter();
        rows.map(|(key, record)| {
            Ok((id(key).map_err(|_| "a key of the journal is no migration's id")?, record))
        })
        .collect()
    }
}

fn key(migration: MigrationId) -> [u8; 16] {
    migration.uuid().as_u128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [VmState; 9] = [
        VmState::Pending,
        VmState::Preparing,
        VmState::Running,
        VmState::Paused,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Missing,
        VmState::Failed,
        VmState::Unknown,
    ];

    #[test]
    fn only_a_whole_guest_whose_processors_are_not_held_runs() {
        for state in STATES {
            let standing = |split| standing_of(Presence::Here { state, persistent: true, split });
            assert_eq!(standing(None) == Standing::Running, state == VmState::Running, "{state:?}");
            assert_eq!(standing(Some(Split::Flows)), Standing::Split { broken: false });
            assert_eq!(standing(Some(Split::Broken)), Standing::Split { broken: true });
            assert_eq!(standing(Some(Split::Over)), Standing::Absent);
        }
    }
}
