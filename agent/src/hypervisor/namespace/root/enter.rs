//! Init's half: its own procfs and sysfs, the move into the new root, and the host's out of reach.

use super::{INODES_MAX, inert, mask, mount_new, new_root, restrict};
use crate::hypervisor::namespace::step::{Doing, StepError};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, pivot_root},
};
use novacron_common::units::ByteCount;
use std::path::Path;

/// Moves the calling process into the root that the supervisor built.
///
/// procfs and sysfs are mounted while the host's are still in sight: the kernel lets a user namespace mount them
/// only if it could see them whole already (`user_namespaces(7)`).
///
/// With `own_memory`, its temporary folders are file systems of its own, each of so many bytes.
///
/// # Errors
/// [`StepError`].
pub fn enter(own_memory: Option<ByteCount>) -> Result<(), StepError> {
    let root = new_root();
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).doing("make the mounts private")?;
    // All mounts that came from the supervisor are locked; a bind of the new root is ours, and can become "/".
    let recursively = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&root), &root, None::<&str>, recursively, None::<&str>).doing("take over the new root")?;
    mount_new("proc", &root.join("proc"), inert(), "").doing("mount /proc")?;
    mount_sysfs(&root)?;
    if let Some(size) = own_memory {
        mount_temporary(&root, size)?;
    }
    chdir(&root).doing("enter the new root")?;
    // "." twice stacks the old root on the new one's mount point, from where it is taken away (pivot_root(2)).
    pivot_root(".", ".").doing("pivot into the new root")?;
    umount2(".", MntFlags::MNT_DETACH).doing("let go of the host's root")?;
    chdir("/").doing("enter the new root")?;
    mask_kernel()
}

fn mount_temporary(root: &Path, size: ByteCount) -> Result<(), StepError> {
    let options = format!("mode=1777,size={},nr_inodes={INODES_MAX}", size.0);
    for place in ["tmp", "dev/shm"] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount_new("tmpfs", &root.join(place), flags, &options).doing(&format!("mount /{place}"))?;
    }
    Ok(())
}

/// Where the agent itself sees only part of sysfs (as in a container), the command sees none of it.
fn mount_sysfs(root: &Path) -> Result<(), StepError> {
    match mount_new("sysfs", &root.join("sys"), inert() | MsFlags::MS_RDONLY, "") {
        Ok(()) | Err(Errno::EPERM) => Ok(()),
        Err(cause) => Err(StepError::new("mount /sys", cause)),
    }
}

fn mask_kernel() -> Result<(), StepError> {
    for path in mask::HIDDEN.iter().map(Path::new) {
        hide(path).doing(&format!("hide {}", path.display()))?;
    }
    for path in mask::READ_ONLY.iter().map(Path::new).filter(|path| path.exists()) {
        let doing = format!("make {} read-only", path.display());
        super::bind(path, path).doing(&doing)?;
        restrict(path, inert() | MsFlags::MS_RDONLY).doing(&doing)?;
    }
    Ok(())
}

fn hide(path: &Path) -> nix::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => {
            mount_new("tmpfs", path, inert() | MsFlags::MS_RDONLY, "size=0,nr_inodes=1")
        }
        Ok(_) => super::bind(Path::new("/dev/null"), path),
    }
}
