//! What users ask for, checked on construction. These types are what the ledger keeps and the wire carries
//! (bincode: no untagged, flattened or skipped fields); their JSON twins are in [`crate::api`].

mod dst;
mod fault;
mod health;
mod image;
mod job;
mod lease;
mod name;
mod network;
mod publish;
pub mod schedule;
mod signal;
mod stop;
mod tenant;
mod vm;
mod volume;
pub mod workflow;

pub use dst::{Dst, Fold, Gap};
pub use fault::{Fault, Faults};
pub use health::{HealthCheck, HealthSpec, HealthTest};
pub use image::{
    BadDigest, BootSource, ImageFormat, ImageRef, ImageRun, ImageSource, Sha256Digest, TemplateSpec,
};
pub use job::{
    Backoff, CommandTarget, Concurrency, ExitCodes, HttpMethod, HttpTarget, JobSpec, JobTarget, Misfire,
    MisfirePolicy, Program, Retention, RetryOn, RetryPolicy, Root, STDIN_MAX, StatusRange, VmCommandTarget,
    VmVerb, VmVerbTarget,
};
pub use lease::OnLeaseLost;
pub use name::{BadName, Name};
pub use network::{MacAddress, NetworkSpec};
pub use publish::{BadPublishedPort, Protocol, PublishedPort};
pub use schedule::{Schedule, TimeZone};
pub use signal::{BadSignal, Signal};
pub use stop::StopTerms;
pub use tenant::{BadSubnet, Subnet, TenantNetwork};
pub use vm::{CloudInit, MachineKind, Mobility, RestartPolicy, VmSpec};
pub use volume::{BadVolume, FolderPath, VolumeMount, VolumeSource};
