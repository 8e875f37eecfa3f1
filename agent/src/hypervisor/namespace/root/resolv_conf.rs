//! `/etc/resolv.conf` of a machine that has a network: the host's word, over whatever the image has in its place.

use super::{Place, STAGE, bind, inert, restrict};
use crate::hypervisor::namespace::{
    net::resolvers,
    step::{Doing, StepError},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat},
    mount::MsFlags,
    sys::stat::{Mode, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    fs::{set_permissions, write},
    net::IpAddr,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

const FOLDER: &str = "etc";
const NAME: &str = "resolv.conf";

/// Puts it in place, read-only. Where the image's leads nowhere, or there is none, an empty file is made below it.
///
/// # Errors
/// [`StepError`] if the kernel refuses.
pub fn put(root: &OwnedFd, servers: &[IpAddr]) -> Result<(), StepError> {
    let (doing, path) = ("put /etc/resolv.conf in place", Path::new("/").join(FOLDER).join(NAME));
    let file = stage(servers)?;
    let place = match Place::find(root, &path) {
        Err(Errno::ENOENT) => {
            make_empty(root).doing(doing)?;
            Place::find(root, &path).doing(doing)?
        }
        found => found.doing(doing)?,
    };
    bind(&file, &place.path()).doing(doing)?;
    let covered = Place::find(root, &path).doing(doing)?;
    restrict(&covered.path(), inert() | MsFlags::MS_RDONLY).doing(doing)
}

/// Writes it on the stage.
///
/// # Errors
/// [`StepError`].
pub fn stage(servers: &[IpAddr]) -> Result<PathBuf, StepError> {
    let (doing, file) = ("write /etc/resolv.conf", Path::new(STAGE).join(NAME));
    write(&file, resolvers::text(servers)).doing(doing)?;
    set_permissions(&file, PermissionsExt::from_mode(0o644)).doing(doing)?;
    Ok(file)
}

fn make_empty(root: &OwnedFd) -> nix::Result<()> {
    match mkdirat(root, FOLDER, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(cause) => return Err(cause),
    }
    let folder = Place::find(root, Path::new(FOLDER))?;
    // A link that leads nowhere, if anything.
    match unlinkat(&folder.0, NAME, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(cause) => return Err(cause),
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(&folder.0, NAME, flags, Mode::from_bits_truncate(0o644)).map(drop)
}
