//! A machine's disk on both hosts, compared on request: the source says what it held when it had left, the target reads its
//! copy before it lets the machine run. Neither is written to meanwhile.

use super::{parts::MigrationsParts, ports::Failure, source::Departure, target::Arrival};
use crate::{
    image::digest::{Below, of_overlay},
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::{DiskDigest, MigrationReport},
    spec::VmSpec,
};
use novacron_runtime::spawn_blocking;

impl Departure {
    /// The report, with what the disk holds here if somebody wants to compare it.
    pub(super) async fn with_disk(&self, report: MigrationReport) -> MigrationReport {
        if !self.limits.verify_disk {
            return report;
        }
        let disk = digest(&self.parts, self.ticket.vm, &self.spec).await.unwrap_or_else(|error| {
            // The migration says that it was not compared.
            tracing::warn!(migration = %self.ticket.migration, reason = describe(&*error), "its disk cannot be compared");
            None
        });
        MigrationReport { disk, ..report }
    }
}

impl Arrival {
    /// Whether the disk here is the one that `left`, if that is to be known; if not, why.
    pub(super) async fn is_the_disk(&self, left: Option<DiskDigest>) -> Result<(), String> {
        let Some(left) = left else { return Ok(()) };
        let here = digest(&self.parts, self.ticket.vm, &self.spec).await;
        let here =
            here.map_err(|error| format!("the disk that arrived cannot be compared: {}", describe(&*error)))?;
        if here == Some(left) {
            tracing::info!(migration = %self.ticket.migration, data = %left.data, "both disks are the same");
            return Ok(());
        }
        Err("the disk that arrived is not the one that left".to_owned())
    }
}

/// What the machine's disk on this host holds; `None` if it has none.
async fn digest(parts: &MigrationsParts, vm: VmId, spec: &VmSpec) -> Result<Option<DiskDigest>, Failure> {
    let files = parts.files.prepare(vm, spec).await?;
    let below = if files.backing.is_some() { Below::Image } else { Below::Nothing };
    let Some(disk) = files.disk else { return Ok(None) };
    Ok(Some(spawn_blocking(move || of_overlay(&disk, below)).await??))
}
