//! A terminal for one command, of a devpts of its own that is mounted nowhere: neither the host's terminals nor those of
//! the machine's other commands can be reached through it.

use crate::hypervisor::namespace::step::{Doing, StepError, checked};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
};
use novacron_common::wire::WindowSize;
use std::{
    ffi::CStr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` (`linux/mount.h`).
const CLOEXEC: libc::c_uint = 1;
/// `FSCONFIG_SET_STRING` and `FSCONFIG_CMD_CREATE` there.
const SET_STRING: libc::c_uint = 1;
const CREATE: libc::c_uint = 6;

/// Both ends.
pub struct Terminal {
    /// The user's.
    pub master: OwnedFd,
    /// The command's.
    pub slave: OwnedFd,
}

impl Terminal {
    /// Makes one that belongs to the machine's user 0, as which this process is within it.
    ///
    /// # Errors
    /// [`StepError`] if the kernel refuses.
    pub fn open(size: WindowSize) -> Result<Self, StepError> {
        let place = devpts().doing("make terminals for the machine")?;
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master =
            openat(&place, "ptmx", flags | OFlag::O_NONBLOCK, Mode::empty()).doing("open a terminal")?;
        let unlocked: libc::c_int = 0;
        // SAFETY: the kernel reads one int, which outlives the call.
        checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())
            .doing("unlock a terminal")?;
        // SAFETY: takes flags and gives a new descriptor.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
        checked(slave.into()).doing("open a terminal")?;
        // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        let terminal = Self { master, slave };
        resize(&terminal.master, size).doing("size a terminal")?;
        Ok(terminal)
    }
}

/// Tells the terminal its size; whoever runs in its foreground gets SIGWINCH.
///
/// # Errors
/// The kernel's.
pub fn resize(master: &OwnedFd, size: WindowSize) -> nix::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel reads one winsize, which outlives the call.
    checked(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into()).map(drop)
}

/// A new instance (each mount is one since Linux 4.7), as a descriptor of its root.
fn devpts() -> nix::Result<OwnedFd> {
    // SAFETY: the name outlives the call, which reads it to its NUL.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"devpts".as_ptr(), CLOEXEC) };
    let context = owned(context)?;
    set(&context, c"ptmxmode", c"0600")?;
    set(&context, c"mode", c"0620")?;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: no key and no value belong to this command.
    checked(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) })?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes) })
}

fn set(context: &OwnedFd, key: &CStr, value: &CStr) -> nix::Result<()> {
    // SAFETY: key and value outlive the call, which reads them to their NUL.
    let done = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), SET_STRING, key.as_ptr(), value.as_ptr(), 0)
    };
    checked(done).map(drop)
}

fn owned(fd: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = checked(fd)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}
