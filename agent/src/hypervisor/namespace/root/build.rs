//! The supervisor's half: a staging file system, the overlay, the masks.

use super::{Place, STAGE, bind, device, inert, mask, mount_new, new_root, restrict};
use crate::hypervisor::namespace::step::{Doing, StepError};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::{Mode, fstat},
    unistd::{Gid, Uid, chown},
};
use novacron_common::units::ByteCount;
use std::{
    fs::{File, create_dir, metadata, set_permissions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Most files in the upper layer: each costs kernel memory whatever its size.
const INODES_MAX: u32 = 100_000;

/// What the root depends on.
pub struct Plan<'a> {
    /// The folder whose content the root shows: `/` for the host's own.
    pub lower: &'a Path,
    /// The id outside that is 0 inside.
    pub owner: u32,
    /// What may be written to it.
    pub scratch_max: ByteCount,
    /// Paths to mask, beside those that always are.
    pub masked: &'a [PathBuf],
}

/// Gives this process a mount namespace of its own and builds the new root in it.
///
/// # Errors
/// [`StepError`]; nothing needs undoing then, as the namespace goes with the process.
pub fn build(plan: &Plan<'_>) -> Result<(), StepError> {
    leave_the_hosts_mounts()?;
    // The stage may cover the folder: from here on it goes by its descriptor.
    let lower = open_lower(plan.lower)?;
    let size = format!("mode=0755,size={},nr_inodes={INODES_MAX}", plan.scratch_max.0);
    mount_new("tmpfs", Path::new(STAGE), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &size)
        .doing("mount the stage")?;
    mount_overlay(&Path::new("/proc/self/fd").join(lower.as_raw_fd().to_string()), plan.owner)?;
    let root = open(&new_root(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing("open the new root")?;
    mask_secrets(&root, &mask::secrets(plan.masked))?;
    put(&root, &device::build()?, "/dev", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY)?;
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        put(&root, &temporary(place)?, place, MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
    }
    Ok(())
}

/// Slave, not private: a file system that the host unmounts must go from here too, or it stays busy.
fn leave_the_hosts_mounts() -> Result<(), StepError> {
    unshare(CloneFlags::CLONE_NEWNS).doing("make a mount namespace")?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).doing("detach from the host's mounts")
}

/// A root file system must be root's alone: whoever could write to it could run programs in every command that uses it.
fn open_lower(lower: &Path) -> Result<OwnedFd, StepError> {
    let doing = format!("use the root file system {}", lower.display());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let folder = open(lower, flags, Mode::empty()).doing(&doing)?;
    let found = fstat(&folder).doing(&doing)?;
    match found.st_uid == 0 && found.st_mode & 0o022 == 0 {
        true => Ok(folder),
        false => Err(StepError::new(doing, "it must belong to root and be writable by nobody else")),
    }
}

fn mount_overlay(lower: &Path, owner: u32) -> Result<(), StepError> {
    let stage = Path::new(STAGE);
    let (upper, work) = (stage.join("upper"), stage.join("work"));
    for folder in [&upper, &work, &new_root()] {
        create_dir(folder).doing("make the overlay's folders")?;
    }
    for folder in mask::OWNED {
        own(lower, &upper, folder, owner)?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    mount_new("overlay", &new_root(), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &options)
        .doing("mount the overlay")
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
    set_permissions(&mine, PermissionsExt::from_mode(0o755)).doing("open a folder of the upper layer")?;
    chown(&mine, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
        .doing("give away a folder of the upper layer")
}

/// Covers each path that exists with something empty that not even its owner may open.
fn mask_secrets(root: &OwnedFd, paths: &[PathBuf]) -> Result<(), StepError> {
    let (folder, file) = blanks()?;
    for path in paths {
        match Place::find(root, path) {
            Ok(place) => {
                let blank = if place.is_folder()? { &folder } else { &file };
                bind(blank, &place.path()).doing(&format!("mask {}", path.display()))?;
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(cause) => return Err(StepError::new(format!("mask {}", path.display()), cause)),
        }
    }
    Ok(())
}

/// An empty folder and an empty file without any permission, on a file system that nobody can write to. A bind
/// takes over the flags of the mount that it is made from.
fn blanks() -> Result<(PathBuf, PathBuf), StepError> {
    let at = Path::new(STAGE).join("blank");
    create_dir(&at).doing("make the blanks' folder")?;
    mount_new("tmpfs", &at, inert(), "mode=0755,size=64k,nr_inodes=8").doing("mount the blanks")?;
    let (folder, file) = (at.join("folder"), at.join("file"));
    create_dir(&folder).doing("make a blank folder")?;
    File::create(&file).doing("make a blank file")?;
    for blank in [&folder, &file] {
        set_permissions(blank, PermissionsExt::from_mode(0o000)).doing("close a blank")?;
    }
    restrict(&at, inert() | MsFlags::MS_RDONLY).doing("make the blanks read-only")?;
    Ok((folder, file))
}

fn temporary(place: &str) -> Result<PathBuf, StepError> {
    let folder = Path::new(STAGE).join(place.trim_start_matches('/').replace('/', "-"));
    create_dir(&folder).doing("make a temporary folder")?;
    set_permissions(&folder, PermissionsExt::from_mode(0o1777)).doing("open a temporary folder to all")?;
    Ok(folder)
}

/// Binds a folder of the stage, with all that is mounted in it, to a place of the new root.
fn put(root: &OwnedFd, folder: &Path, place: &str, flags: MsFlags) -> Result<(), StepError> {
    let doing = format!("put {place} in place");
    let Ok(target) = Place::find(root, Path::new(place)) else {
        return if metadata(place).is_ok() { Err(StepError::new(doing, Errno::ENOENT)) } else { Ok(()) };
    };
    let recursively = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(folder), &target.path(), None::<&str>, recursively, None::<&str>).doing(&doing)?;
    // The place that was found is below the new mount; it has to be looked up again to reach that.
    let covered = Place::find(root, Path::new(place)).doing(&doing)?;
    restrict(&covered.path(), flags).doing(&doing)
}
