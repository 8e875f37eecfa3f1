//! Where machines' files are made: images from the store, unpacked if they are archives, disk and seed in the machine's
//! own folder.

use crate::{
    hypervisor::{MachineFiles, RootImage},
    image::{
        DiskError, Disks, FetchProgress, ImageError, ImageStore, LocalImages,
        rootfs::{LayerStore, RootfsError},
    },
    vm::{Board, Files, FilesError},
};
use async_trait::async_trait;
use novacron_common::{
    ids::VmId,
    record::Progress,
    spec::{ImageRef, VmSpec},
    units::ByteCount,
    wire::DenialCode,
};
use std::sync::Arc;

/// The real [`Files`]. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    /// Images.
    pub images: Arc<ImageStore>,
    /// Unpacked archives.
    pub layers: Arc<LayerStore>,
    /// Machines' folders.
    pub disks: Disks,
    /// Where the progress of a fetch is shown.
    pub board: Arc<Board>,
}

impl Room {
    /// The names of a machine's files, whether or not they are there.
    pub fn files(&self, vm: VmId, spec: &VmSpec) -> MachineFiles {
        let archive = spec.template.archive();
        let root = archive.and_then(|archive| self.layers.find(archive.sha256).ok().flatten());
        let images = LocalImages { root, ..self.images.locate(&spec.template) };
        self.disks.files(vm, spec, &images)
    }

    /// Has the template's archive unpacked, if it has one.
    async fn unpacked(&self, vm: VmId, spec: &VmSpec) -> Result<Option<RootImage>, RootfsError> {
        let Some(archive) = spec.template.archive() else { return Ok(None) };
        self.board.note_progress(
            vm,
            "unpacking the image".to_owned(),
            Progress { received: ByteCount(0), total: None },
        );
        let (layers, path) = (Arc::clone(&self.layers), self.images.path(archive));
        let (sha256, format) = (archive.sha256, archive.format);
        let work = tokio::task::spawn_blocking(move || layers.ensure(&path, sha256, format)).await;
        work.unwrap_or_else(|cause| Err(RootfsError::ended(cause))).map(Some)
    }
}

#[async_trait]
impl Files for Room {
    async fn prepare(&self, vm: VmId, spec: &VmSpec) -> Result<MachineFiles, FilesError> {
        let show = |_: &ImageRef, progress: FetchProgress| {
            let FetchProgress { received, total } = progress;
            self.board.note_progress(vm, fetching(progress), Progress { received, total });
        };
        let images = self.images.ensure_template(&spec.template, show).await.map_err(|c| no_image(vm, c))?;
        let root = self.unpacked(vm, spec).await.map_err(|cause| FilesError {
            doing: format!("unpack the image of {vm}"),
            code: DenialCode::Image,
            cause: cause.into(),
        })?;
        let images = LocalImages { root, ..images };
        self.disks.create(vm, spec, &images).await.map_err(|c| no_disk(vm, c))
    }

    async fn remove(&self, vm: VmId) -> Result<(), FilesError> {
        self.disks.remove(vm).await.map_err(|cause| FilesError {
            doing: format!("remove the files of {vm}"),
            code: DenialCode::Failed,
            cause: cause.into(),
        })
    }
}

/// "fetching an image: 45 % of 1.2 GiB".
fn fetching(FetchProgress { received, total }: FetchProgress) -> String {
    match total.filter(|total| total.0 > 0) {
        Some(total) => {
            format!("fetching an image: {} % of {total}", received.0.saturating_mul(100) / total.0)
        }
        None => format!("fetching an image: {received} so far"),
    }
}

fn no_image(vm: VmId, cause: ImageError) -> FilesError {
    let code = match cause {
        ImageError::NoRoom { .. } => DenialCode::NoRoom,
        _ => DenialCode::Image,
    };
    FilesError { doing: format!("get the images of {vm}"), code, cause: cause.into() }
}

fn no_disk(vm: VmId, cause: DiskError) -> FilesError {
    let code = match cause {
        DiskError::TooSmall { .. } => DenialCode::Invalid,
        _ => DenialCode::Failed,
    };
    FilesError { doing: format!("make the disk of {vm}"), code, cause: cause.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_like_a_sentence() {
        let progress = FetchProgress { received: ByteCount::mib(256), total: Some(ByteCount::gib(1)) };
        assert_eq!(fetching(progress), "fetching an image: 25 % of 1.0 GiB");
        assert_eq!(
            fetching(FetchProgress { total: None, ..progress }),
            "fetching an image: 256.0 MiB so far"
        );
    }
}
