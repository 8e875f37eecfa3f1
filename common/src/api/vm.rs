//! Machines over HTTP.

use super::{template::check_cmdline, vm_health::HealthBody, vm_kind::VmMobility, vm_volumes};
use crate::{
    ids::{HostId, NetworkId, VmId},
    record::{HealthState, Progress, VmState, VmStatistics},
    spec::{
        CloudInit, Faults, HealthSpec, MachineKind, NetworkSpec, PublishedPort, RestartPolicy, Signal,
        TemplateSpec, VmSpec,
    },
    units::{ByteCount, Epoch, UnixMillis},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use utoipa::ToSchema;

/// What a machine may use. RAM and disk are given in GB (2^30 bytes) or, for small machines, in MB (2^20).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Virtual CPUs.
    pub cpu: u32,
    /// RAM in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<u64>,
    /// RAM in MiB, in place of `memory_gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Disk in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_gb: Option<u64>,
    /// Disk in MiB, in place of `storage_gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_mb: Option<u64>,
}

/// cloud-init's NoCloud seed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInitBody {
    /// The guest's host name; the VM's name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Public keys for the default user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// The whole user-data document in place of the generated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// The machine's one network card.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkBody {
    /// The hosts' bridge (default: the agents' own, `novabr0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// A fixed address with prefix length, such as `10.0.0.7/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// Resolvers.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<IpAddr>,
    /// A tenant network's name or id, for namespace machines: the machine gets a card with an address there. Without it a
    /// namespace machine has no network at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Ports of the host that lead to the machine, on a tenant network: `8080:80`, `5353:53/udp`.
    #[serde(default)]
    pub publish: Vec<String>,
}

/// Whether a machine should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmDesired {
    /// It should run.
    Running,
    /// It should not.
    Stopped,
    /// It should be gone.
    Deleted,
}

fn yes() -> bool {
    true
}

/// `POST /api/v1/vms`. `{name, template, resources{cpu, memory_gb, storage_gb}}` is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmCreate {
    /// Unique in the cluster.
    pub name: String,
    /// A template's name or id.
    pub template: String,
    /// What it may use.
    pub resources: Resources,
    /// `kvm` or `namespace`; by default what the template is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<MachineKind>,
    /// In place of the template's kernel command line, or of the command that a namespace machine's image names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    /// Its network card.
    #[serde(default)]
    pub network: NetworkBody,
    /// Its cloud-init seed; without it none is attached, except that a template that boots from disk gets a
    /// default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_init: Option<CloudInitBody>,
    /// `never` (default), or `always`: after a host boot, when it ended by itself, and when it is unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Whether a live move that does not converge may end by post-copy (default false): the guest goes over, and the rest
    /// of its memory follows. If the link or a host fails just then, the guest stands still until both are back, or is
    /// lost.
    #[serde(default)]
    pub post_copy: bool,
    /// `migratable` starts a namespace machine so that its processes can be saved and restored (default `usual`).
    #[serde(default)]
    pub mobility: VmMobility,
    /// How a namespace machine is asked whether it is well, in place of what its image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthBody>,
    /// What a namespace machine is shown of its host: `data:/var/lib/data` is a volume of the host's by its name, which is made when it
    /// is first asked for and outlives the machine; `/srv/www:/www:ro` a folder that the host's configuration allows. Needs `host`.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// A host's name or id; without it the placement decides and says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether it is started at once (default true).
    #[serde(default = "yes")]
    pub start: bool,
}

impl VmCreate {
    /// Checks the request against its template and its tenant network, which the caller has looked up.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong.
    pub fn to_spec(&self, template: &TemplateSpec, tenant: Option<NetworkId>) -> Result<VmSpec, Faults> {
        let mut faults = Faults::default();
        let name = faults.take("name", self.name.parse());
        let (memory, storage) = self.resources.check(template, &mut faults);
        if let Some(cmdline) = &self.cmdline {
            check_cmdline("cmdline", cmdline, &mut faults);
        }
        let network = self.network.check(tenant, &mut faults);
        let kind = self.check_kind(template, &mut faults);
        let cloud_init = self.check_cloud_init(template, &mut faults);
        let health = self.health.as_ref().map_or_else(HealthSpec::default, |body| body.check(&mut faults));
        let volumes = vm_volumes::check(&self.volumes, self.host.is_some(), &mut faults);
        let spec = name.zip(network).map(|(name, network)| VmSpec {
            name,
            kind,
            cpus: self.resources.cpu,
            memory,
            storage,
            template: template.clone(),
            cmdline: self.cmdline.clone(),
            network,
            cloud_init,
            restart: self.restart.unwrap_or(RestartPolicy::Never),
            mobility: self.mobility(),
            health,
            volumes,
        });
        faults.into_result(spec)
    }

    fn check_cloud_init(&self, template: &TemplateSpec, faults: &mut Faults) -> Option<CloudInit> {
        match &self.cloud_init {
            Some(body) => body.check(faults),
            None if template.archive().is_some() => None,
            None if template.boot == crate::spec::BootSource::Disk => Some(CloudInit::default()),
            None => None,
        }
    }
}

impl Resources {
    fn check(&self, template: &TemplateSpec, faults: &mut Faults) -> (ByteCount, ByteCount) {
        if !(1..=VmSpec::CPUS_MAX).contains(&self.cpu) {
            faults.add("resources.cpu", format!("must be 1 to {}", VmSpec::CPUS_MAX));
        }
        let memory =
            amount(("resources.memory_gb", self.memory_gb), ("resources.memory_mb", self.memory_mb), faults);
        let storage = amount(
            ("resources.storage_gb", self.storage_gb),
            ("resources.storage_mb", self.storage_mb),
            faults,
        );
        let memory = memory.unwrap_or_else(|| {
            faults.add("resources.memory_gb", "is missing (or give memory_mb)");
            VmSpec::MEMORY_MIN
        });
        let storage = storage.unwrap_or_default();
        if !(VmSpec::MEMORY_MIN..=VmSpec::MEMORY_MAX).contains(&memory) {
            let field = if self.memory_gb.is_some() { "resources.memory_gb" } else { "resources.memory_mb" };
            faults.add(field, format!("must be {} to {}", VmSpec::MEMORY_MIN, VmSpec::MEMORY_MAX));
        }
        if storage > VmSpec::STORAGE_MAX {
            let field =
                if self.storage_gb.is_some() { "resources.storage_gb" } else { "resources.storage_mb" };
            faults.add(field, format!("must be at most {}", VmSpec::STORAGE_MAX));
        }
        if template.disk.is_some() && template.archive().is_none() && storage == ByteCount(0) {
            faults.add("resources.storage_gb", "is missing: the template has a disk image");
        }
        (memory, storage)
    }
}

fn amount(
    (gb_field, gb): (&str, Option<u64>),
    (mb_field, mb): (&str, Option<u64>),
    faults: &mut Faults,
) -> Option<ByteCount> {
    let (field, value, shift) = match (gb, mb) {
        (Some(_), Some(_)) => {
            faults.add(mb_field, format!("give only one of {gb_field} and {mb_field}"));
            return Some(ByteCount(0));
        }
        (Some(gb), None) => (gb_field, gb, 30),
        (None, Some(mb)) => (mb_field, mb, 20),
        (None, None) => return None,
    };
    let bytes = value.checked_mul(1 << shift);
    if bytes.is_none() {
        faults.add(field, "is absurdly large");
    }
    bytes.map(ByteCount)
}

impl NetworkBody {
    fn check(&self, tenant: Option<NetworkId>, faults: &mut Faults) -> Option<NetworkSpec> {
        let bridge = self.bridge.as_ref().map(|b| faults.take("network.bridge", b.parse()));
        if self.bridge.as_ref().is_some_and(|b| b.len() > 15) {
            faults.add("network.bridge", "is longer than the 15 characters of a Linux interface name");
        }
        let address = self.address.as_ref().map(|a| {
            let parsed = a.parse::<ipnet::IpNet>().map_err(|_| "write it like 10.0.0.7/24".to_owned());
            faults.take("network.address", parsed)
        });
        if self.name.is_none() && !self.publish.is_empty() {
            faults.add(
                "network.publish",
                "needs a network.name: only what is on a tenant network has ports to publish",
            );
        }
        if self.dns.len() > 8 {
            faults.add("network.dns", "has more than 8 resolvers");
        }
        Some(NetworkSpec {
            bridge: bridge.flatten(),
            address: address.flatten(),
            gateway: self.gateway,
            dns: self.dns.clone(),
            tenant,
            publish: self.check_publish(faults),
        })
    }
}

impl NetworkBody {
    fn check_publish(&self, faults: &mut Faults) -> Vec<PublishedPort> {
        if self.publish.len() > NetworkSpec::PUBLISH_MAX {
            faults.add("network.publish", format!("has more than {} ports", NetworkSpec::PUBLISH_MAX));
        }
        let mut taken = BTreeSet::new();
        let ports = self.publish.iter().enumerate().filter_map(|(i, text)| {
            let field = format!("network.publish[{i}]");
            let port: PublishedPort = faults.take(&field, text.parse())?;
            if !taken.insert((port.protocol, port.host)) {
                faults
                    .add(field, format!("leads the host's port {} elsewhere than one before it", port.host));
            }
            Some(port)
        });
        ports.collect()
    }
}

impl CloudInitBody {
    const SSH_KEYS_MAX: usize = 64;
    const SSH_KEY_LENGTH_MAX: usize = 16 * 1024;

    fn check(&self, faults: &mut Faults) -> Option<CloudInit> {
        let hostname = self.hostname.as_ref().map(|h| faults.take("cloud_init.hostname", h.parse()));
        if self.ssh_keys.len() > Self::SSH_KEYS_MAX {
            faults.add("cloud_init.ssh_keys", format!("has more than {} keys", Self::SSH_KEYS_MAX));
        }
        for (i, key) in self.ssh_keys.iter().enumerate() {
            if key.len() > Self::SSH_KEY_LENGTH_MAX || key.chars().any(char::is_control) || !key.contains(' ')
            {
                faults.add(
                    format!("cloud_init.ssh_keys[{i}]"),
                    "must be one line like \"ssh-ed25519 AAAA… comment\"",
                );
            }
        }
        if self.user_data.as_ref().is_some_and(|u| u.len() as u64 > VmSpec::USER_DATA_MAX.0) {
            faults.add("cloud_init.user_data", format!("is longer than {}", VmSpec::USER_DATA_MAX));
        }
        Some(CloudInit {
            hostname: hostname.flatten(),
            ssh_keys: self.ssh_keys.clone(),
            user_data: self.user_data.clone(),
        })
    }
}

/// `PUT /api/v1/vms/{id}`: fields that are absent stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmUpdate {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it starts by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartPolicy>,
    /// Whether it may be moved by post-copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_copy: Option<bool>,
}

/// `POST /api/v1/vms/{id}/kill`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmKill {
    /// Which signal (default KILL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmView {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// KVM or namespace.
    pub kind: MachineKind,
    /// What it was made from.
    pub template: String,
    /// What it may use.
    pub resources: Resources,
    /// What is wanted of it.
    pub desired: VmDesired,
    /// What is seen of it.
    pub state: VmState,
    /// Whether it is well, as its health check says; absent where it has none, or does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// Why, where `state` and `health` alone do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How far the fetch of an image is, while it is prepared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The host that may run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// That host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Its fencing epoch.
    pub epoch: Epoch,
    /// Its Ethernet address.
    pub mac: String,
    /// Its IP addresses: the fixed one, and what its host sees.
    pub addresses: Vec<String>,
    /// The tenant network that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Ports of its host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// What of its host it is shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Whether it starts by itself.
    pub restart: RestartPolicy,
    /// Whether it may be moved by post-copy.
    #[serde(default)]
    pub post_copy: bool,
    /// Whether its processes can be saved and restored.
    #[serde(default)]
    pub mobility: VmMobility,
    /// Why it was placed where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// Processor time used since it was started, milliseconds.
    pub cpu_ms: u64,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What a machine has used since it was started, and what it may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmStats {
    /// Its id.
    pub id: VmId,
    /// Its name.
    pub name: String,
    /// What is seen of it.
    pub state: VmState,
    /// Its host.
    pub host: HostId,
    /// Processors that it may use at once.
    pub cpus: u32,
    /// Most memory that it may use, bytes.
    pub memory_limit: ByteCount,
    /// What it has used.
    pub used: VmStatistics,
}

#[cfg(test)]
#[path = "vm_tests.rs"]
mod tests;
