//! A machine as the ledger keeps it.

use super::{HealthSpec, Name, NetworkSpec, TemplateSpec, VolumeMount};
use crate::units::ByteCount;
use serde::{Deserialize, Serialize};

/// What kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineKind {
    /// A virtual machine under QEMU (KVM, or TCG where the host has no working KVM).
    Kvm,
    /// Processes in their own Linux namespaces.
    Namespace,
}

/// Whether a machine that is not running is started without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartPolicy {
    /// Only on request.
    Never,
    /// After a host boot, or when the guest ended although it should run. One that is unhealthy is stopped and started.
    Always,
}

/// How a machine may leave its host while it runs. Stored where a flag for post-copy once was, with whose two values the first two
/// agree byte for byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mobility {
    /// As its kind does: a virtual machine by pre-copy, a namespace machine not at all.
    #[default]
    Usual,
    /// A virtual machine: by post-copy too, which can strand or lose its running guest.
    PostCopy,
    /// A namespace machine whose processes can be saved and restored (CRIU): it is started with what that needs.
    Migratable,
}

impl Mobility {
    /// Whether post-copy is allowed.
    pub fn allows_post_copy(self) -> bool {
        self == Self::PostCopy
    }

    /// With post-copy allowed or not; what is migratable stays so.
    #[must_use]
    pub fn with_post_copy(self, allowed: bool) -> Self {
        match (self, allowed) {
            (Self::Migratable, _) => self,
            (_, true) => Self::PostCopy,
            (_, false) => Self::Usual,
        }
    }
}

/// What the NoCloud seed tells the guest (cloud-init's NoCloud data source).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInit {
    /// The guest's host name; the VM's name if absent.
    pub hostname: Option<Name>,
    /// Public keys for the default user, one line each.
    pub ssh_keys: Vec<String>,
    /// The whole user-data document in place of the generated one.
    pub user_data: Option<String>,
}

/// Everything a host needs to know to run a machine. The template is resolved at creation: a template that is
/// changed or deleted later does not change machines made from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// Unique in the cluster.
    pub name: Name,
    /// KVM or namespace.
    pub kind: MachineKind,
    /// Virtual CPUs.
    pub cpus: u32,
    /// RAM, a whole number of MiB.
    pub memory: ByteCount,
    /// Size of the machine's disk; zero for none.
    pub storage: ByteCount,
    /// What it was made from.
    pub template: TemplateSpec,
    /// In place of the template's kernel command line.
    pub cmdline: Option<String>,
    /// Its network card.
    pub network: NetworkSpec,
    /// Its cloud-init seed; `None` attaches none.
    pub cloud_init: Option<CloudInit>,
    /// Whether it starts by itself.
    pub restart: RestartPolicy,
    /// How it may leave its host while it runs.
    pub mobility: Mobility,
    /// How a namespace machine is asked whether it is well, over what its image says.
    pub health: HealthSpec,
    /// What of its host a namespace machine is shown beside its image, in this order. It ties the machine to that host.
    pub volumes: Vec<VolumeMount>,
}

impl VmSpec {
    /// More CPUs than any supported host has.
    pub const CPUS_MAX: u32 = 512;
    /// Smallest RAM that a machine may ask for.
    pub const MEMORY_MIN: ByteCount = ByteCount::mib(16);
    /// Largest RAM that a machine may ask for.
    pub const MEMORY_MAX: ByteCount = ByteCount::gib(16 * 1024);
    /// Largest disk that a machine may ask for.
    pub const STORAGE_MAX: ByteCount = ByteCount::gib(64 * 1024);
    /// Volumes of one machine.
    pub const VOLUMES_MAX: usize = 16;
    /// Largest user-data document (the EC2 limit, which images expect).
    pub const USER_DATA_MAX: ByteCount = ByteCount::kib(16);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;

    #[test]
    fn what_was_stored_as_a_flag_for_post_copy_is_still_understood() {
        for (flag, mobility) in [(false, Mobility::Usual), (true, Mobility::PostCopy)] {
            let stored = codec::encode(&flag).unwrap();
            assert_eq!(codec::decode::<Mobility>(&stored).unwrap(), mobility);
            assert_eq!(codec::encode(&mobility).unwrap(), stored);
            assert_eq!(Mobility::Usual.with_post_copy(flag), mobility);
            assert_eq!(Mobility::Migratable.with_post_copy(flag), Mobility::Migratable);
        }
    }
}
