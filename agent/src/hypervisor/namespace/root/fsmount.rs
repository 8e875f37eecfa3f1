//! A file system mounted by descriptors (`fsopen(2)`, `fsmount(2)`): nowhere until it is attached.

use crate::hypervisor::namespace::step::{Doing, StepError, checked};
use nix::errno::Errno;
use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `enum fsconfig_command` (`linux/mount.h`).
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const CLOEXEC: libc::c_uint = 1;

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
