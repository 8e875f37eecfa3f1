//! What is below the layer that a machine writes to: one folder of the host, or the layers of an image.

use super::{STAGE, idmap, mask};
use crate::hypervisor::namespace::{
    ids::IdMap,
    request::Lower,
    step::{Doing, StepError},
};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::{Mode, fstat},
    unistd::{Gid, Uid, chown},
};
use std::{
    fs::{create_dir, set_permissions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// It, opened: from here on it goes by descriptors, as the stage may cover its path.
pub enum Opened {
    /// Its ids are not mapped: what is in it belongs to nobody.
    Folder(OwnedFd),
    /// Mounts that show it with the machine's ids, the lowest first.
    Layers(Vec<OwnedFd>),
}

impl Opened {
    /// Opens it, for a tree of these ids.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn new(lower: &Lower, map: IdMap) -> Result<Self, StepError> {
        match lower {
            Lower::Folder(folder) => open_folder(folder).map(Self::Folder),
            Lower::Layers(folders) => {
                let user = idmap::user_namespace(map)?;
                let shown = folders.iter().map(|folder| idmap::shown_to(folder, &user));
                shown.collect::<Result<_, _>>().map(Self::Layers)
            }
        }
    }

    /// Paths that overlayfs can be given, the highest first.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn paths(&self) -> Result<Vec<PathBuf>, StepError> {
        match self {
            Self::Folder(folder) => Ok(vec![Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string())]),
            Self::Layers(mounts) => {
                let places = Path::new(STAGE).join("lower");
                create_dir(&places).doing("make places for layers")?;
                let attached = mounts.iter().enumerate().rev();
                attached
                    .map(|(number, mount)| idmap::attach(mount, places.join(number.to_string())))
                    .collect()
            }
        }
    }

    /// Gives the upper layer the folders in which the tree's user 0 may add files.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn open_up(&self, upper: &Path, owner: u32) -> Result<(), StepError> {
        match self {
            Self::Folder(_) => {
                let lower = self.paths()?.remove(0);
                mask::OWNED.iter().try_for_each(|folder| own(&lower, upper, folder, owner))
            }
            // Everything has its right owner already; the root is the upper layer's own.
            Self::Layers(_) => give(upper, owner),
        }
    }
}

/// A root file system must be root's alone: whoever could write to it could run programs in every command that uses it.
fn open_folder(lower: &Path) -> Result<OwnedFd, StepError> {
    let doing = format!("use the root file system {}", lower.display());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = open(lower, flags, Mode::empty()).doing(&doing)?;
    let found = fstat(&folder).doing(&doing)?;
    match found.st_uid == 0 && found.st_mode & 0o022 == 0 {
        true => Ok(folder),
        false => Err(StepError::new(doing, "it must belong to root and be writable by nobody else")),
    }
}

/// Puts a folder of the command's over that of the lower layer, where that shows it nothing new.
fn own(lower: &Path, upper: &Path, folder: &str, owner: u32) -> Result<(), StepError> {
    let Ok(found) = std::fs::symlink_metadata(lower.join(folder)) else { return Ok(()) };
    if !mask::may_own(found.mode()) {
        return Ok(());
    }
    let mine = upper.join(folder);
    if !mine.exists() {
        create_dir(&mine).doing("make a folder of the upper layer")?;
    }
    give(&mine, owner)
}

fn give(folder: &Path, owner: u32) -> Result<(), StepError> {
    set_permissions(folder, PermissionsExt::from_mode(0o755)).doing("open a folder of the upper layer")?;
    chown(folder, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
        .doing("give away a folder of the upper layer")
}
