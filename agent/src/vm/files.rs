//! The port to a machine's files: images, disk, seed. The real one is in `crate::image`.

use crate::hypervisor::MachineFiles;
use async_trait::async_trait;
use novacron_common::{ids::VmId, spec::VmSpec, wire::DenialCode};

/// A machine's files could not be made ready.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}")]
pub struct FilesError {
    /// What was being done.
    pub doing: String,
    /// What the coordinator is told.
    pub code: DenialCode,
    /// Why.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// Makes and removes the files of machines. Both are idempotent.
#[async_trait]
pub trait Files: Send + Sync {
    /// Fetches the images that are missing, and makes disk and seed unless they are there.
    async fn prepare(&self, vm: VmId, spec: &VmSpec) -> Result<MachineFiles, FilesError>;

    /// Removes the machine's folder. Images stay.
    async fn remove(&self, vm: VmId) -> Result<(), FilesError>;
}
