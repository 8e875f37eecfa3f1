//! A process that cannot be taken for another one (pidfd_open(2)): its end is seen at once, and a signal reaches no
//! process that got the same id later.

use nix::{errno::Errno, unistd::Pid};
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A process, by descriptor.
#[derive(Debug)]
pub struct PidFd(AsyncFd<OwnedFd>);

impl PidFd {
    /// The process that has this id now.
    ///
    /// # Errors
    /// The kernel's: there is none, or there are no more descriptors.
    pub fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = open(pid)?;
        // SAFETY: an OwnedFd is the same open descriptor for as long as it lives, and it lives in the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        registered.map(Self).map_err(Into::into)
    }

    /// Sends a signal (pidfd_send_signal(2)).
    ///
    /// # Errors
    /// The kernel's; `ESRCH` if it has ended.
    pub fn signal(&self, signal: libc::c_int) -> Result<(), Errno> {
        self::signal(self.0.get_ref(), signal)
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // An error would mean that the reactor is gone, and with it the agent.
        let _readable = self.0.readable().await;
    }
}

/// The bare descriptor, for who has no runtime.
///
/// # Errors
/// As [`PidFd::open`].
pub fn open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two numbers, touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), libc::PIDFD_NONBLOCK) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process behind a bare descriptor.
///
/// # Errors
/// As [`PidFd::signal`].
pub fn signal(pidfd: &OwnedFd, signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: a null siginfo is allowed and means the default one; nothing else points to memory.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(sent).map(drop)
}
