//! The layer of a machine's own, where that outlives it: an ext4 file system in a file, shown with the machine's ids as
//! the image's layers are. On disk its files belong to ids 0 to 65535, whatever range the machine has while it runs, so
//! they mean the same on another host.

use super::{STAGE, fsmount, idmap, loopback::Loopback};
use crate::hypervisor::namespace::step::{Doing, StepError};
use caps::CapSet;
use nix::{
    errno::Errno,
    sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat},
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// In the file system: what the machine wrote, and what overlayfs needs beside it.
const UPPER: &str = "upper";
const WORK: &str = "work";

/// It, mounted, and not yet anywhere.
pub struct OwnLayer(OwnedFd);

impl OwnLayer {
    /// Opens the file system in this file for the ids that `user` maps to. An empty one becomes an empty layer.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn open(file: &Path, user: &idmap::Users) -> Result<Self, StepError> {
        let device = Loopback::over(file)?;
        let mount = fsmount::ext4(device.path())?;
        for name in [UPPER, WORK] {
            make_folder(&mount, name).doing("make the folders of the machine's own layer")?;
        }
        idmap::map(&mount, user, idmap::Access::Write)
            .doing("show the machine's own layer to the machine's users")?;
        Ok(Self(mount))
    }

    /// Attaches it to the stage: its upper folder and its work folder.
    ///
    /// # Errors
    /// [`StepError`].
    pub fn attach(&self) -> Result<(PathBuf, PathBuf), StepError> {
        let at = idmap::attach(&self.0, place())?;
        Ok((at.join(UPPER), at.join(WORK)))
    }
}

/// Where it is attached.
pub fn place() -> PathBuf {
    Path::new(STAGE).join("own")
}

/// The upper one is the machine's root folder, whatever the umask of this process.
fn make_folder(mount: &OwnedFd, name: &str) -> Result<(), Errno> {
    let mode = Mode::from_bits_truncate(0o755);
    match mkdirat(mount, name, mode) {
        Ok(()) => fchmodat(mount, name, mode, FchmodatFlags::FollowSymlink),
        Err(Errno::EEXIST) => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// Makes files as this id for a while, with all capabilities: where only a machine's ids are mapped, files of any other
/// owner cannot be made (`EOVERFLOW`), and overlayfs makes its own with the ids that its mounter had.
///
/// # Errors
/// That of `body`, or [`StepError`].
pub fn making_files_as<T>(id: u32, body: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
    let (user, group) = (setfsuid(Uid::from_raw(id)), setfsgid(Gid::from_raw(id)));
    let result = regain_capabilities().and_then(|()| body());
    setfsuid(user);
    setfsgid(group);
    result
}

/// The kernel takes those for files away with the id 0.
fn regain_capabilities() -> Result<(), StepError> {
    let permitted = caps::read(None, CapSet::Permitted);
    permitted
        .and_then(|all| caps::set(None, CapSet::Effective, &all))
        .doing("keep capabilities while files are made for the machine")
}
