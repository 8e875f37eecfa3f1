//! Where machines' files are made: images from the store, disk and seed in the machine's own folder.

use crate::{
    hypervisor::MachineFiles,
    image::{DiskError, Disks, ImageError, ImageStore},
    vm::{Files, FilesError},
};
use async_trait::async_trait;
use novacron_common::{ids::VmId, spec::VmSpec, wire::DenialCode};
use std::sync::Arc;

/// The real [`Files`]. Cheap to clone.
#[derive(Clone)]
pub struct Room {
    /// Images.
    pub images: Arc<ImageStore>,
    /// Machines' folders.
    pub disks: Disks,
}

impl Room {
    /// The names of a machine's files, whether or not they are there.
    pub fn files(&self, vm: VmId, spec: &VmSpec) -> MachineFiles {
        self.disks.files(vm, spec, &self.images.locate(&spec.template))
    }
}

#[async_trait]
impl Files for Room {
    async fn prepare(&self, vm: VmId, spec: &VmSpec) -> Result<MachineFiles, FilesError> {
        let log = |image: &novacron_common::spec::ImageRef, progress: crate::image::FetchProgress| {
            tracing::debug!(%vm, sha256 = %image.sha256, received = %progress.received, "fetching an image");
        };
        let images = self.images.ensure_template(&spec.template, log).await.map_err(|c| no_image(vm, c))?;
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
