//! Looks before a move: what the guest is like, how fast the ways are, and what at a target speaks against it. Nothing is begun
//! or reserved, and a move that is under way is not disturbed.
//!
//! * `measure` (source): memory in use, how fast it is written to, what the disk holds, and [`probe`]s to each candidate;
//! * `check` (target): the hypervisor's word on processor and machine type, and [`preflight`] of the host's own facts, of which
//!   `userfault` is one.
//!
//! What follows from the figures is the coordinator's to say (`novacron_core::forecast`), which remembers earlier moves.

pub mod preflight;
pub mod probe;
#[cfg(test)]
mod tests;
mod userfault;

use super::{Migrations, ports::Surveyor};
use crate::{bridge, facts::HostFacts, room::Room, text::describe};
use futures_util::{StreamExt, stream};
use novacron_common::{
    ids::{HostId, VmId},
    record::{
        GuestMeasure, GuestTraits, LinkMeasure, PreflightFault, PreflightKind, VmState, bytes_per_second,
    },
    spec::{MachineKind, VmSpec},
    units::ByteCount,
    wire::{AgentCommand, Denial, DenialCode},
};
use preflight::Site;
use probe::Prober;
use std::{num::NonZeroU32, os::unix::fs::MetadataExt, path::Path, sync::Arc};
use tokio::sync::Semaphore;
use userfault::Userfault;

/// Guests that are measured at the same time.
const MEASURES_MAX: usize = 2;

/// What a look is made with.
pub struct PreviewParts {
    /// The ways to other hosts.
    pub prober: Prober,
    /// The hypervisor; `None` where machines cannot be moved.
    pub surveyor: Option<Arc<dyn Surveyor>>,
    /// Images and folders.
    pub room: Room,
    /// What the host has.
    pub facts: HostFacts,
    /// The bridge for machines that name none.
    pub bridge: String,
    /// Whom QEMU runs as, if not as root.
    pub qemu_user: Option<String>,
    /// What all moves away from this host may take of its link together.
    pub bandwidth_mbit: Option<NonZeroU32>,
    /// Who knows what is under way.
    pub migrations: Migrations,
}

/// Looks. Clones share their limits.
#[derive(Clone)]
pub struct Preview {
    parts: Arc<PreviewParts>,
    turns: Arc<Semaphore>,
}

impl Preview {
    /// With these parts.
    pub fn new(parts: PreviewParts) -> Self {
        Self { parts: Arc::new(parts), turns: Arc::new(Semaphore::new(MEASURES_MAX)) }
    }

    /// For those who serve the other agents' probes.
    pub fn prober(&self) -> &Prober {
        &self.parts.prober
    }

    /// Measures a machine of this host, and the ways to the candidates.
    ///
    /// # Errors
    /// [`Denial`] if too much is measured at once, or for too many.
    pub async fn measure(
        &self,
        vm: VmId,
        spec: &VmSpec,
        candidates: Vec<HostId>,
    ) -> Result<(GuestMeasure, Vec<LinkMeasure>), Denial> {
        if candidates.len() > AgentCommand::CANDIDATES_MAX {
            let text = format!("at most {} ways are measured at once", AgentCommand::CANDIDATES_MAX);
            return Err(Denial { code: DenialCode::Invalid, text });
        }
        let Ok(_turn) = self.turns.try_acquire() else {
            let text =
                format!("{MEASURES_MAX} machines of this host are being measured: try again in some seconds");
            return Err(Denial { code: DenialCode::NoRoom, text });
        };
        let quiet = self.parts.migrations.is_idle();
        let links = stream::iter(candidates)
            .map(|host| self.parts.prober.measure(host, quiet))
            .buffered(probe::PROBES_MAX)
            .map(|link| within_budget(link, self.parts.bandwidth_mbit))
            .collect();
        let (guest, links) = tokio::join!(self.guest(vm, spec), links);
        Ok((guest, links))
    }

    async fn guest(&self, vm: VmId, spec: &VmSpec) -> GuestMeasure {
        let mut measure = GuestMeasure::default();
        let files = self.parts.room.files(vm, spec);
        measure.disk_bytes = files.disk.as_deref().map_or(0, allocated);
        let Some(surveyor) = &self.parts.surveyor else {
            measure.notes.push("this host has no hypervisor that could measure it".to_owned());
            return measure;
        };
        let (in_use, traits, dirty) =
            tokio::join!(surveyor.in_use(vm), surveyor.traits(vm), surveyor.dirty_rate(vm));
        let notes = &mut measure.notes;
        measure.in_use_bytes = noted("the memory in use", in_use, notes).filter(|bytes| *bytes > 0);
        measure.traits = noted("processor and machine type", traits, notes);
        measure.dirty = noted("how fast it writes to its memory", dirty, notes).flatten();
        measure
    }

    /// What speaks against this machine's arrival on this host. `post_copy`: it may come by that.
    pub async fn check(
        &self,
        (vm, spec): (VmId, &VmSpec),
        post_copy: bool,
        traits: Option<&GuestTraits>,
    ) -> Vec<PreflightFault> {
        let Some(surveyor) = self.parts.surveyor.as_ref().filter(|_| spec.kind == MachineKind::Kvm) else {
            return vec![PreflightFault::certain(
                PreflightKind::Acceleration,
                "only KVM machines are moved, and only to hosts with libvirt",
                "choose a host with libvirt, or make the machine anew there",
            )];
        };
        let mut faults = preflight::judge(&self.site(vm, spec, &**surveyor).await, spec, post_copy);
        if let Some(traits) = traits {
            match surveyor.compare(traits).await {
                Ok(found) => faults.extend(found),
                Err(error) => faults.push(PreflightFault::warning(
                    PreflightKind::Cpu,
                    format!("processor and machine type could not be compared: {}", describe(&error)),
                    "see whether libvirtd on the host answers",
                )),
            }
        }
        faults
    }

    /// Why this machine certainly cannot arrive here, of what takes no hypervisor to know. `post_copy`: it may come by that.
    pub async fn refusal(&self, spec: &VmSpec, post_copy: bool) -> Option<Denial> {
        let bridge = self.bridge_of(spec);
        let site = Site { bridge: bridge.to_owned(), has_bridge: has_bridge(bridge).await, ..self.ground() };
        let fault = preflight::judge(&site, spec, post_copy).into_iter().find(|fault| fault.certain)?;
        Some(Denial { code: DenialCode::Unsupported, text: fault.to_string() })
    }

    async fn site(&self, vm: VmId, spec: &VmSpec, surveyor: &dyn Surveyor) -> Site {
        let bridge = self.bridge_of(spec);
        let images = self.parts.room.images.locate(&spec.template);
        let paths = [images.disk.map(|(path, _)| path), images.kernel, images.initramfs];
        let missing = paths.into_iter().flatten().filter(|path| !path.is_file()).count();
        Site {
            bridge: bridge.to_owned(),
            has_bridge: has_bridge(bridge).await,
            missing_images: missing,
            knows_it: !matches!(surveyor.state(vm).await, Ok(VmState::Missing) | Err(_)),
            ..self.ground()
        }
    }

    fn ground(&self) -> Site {
        Site {
            memory_available: self.parts.facts.memory_available(),
            storage_free: self.parts.facts.storage_free(),
            takes_post_copy: self.takes_post_copy(),
            ..Site::default()
        }
    }

    /// Without an answer nothing is held against the host.
    fn takes_post_copy(&self) -> bool {
        Userfault::look(self.parts.qemu_user.as_deref()).is_none_or(|seen| seen.is_allowed())
    }

    fn bridge_of<'a>(&'a self, spec: &'a VmSpec) -> &'a str {
        spec.network.bridge.as_ref().map_or(&self.parts.bridge, |name| name.as_str())
    }
}

/// A way is no faster than moves may be.
fn within_budget(link: LinkMeasure, mbit: Option<NonZeroU32>) -> LinkMeasure {
    let most = mbit.map_or(u64::MAX, bytes_per_second);
    LinkMeasure { rate: link.rate.map(|rate| rate.min(most)), ..link }
}

/// `None`, and a note, for what could not be had.
fn noted<T>(
    what: &str,
    outcome: Result<T, crate::hypervisor::HvError>,
    notes: &mut Vec<String>,
) -> Option<T> {
    outcome.map_err(|error| notes.push(format!("{what} could not be measured: {}", describe(&error)))).ok()
}

/// What a file takes on the disk (stat(2)), which of an overlay is what was written to it.
fn allocated(path: &Path) -> u64 {
    const BLOCK: u64 = 512;
    std::fs::metadata(path).map_or(0, |seen| seen.blocks().saturating_mul(BLOCK))
}

/// Without an answer nothing is held against the host.
async fn has_bridge(name: &str) -> bool {
    bridge::exists(name).await.unwrap_or_else(|error| {
        tracing::debug!(bridge = name, reason = describe(&error), "looking for a bridge");
        true
    })
}

impl Default for Site {
    fn default() -> Self {
        Self {
            memory_available: ByteCount(u64::MAX),
            storage_free: ByteCount(u64::MAX),
            bridge: String::new(),
            has_bridge: true,
            missing_images: 0,
            knows_it: false,
            takes_post_copy: true,
        }
    }
}
