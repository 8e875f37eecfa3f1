//! Mounts that go by descriptors (`fsopen(2)`, `fsmount(2)`, `open_tree(2)`): nowhere until they are attached.

use crate::hypervisor::namespace::step::{Doing, StepError, checked};
use nix::errno::Errno;
use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `enum fsconfig_command` (`linux/mount.h`).
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const CLOEXEC: libc::c_uint = 1;

/// `MOVE_MOUNT_F_EMPTY_PATH` and `MOVE_MOUNT_T_EMPTY_PATH` (`linux/mount.h`): both sides go by their descriptors alone.
const BY_DESCRIPTORS: libc::c_uint = 0x4 | 0x40;

/// Mounts the ext4 file system of a block device. Without set-user-id programs and devices; blocks that are freed are
/// given back to whatever is behind the device.
///
/// # Errors
/// [`StepError`].
pub fn ext4(device: &Path) -> Result<OwnedFd, StepError> {
    let doing = format!("mount the file system of {}", device.display());
    let source = CString::new(device.as_os_str().as_bytes());
    let source = source.map_err(|cause| StepError::new(doing.as_str(), cause))?;
    mount(&source).doing(&doing)
}

fn mount(source: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the name outlives the call, which reads it to its NUL; so do those below.
    let context = opened(unsafe { libc::syscall(libc::SYS_fsopen, c"ext4".as_ptr(), CLOEXEC) })?;
    configure(&context, FSCONFIG_SET_STRING, Some(c"source"), Some(source))?;
    configure(&context, FSCONFIG_SET_FLAG, Some(c"discard"), None)?;
    configure(&context, FSCONFIG_CMD_CREATE, None, None)?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: takes numbers.
    opened(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes) })
}

/// A copy of the mount of an open folder, from there on, with all that is mounted in it.
///
/// # Errors
/// The kernel's.
pub fn tree(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE).cast_unsigned();
    // SAFETY: the empty path outlives the call, which reads it to its NUL.
    opened(unsafe { libc::syscall(libc::SYS_open_tree, folder.as_raw_fd(), c"".as_ptr(), flags) })
}

/// Adds flags (`MOUNT_ATTR_…`) to a mount and to all that is mounted in it, and takes none away: what the host shows read-only
/// stays so. `users` is the namespace of `MOUNT_ATTR_IDMAP`.
///
/// # Errors
/// The kernel's.
pub fn restrict(mount: &OwnedFd, flags: u64, users: Option<RawFd>) -> Result<(), Errno> {
    let attributes = libc::mount_attr {
        attr_set: flags,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.map_or(0, |fd| u64::from(fd.unsigned_abs())),
    };
    // SAFETY: the empty path and the attributes outlive the call, and their true size is given.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(set).map(drop)
}

/// Mounts it over an open folder.
///
/// # Errors
/// The kernel's.
pub fn put_over(mount: &OwnedFd, folder: &OwnedFd) -> Result<(), Errno> {
    let (empty, from, to) = (c"".as_ptr(), mount.as_raw_fd(), folder.as_raw_fd());
    // SAFETY: the empty path outlives the call, which reads it to its NUL.
    let moved = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, BY_DESCRIPTORS) };
    checked(moved).map(drop)
}

fn configure(
    context: &OwnedFd,
    command: libc::c_uint,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both texts are null or outlive the call, which reads them to their NUL.
    let done = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, pointer(key), pointer(value), 0)
    };
    checked(done).map(drop)
}

/// A descriptor that the kernel has just opened for us alone.
fn opened(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = checked(fd)?;
    // SAFETY: nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}
