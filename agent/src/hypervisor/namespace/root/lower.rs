//! What a root is made of: one folder of the host, or the layers of an image with the machine's own above them.

use super::{
    STAGE, idmap, mask, mount_new,
    own::{OwnLayer, making_files_as},
};
use crate::hypervisor::namespace::{
    ids::IdMap,
    request::Lower,
    step::{Doing, StepError},
};
use nix::{
    fcntl::{OFlag, open},
    mount::MsFlags,
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
    /// Mounts that show it with the machine's ids.
    Image {
        /// Those of the image, the lowest first.
        layers: Vec<OwnedFd>,
        /// The machine's own.
        own: OwnLayer,
        /// Whom they are shown to.
        _users: idmap::Users,
    },
}

impl Opened {
    /// Opens it, for a tree of these ids.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn new(lower: &Lower, map: IdMap) -> Result<Self, StepError> {
        match lower {
            Lower::Folder(folder) => open_folder(folder).map(Self::Folder),
            Lower::Image { layers, own } => {
                let users = idmap::Users::of(map)?;
                let shown = layers.iter().map(|folder| idmap::shown_to(folder, &users));
                let layers = shown.collect::<Result<_, _>>()?;
                Ok(Self::Image { layers, own: OwnLayer::open(own, &users)?, _users: users })
            }
        }
    }

    /// Paths that overlayfs can be given, the highest first.
    ///
    /// # Errors
    /// [`StepError`].
    fn paths(&self) -> Result<Vec<PathBuf>, StepError> {
        match self {
            Self::Folder(folder) => Ok(vec![Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string())]),
            Self::Image { layers, .. } => {
                let places = Path::new(STAGE).join("lower");
                create_dir(&places).doing("make places for layers")?;
                let attached = layers.iter().enumerate().rev();
                attached
                    .map(|(number, mount)| idmap::attach(mount, places.join(number.to_string())))
                    .collect()
            }
        }
    }

    /// Puts them on top of each other, with the layer that is written to above, at a folder. `owner` is the tree's user 0.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn mount_at(&self, root: &Path, owner: u32) -> Result<(), StepError> {
        let lowers = self.paths()?;
        match self {
            Self::Folder(_) => {
                let stage = Path::new(STAGE);
                let (upper, work) = (stage.join("upper"), stage.join("work"));
                for folder in [&upper, &work] {
                    create_dir(folder).doing("make the overlay's folders")?;
                }
                // The folders in which user 0 may add files.
                mask::OWNED.iter().try_for_each(|folder| give_own(&lowers[0], &upper, folder, owner))?;
                mount_overlay(root, &lowers, &upper, &work)
            }
            // Everything has its right owner already.
            Self::Image { own, .. } => {
                let (upper, work) = own.attach()?;
                making_files_as(owner, || mount_overlay(root, &lowers, &upper, &work))
            }
        }
    }
}

fn mount_overlay(root: &Path, lowers: &[PathBuf], upper: &Path, work: &Path) -> Result<(), StepError> {
    let lowers: Vec<String> = lowers.iter().map(|path| path.display().to_string()).collect();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lowers.join(":"), upper.display(), work.display());
    mount_new("overlay", root, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options).doing("mount the overlay")
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
fn give_own(lower: &Path, upper: &Path, folder: &str, owner: u32) -> Result<(), StepError> {
    let Ok(found) = std::fs::symlink_metadata(lower.join(folder)) else { return Ok(()) };
    if !mask::may_own(found.mode()) {
        return Ok(());
    }
    let mine = upper.join(folder);
    if !mine.exists() {
        create_dir(&mine).doing("make a folder of the upper layer")?;
    }
    set_permissions(&mine, PermissionsExt::from_mode(0o755)).doing("open a folder of the upper layer")?;
    chown(&mine, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
        .doing("give away a folder of the upper layer")
}
