//! A folder shown with other owners: an idmapped mount (`mount_setattr(2)`, Linux 5.12; below overlayfs since 5.19).
//!
//! A layer's files lie on disk as its image says, and many machines share them. Each machine sees them through a mount of
//! its own that turns 0 to 65535 into its range of ids, so that its user 0 owns what the image's user 0 owns, and no
//! file needs to be changed or copied for it.

use super::fsmount;
use crate::hypervisor::namespace::{
    ids::IdMap,
    spawn,
    step::{Doing, StepError, checked},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::{
        signal::{Signal, kill},
        stat::Mode,
        wait::waitpid,
    },
    unistd::Pid,
};
use std::{
    ffi::CString,
    fs::create_dir,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// A user namespace that has the machine's map.
pub struct Users {
    namespace: OwnedFd,
    _holder: Holder,
}

impl Users {
    /// Makes it.
    ///
    /// # Errors
    /// [`StepError`] if the kernel makes none.
    pub fn of(map: IdMap) -> Result<Self, StepError> {
        let holder = Holder(spawn::into_user_namespace()?);
        map.write(holder.0)?;
        let path = format!("/proc/{}/ns/user", holder.0);
        let namespace = open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
        let namespace = namespace.doing("open a user namespace")?;
        holder.end();
        Ok(Self { namespace, _holder: holder })
    }
}

impl AsRawFd for Users {
    fn as_raw_fd(&self) -> RawFd {
        self.namespace.as_raw_fd()
    }
}

/// The process that a namespace begins with. It is ended as soon as there is a descriptor, but collected at the end only: to end it
/// needs its turn on a processor, and nothing has to wait for that.
struct Holder(Pid);

impl Holder {
    fn end(&self) {
        let _already_ended = kill(self.0, Signal::SIGKILL);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
        let _nobody_else_collects = waitpid(self.0, None);
    }
}

/// Whether files may be changed through a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No.
    Read,
    /// Yes.
    Write,
}

/// A mount of a folder with the owners that `user` maps to, read-only, and not yet anywhere.
///
/// # Errors
/// [`StepError`]; kernels and file systems that cannot do it say so.
pub fn shown_to(folder: &Path, user: &Users) -> Result<OwnedFd, StepError> {
    let doing = || format!("show the layer {} to the machine's users", folder.display());
    let path = CString::new(folder.as_os_str().as_bytes()).map_err(|cause| StepError::new(doing(), cause))?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path outlives the call, which reads it to its NUL.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = checked(fd).doing(&doing())?;
    // SAFETY: the kernel has just opened it for us alone.
    let mount = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
    map(&mount, user, Access::Read).doing(&doing())?;
    Ok(mount)
}

/// Has a mount that is not yet anywhere, and all that is mounted in it, show the owners that `user` maps to; no set-user-id
/// programs, no devices.
///
/// # Errors
/// The kernel's, or the file system's that cannot do it.
pub fn map(mount: &OwnedFd, user: &Users, access: Access) -> Result<(), Errno> {
    let read_only = if access == Access::Read { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let flags = libc::MOUNT_ATTR_IDMAP | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | read_only;
    fsmount::restrict(mount, flags, Some(user.as_raw_fd()))
}

/// Mounts it at a new folder.
///
/// # Errors
/// [`StepError`].
pub fn attach(mount: &OwnedFd, at: PathBuf) -> Result<PathBuf, StepError> {
    /// `MOVE_MOUNT_F_EMPTY_PATH` (`linux/mount.h`): what is moved goes by its descriptor alone.
    const BY_DESCRIPTOR: libc::c_uint = 0x4;
    create_dir(&at).doing("make a place for a layer")?;
    let path =
        CString::new(at.as_os_str().as_bytes()).map_err(|cause| StepError::new("mount a layer", cause))?;
    // SAFETY: both paths outlive the call, which reads them to their NUL.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            BY_DESCRIPTOR,
        )
    };
    checked(moved).doing("mount a layer")?;
    Ok(at)
}
