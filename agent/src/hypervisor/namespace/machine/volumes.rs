//! What of its host a machine is shown: volumes by name, from the host's [`Shelf`], and folders below those that
//! the host's configuration names.

use super::{defined::Defined, life::Shared, shelf::Shelf};
use crate::hypervisor::{
    HvError,
    namespace::request::{Volume, VolumeFrom},
};
use novacron_common::{
    ids::VmId,
    spec::{FolderPath, Name, VolumeMount, VolumeSource},
    units::ByteCount,
};
use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What a host's machines may be shown of it.
#[derive(Debug, Clone)]
pub struct Volumes {
    /// Folders of the host, with all that is below them.
    pub folders: Vec<PathBuf>,
    /// Volumes by their names.
    pub shelf: Arc<Shelf>,
}

impl Volumes {
    /// These folders, and volumes of this size below the agent's data.
    pub fn new(data_dir: &Path, folders: Vec<PathBuf>, size: ByteCount) -> Self {
        Self { folders, shelf: Arc::new(Shelf::new(data_dir, size)) }
    }

    /// What the size is where nobody says.
    pub const SIZE_USUAL: ByteCount = ByteCount::gib(1);

    /// What the size may be, MiB: ext4 needs room for its own records.
    pub const SIZE_MB: RangeInclusive<u64> = 16..=64 << 20;

    /// The allowed folder that a folder is in, and the way from there.
    fn allowed(&self, folder: &FolderPath) -> Option<(PathBuf, PathBuf)> {
        self.folders.iter().find_map(|allowed| {
            let below = Path::new(folder.as_str()).strip_prefix(allowed).ok()?;
            Some((allowed.clone(), below.to_owned()))
        })
    }
}

impl Shared {
    /// Has what the machine asks for there, and says how it is got at.
    pub(super) async fn bound(&self, vm: VmId, wanted: &[VolumeMount]) -> Result<Vec<Volume>, HvError> {
        let mut volumes = Vec::new();
        for VolumeMount { source, target, read_only } in wanted {
            let source = match source {
                VolumeSource::Named(name) => VolumeFrom::Disk(self.disk(vm, name).await?),
                VolumeSource::Folder(folder) => self.folder_of_host(vm, folder)?,
            };
            volumes.push(Volume { source, target: target.clone(), read_only: *read_only });
        }
        // What is within another comes after it, or would be covered.
        volumes.sort_by(|one, other| one.target.cmp(&other.target));
        Ok(volumes)
    }

    async fn disk(&self, vm: VmId, name: &Name) -> Result<PathBuf, HvError> {
        if let Some(other) = self.user_of(name, vm) {
            let why = format!("{other} has it, and one machine at a time can: stop that one first");
            return Err(HvError::failed(format!("take the volume {name} for {vm}"), why));
        }
        let disk = self.volumes.shelf.disk(name, &self.blanks).await;
        disk.map_err(|cause| HvError::failed(format!("make the volume {name} for {vm}"), cause))
    }

    /// Another machine that runs with it. Of two that are started at once the file's lock lets in one.
    fn user_of(&self, name: &Name, vm: VmId) -> Option<VmId> {
        let has_it = |defined: Defined| {
            defined.spec.volumes.iter().any(|volume| volume.source == VolumeSource::Named(name.clone()))
        };
        let live: Vec<VmId> = self.live().keys().copied().filter(|other| *other != vm).collect();
        live.into_iter().find(|other| self.defined(*other).is_ok_and(has_it))
    }

    fn folder_of_host(&self, vm: VmId, folder: &FolderPath) -> Result<VolumeFrom, HvError> {
        let doing = || format!("show {folder} to {vm}");
        let why = "it is below none of `volume_folders` in the section [namespace] of this host's agent.toml";
        let allowed = self.volumes.allowed(folder);
        let (allowed, below) = allowed.ok_or_else(|| HvError::failed(doing(), why))?;
        Ok(VolumeFrom::Folder { allowed, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_shown_if_it_is_below_one_that_may_be() {
        let volumes = |folders| Volumes::new(Path::new("/nowhere"), folders, Volumes::SIZE_USUAL);
        let some = volumes(vec!["/srv/a".into(), "/data".into()]);
        let allowed = |path: &str| some.allowed(&path.parse().unwrap());
        let found = |allowed: &str, below: &str| Some((PathBuf::from(allowed), PathBuf::from(below)));
        assert_eq!(allowed("/srv/a/b/c"), found("/srv/a", "b/c"));
        assert_eq!(allowed("/data"), found("/data", ""));
        for other in ["/srv", "/srv/ab", "/etc", "/x/srv/a"] {
            assert_eq!(allowed(other), None, "{other}");
        }
        assert_eq!(volumes(Vec::new()).allowed(&"/srv".parse().unwrap()), None);
    }
}
