//! What kind of machine a request asks for, and what that kind may be asked for.

use super::{NetworkBody, VmCreate};
use crate::spec::{Faults, MachineKind, Mobility, TemplateSpec};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a machine may leave its host, beside what its kind does anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmMobility {
    /// In no other way.
    #[default]
    Usual,
    /// A namespace machine whose processes can be saved and restored (`checkpoint`, `restore`).
    Migratable,
}

/// `POST /api/v1/vms/{id}/checkpoint`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCheckpoint {
    /// Whether the machine runs on (default false: it is paused then, uses nothing but disk, and outlives its host's restart).
    #[serde(default)]
    pub leave_running: bool,
}

impl From<Mobility> for VmMobility {
    fn from(mobility: Mobility) -> Self {
        match mobility {
            Mobility::Migratable => Self::Migratable,
            Mobility::Usual | Mobility::PostCopy => Self::Usual,
        }
    }
}

impl VmCreate {
    /// Once [`Self::check_kind`] has seen to it that only one is asked for.
    pub(super) fn mobility(&self) -> Mobility {
        match self.mobility {
            VmMobility::Migratable => Mobility::Migratable,
            VmMobility::Usual => Mobility::Usual.with_post_copy(self.post_copy),
        }
    }

    /// An archive is the root of namespace machines and of no other; a disk or a kernel of virtual machines alone.
    pub(super) fn check_kind(&self, template: &TemplateSpec, faults: &mut Faults) -> MachineKind {
        let fits = match template.archive() {
            Some(_) => MachineKind::Namespace,
            None => MachineKind::Kvm,
        };
        match (self.kind, fits) {
            (Some(MachineKind::Kvm), MachineKind::Namespace) => {
                faults.add(
                    "kind",
                    "must be namespace: the template's image is a root file system, and no disk",
                );
            }
            (Some(MachineKind::Namespace), MachineKind::Kvm) => {
                faults.add("kind", "must be kvm, or give a template whose disk has the format oci or rootfs");
            }
            _ => {}
        }
        match fits {
            MachineKind::Namespace => self.check_namespace(faults),
            MachineKind::Kvm => self.check_kvm(faults),
        }
        fits
    }

    fn check_kvm(&self, faults: &mut Faults) {
        if self.network.name.is_some() {
            faults.add(
                "network.name",
                "must be left out: only namespace machines are on tenant networks; give a virtual machine a bridge",
            );
        }
        if !self.volumes.is_empty() {
            faults.add("volumes", "must be left out: only namespace machines have volumes");
        }
        if self.mobility == VmMobility::Migratable {
            faults.add(
                "mobility",
                "must be left out: virtual machines move anyway; only namespace machines are migratable",
            );
        }
        if self.health.is_some() {
            faults.add("health", "must be left out: only namespace machines are asked whether they are well");
        }
    }

    /// What namespace machines do not have is refused, and not left out in silence.
    fn check_namespace(&self, faults: &mut Faults) {
        let NetworkBody { bridge, address, gateway, dns, name, publish: _ } = &self.network;
        if bridge.is_some() {
            faults.add(
                "network.bridge",
                "must be left out: a namespace machine is on a tenant network (network.name)",
            );
        }
        if address.is_some() || gateway.is_some() {
            faults.add(
                "network.address",
                "must be left out, as gateway: the tenant network gives the machine both",
            );
        }
        if name.is_none() && !dns.is_empty() {
            faults.add("network.dns", "needs a network.name: without a network there is nobody to ask");
        }
        if self.cloud_init.is_some() {
            faults.add(
                "cloud_init",
                "must be left out: a namespace machine runs its command, and no cloud-init",
            );
        }
        if self.post_copy {
            faults.add("post_copy", "must be left out: namespace machines do not move while they run yet");
        }
        if self.mobility == VmMobility::Migratable {
            self.check_migratable(faults);
        }
    }

    /// What the request itself shows to be tied to one host.
    fn check_migratable(&self, faults: &mut Faults) {
        for (at, volume) in self.volumes.iter().enumerate() {
            let what = if volume.starts_with('/') { "a folder" } else { "a volume" };
            faults.add(
                format!("volumes[{at}]"),
                format!(
                    "must be left out of a migratable machine: {what} of the host cannot be carried along"
                ),
            );
        }
    }
}
