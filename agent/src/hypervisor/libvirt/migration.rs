//! What a move needs from libvirt, beyond the port: start, watch and abort a peer-to-peer migration.
//!
//! Bytes and control go through sockets that the agents serve (`migrate/`); libvirt is told where they are. Whether
//! a migration succeeded is *observed* ([`Libvirt::presence`]), never taken from the call's result alone.

use super::{
    super::HvError,
    Libvirt,
    connection::{self, Private},
    ffi, life,
    throttle::Throttle,
};
use novacron_common::{ids::VmId, record::VmState};
use tokio::sync::oneshot;
use virt::{
    domain::{Domain, MigrateParameters},
    error::{Error as VirtError, ErrorNumber},
    sys,
};

/// How the disks travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskCopy {
    /// They do not: there are none, or both hosts see the same.
    None,
    /// Their top layer, onto a prepared chain on the target (`VIR_MIGRATE_NON_SHARED_INC`).
    Top,
    /// All of them, onto prepared blank disks (`VIR_MIGRATE_NON_SHARED_DISK`).
    Whole,
}

/// One peer-to-peer migration (`virDomainMigrateToURI3` with `VIR_MIGRATE_PEER2PEER`). The copy is persistent on
/// the target and undefined on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateCall {
    /// Where the source's libvirtd finds the target's, e.g. `qemu+unix:///system?socket=/run/…/control`.
    pub dconn_uri: String,
    /// Where QEMU sends memory and listens for it, e.g. `unix:///run/…/memory`: the same path on both hosts.
    pub migrate_uri: String,
    /// Where the disks go, likewise.
    pub disks_uri: Option<String>,
    /// How they go.
    pub disk_copy: DiskCopy,
    /// Which disks go, by target name ([`super::xml::DISK_TARGET`]).
    pub disks: Vec<String>,
    /// Whether the target stays paused until it is resumed (`VIR_MIGRATE_PAUSED`), as our hand-over needs. libvirt refuses it
    /// together with post-copy: there the control lane holds the guest (`migrate/lane/control.rs`).
    pub paused: bool,
    /// Whether it may go over to post-copy ([`Libvirt::start_post_copy`], `VIR_MIGRATE_POSTCOPY`).
    pub post_copy: bool,
    /// Number of multifd channels; `None` sends memory on one.
    pub parallel: Option<u32>,
    /// Limit in MiB/s; `None` is libvirt's default (unlimited).
    pub bandwidth_mib: Option<u64>,
    /// The domain's document for the target where it differs (file paths), else `None`.
    pub target_xml: Option<String>,
    /// How the guest may be slowed; `None`: not at all. [`Libvirt::bound_throttle`] comes first.
    pub throttle: Option<Throttle>,
}

impl MigrateCall {
    fn flags(&self) -> sys::virDomainMigrateFlags {
        let always = sys::VIR_MIGRATE_LIVE
            | sys::VIR_MIGRATE_PEER2PEER
            | sys::VIR_MIGRATE_PERSIST_DEST
            | sys::VIR_MIGRATE_UNDEFINE_SOURCE
            | sys::VIR_MIGRATE_ABORT_ON_ERROR
            // libvirt takes our read-only seed and shared base images for unshared disks. The agents have made
            // sure, by checksum, that the target holds the same ones.
            | sys::VIR_MIGRATE_UNSAFE;
        let copy = match self.disk_copy {
            DiskCopy::None => 0,
            DiskCopy::Top => sys::VIR_MIGRATE_NON_SHARED_INC,
            DiskCopy::Whole => sys::VIR_MIGRATE_NON_SHARED_DISK,
        };
        let paused = if self.paused { sys::VIR_MIGRATE_PAUSED } else { 0 };
        let post_copy = if self.post_copy { sys::VIR_MIGRATE_POSTCOPY } else { 0 };
        let parallel = if self.parallel.is_some() { sys::VIR_MIGRATE_PARALLEL } else { 0 };
        let slowed = if self.throttle.is_some() { sys::VIR_MIGRATE_AUTO_CONVERGE } else { 0 };
        always | copy | paused | post_copy | parallel | slowed
    }

    fn parameters(&self) -> MigrateParameters {
        MigrateParameters {
            uri: Some(self.migrate_uri.clone()),
            disks_uri: self.disks_uri.clone(),
            migrate_disks: self.disks.clone(),
            parallel_connections: self.parallel.and_then(|count| i32::try_from(count).ok()),
            bandwidth: self.bandwidth_mib,
            dest_xml: self.target_xml.clone(),
            persist_xml: self.target_xml.clone(),
            auto_converge_initial: self.throttle.map(|throttle| throttle.first.into()),
            auto_converge_increment: self.throttle.map(|throttle| throttle.increment.into()),
            ..MigrateParameters::default()
        }
    }
}

/// How a domain's job stands, or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobOutcome {
    /// It goes on.
    Running,
    /// It ended well.
    Completed,
    /// It failed.
    Failed,
    /// It was aborted.
    Cancelled,
}

/// libvirt's statistics of a migration (`virDomainGetJobStats`). Bytes, unless a name says otherwise; zero where
/// libvirt gives no figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobProgress {
    /// How it stands.
    pub outcome: JobOutcome,
    /// Milliseconds since its start.
    pub elapsed_ms: u64,
    /// Memory and disks together.
    pub data: JobBytes,
    /// Memory.
    pub memory: JobBytes,
    /// Disks.
    pub disk: JobBytes,
    /// Memory sent a second, as QEMU measures.
    pub memory_bps: u64,
    /// Passes over memory.
    pub iteration: u64,
    /// Pages that the guest dirties each second.
    pub dirty_pages_per_second: u64,
    /// QEMU's own figure for the pause, milliseconds: an estimate while it runs. It leaves out our hand-over.
    pub downtime_ms: Option<u64>,
    /// How much of its processors' time QEMU withholds from the guest, percent.
    pub throttle_pct: u8,
}

/// One counted thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobBytes {
    /// Sent.
    pub processed: u64,
    /// Yet to be sent, as far as is known now.
    pub remaining: u64,
    /// The whole.
    pub total: u64,
}

impl JobProgress {
    fn from_figures(figures: &ffi::JobFigures) -> Option<Self> {
        let outcome = match figures.kind {
            sys::VIR_DOMAIN_JOB_BOUNDED | sys::VIR_DOMAIN_JOB_UNBOUNDED => JobOutcome::Running,
            sys::VIR_DOMAIN_JOB_COMPLETED => JobOutcome::Completed,
            sys::VIR_DOMAIN_JOB_FAILED => JobOutcome::Failed,
            sys::VIR_DOMAIN_JOB_CANCELLED => JobOutcome::Cancelled,
            _ => return None,
        };
        let get = |name| figures.get(name).unwrap_or(0);
        let bytes = |processed, remaining, total| JobBytes {
            processed: get(processed),
            remaining: get(remaining),
            total: get(total),
        };
        Some(Self {
            outcome,
            elapsed_ms: get(sys::VIR_DOMAIN_JOB_TIME_ELAPSED),
            data: bytes(
                sys::VIR_DOMAIN_JOB_DATA_PROCESSED,
                sys::VIR_DOMAIN_JOB_DATA_REMAINING,
                sys::VIR_DOMAIN_JOB_DATA_TOTAL,
            ),
            memory: bytes(
                sys::VIR_DOMAIN_JOB_MEMORY_PROCESSED,
                sys::VIR_DOMAIN_JOB_MEMORY_REMAINING,
                sys::VIR_DOMAIN_JOB_MEMORY_TOTAL,
            ),
            disk: bytes(
                sys::VIR_DOMAIN_JOB_DISK_PROCESSED,
                sys::VIR_DOMAIN_JOB_DISK_REMAINING,
                sys::VIR_DOMAIN_JOB_DISK_TOTAL,
            ),
            memory_bps: get(sys::VIR_DOMAIN_JOB_MEMORY_BPS),
            iteration: get(sys::VIR_DOMAIN_JOB_MEMORY_ITERATION),
            dirty_pages_per_second: get(sys::VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE),
            downtime_ms: figures.get(sys::VIR_DOMAIN_JOB_DOWNTIME),
            throttle_pct: u8::try_from(get(sys::VIR_DOMAIN_JOB_AUTO_CONVERGE_THROTTLE)).unwrap_or(u8::MAX),
        })
    }
}

/// What libvirt holds of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// A domain.
    Here {
        /// What it does.
        state: VmState,
        /// Whether it stays defined when it stops.
        persistent: bool,
        /// In post-copy, and after any migration away: whether it goes on, broke, or is over.
        split: Option<Split>,
    },
}

/// How a machine is whose memory is on two hosts (post-copy), by libvirt's reasons for its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Memory follows the guest.
    Flows,
    /// It does not: the connection between the two QEMUs broke.
    Broken,
    /// All of it is on the other host: what is here is stopped, and nobody's any more.
    Over,
}

impl Split {
    fn of(state: sys::virDomainState, reason: u32) -> Option<Self> {
        match (state, reason) {
            (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_POSTCOPY)
            | (sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_POSTCOPY) => Some(Self::Flows),
            (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
            | (sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED) => Some(Self::Broken),
            (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_MIGRATED) => Some(Self::Over),
            _ => None,
        }
    }
}

impl Libvirt {
    /// Migrates, on a thread and a connection of its own; returns when libvirt says that it is over. Dropping
    /// the future does not stop it: [`Libvirt::abort_job`] does.
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's word. After [`Libvirt::abort_job`] that word can be anything
    /// ("Broken pipe" was seen): the caller remembers that it aborted, and looks at [`Libvirt::presence`].
    pub async fn migrate_p2p(&self, vm: VmId, call: MigrateCall) -> Result<(), HvError> {
        let doing = format!("migrate {vm}");
        let another = self.connection.open_another();
        let (done, outcome) = oneshot::channel();
        let migrate = move || {
            // The asker may have gone: the migration goes on without.
            let _ = done.send(another().and_then(|connection| migrate(&connection, vm, &call)));
        };
        let thread = std::thread::Builder::new().name("migrate".to_owned()).spawn(migrate);
        thread.map_err(|error| HvError::failed(&*doing, error))?;
        match outcome.await {
            Ok(Ok(Some(()))) => Ok(()),
            Ok(Ok(None)) => Err(HvError::Unknown { vm }),
            Ok(Err(error)) => Err(HvError::failed(doing, error)),
            Err(panicked) => Err(HvError::failed(doing, panicked)),
        }
    }

    /// Ends the running migration; the guest goes on here. With nothing to end it is no error.
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's.
    pub async fn abort_job(&self, vm: VmId) -> Result<(), HvError> {
        let abort = |domain: &Domain| match ffi::abort_job(domain) {
            Err(error) if error.code().is(ErrorNumber::OperationInvalid) => Ok(()),
            outcome => outcome,
        };
        self.connection.on_domain(vm, "abort the migration of", abort).await
    }

    /// Lets the guest of a migration that is under way go over to the target before all of its memory has.
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's.
    pub async fn start_post_copy(&self, vm: VmId) -> Result<(), HvError> {
        self.connection.on_domain(vm, "send over (post-copy)", ffi::start_post_copy).await
    }

    /// How the running migration stands; `None` if there is none, or the domain is gone.
    ///
    /// # Errors
    /// Libvirt's.
    pub async fn job_progress(&self, vm: VmId) -> Result<Option<JobProgress>, HvError> {
        self.job(vm, 0).await
    }

    /// The figures of the last migration that ended here; `None` if libvirt has none. They are kept.
    ///
    /// # Errors
    /// Libvirt's.
    pub async fn completed_job(&self, vm: VmId) -> Result<Option<JobProgress>, HvError> {
        self.job(vm, sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED).await
    }

    async fn job(
        &self,
        vm: VmId,
        flags: sys::virDomainGetJobStatsFlags,
    ) -> Result<Option<JobProgress>, HvError> {
        let stats = move |domain: &Domain| match ffi::job_stats(domain, flags) {
            Ok(figures) => Ok(JobProgress::from_figures(&figures)),
            // A domain that does not run has no job.
            Err(error) if error.code().is(ErrorNumber::OperationInvalid) => Ok(None),
            Err(error) => Err(error),
        };
        match self.connection.on_domain(vm, "follow the migration of", stats).await {
            Err(HvError::Unknown { .. }) => Ok(None),
            outcome => outcome,
        }
    }

    /// What libvirt holds of the machine, now.
    ///
    /// # Errors
    /// Libvirt's.
    pub async fn presence(&self, vm: VmId) -> Result<Presence, HvError> {
        let look = |domain: &Domain| {
            let (state, reason) = ffi::domain_state_and_reason(domain)?;
            let split = Split::of(state, reason);
            Ok(Presence::Here { state: life::vm_state(state), persistent: domain.is_persistent()?, split })
        };
        match self.connection.on_domain(vm, "look at", look).await {
            Err(HvError::Unknown { .. }) => Ok(Presence::Absent),
            outcome => outcome,
        }
    }

    /// Holds the machine's processors. A paused or stopped machine stays as it is.
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's.
    pub async fn pause(&self, vm: VmId) -> Result<(), HvError> {
        let pause = |domain: &Domain| match life::vm_state(ffi::domain_state(domain)?) {
            VmState::Running => domain.suspend(),
            _ => Ok(()),
        };
        self.connection.on_domain(vm, "pause", pause).await
    }
}

fn migrate(connection: &Private, vm: VmId, call: &MigrateCall) -> Result<Option<()>, VirtError> {
    let Some(domain) = connection::find(connection.connect(), vm)? else { return Ok(None) };
    domain.migrate_to_uri3(Some(&call.dconn_uri), call.parameters(), call.flags()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_asks_for_what_its_fields_say_and_always_for_peer_to_peer() {
        let call = MigrateCall {
            dconn_uri: "qemu+unix:///system?socket=/c".to_owned(),
            migrate_uri: "unix:///m".to_owned(),
            disks_uri: Some("unix:///d".to_owned()),
            disk_copy: DiskCopy::Top,
            disks: vec!["vda".to_owned()],
            paused: true,
            post_copy: false,
            parallel: None,
            bandwidth_mib: Some(7),
            target_xml: None,
            throttle: None,
        };
        let flags = call.flags();
        for wanted in [sys::VIR_MIGRATE_PEER2PEER, sys::VIR_MIGRATE_PAUSED, sys::VIR_MIGRATE_NON_SHARED_INC] {
            assert_ne!(flags & wanted, 0, "{wanted}");
        }
        assert_eq!(flags & (sys::VIR_MIGRATE_PARALLEL | sys::VIR_MIGRATE_NON_SHARED_DISK), 0);
        let parameters = call.parameters();
        assert_eq!((parameters.bandwidth, parameters.parallel_connections), (Some(7), None));
        assert_eq!((flags & sys::VIR_MIGRATE_AUTO_CONVERGE, parameters.auto_converge_initial), (0, None));
        let slowed = MigrateCall { throttle: Throttle::up_to(15), ..call.clone() };
        assert_ne!(slowed.flags() & sys::VIR_MIGRATE_AUTO_CONVERGE, 0);
        assert_eq!(slowed.parameters().auto_converge_initial, Some(15));
        assert_ne!(MigrateCall { parallel: Some(2), ..call }.flags() & sys::VIR_MIGRATE_PARALLEL, 0);
    }
}
