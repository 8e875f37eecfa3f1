//! A file as a block device (`loop(4)`), for as long as a file system on it is mounted.
//!
//! The kernel detaches it with its last user (`LO_FLAGS_AUTOCLEAR`), so nothing is left however this process ends. Two
//! devices over one file would ruin what is in it: the file is locked (`flock(2)`), and as the device holds the very
//! descriptor that is locked, the lock lasts until the device is detached.

use crate::hypervisor::namespace::step::{Doing, StepError, checked};
use nix::errno::Errno;
use std::{
    fs::{File, TryLockError},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long an earlier user of the file may take to be gone: the kernel writes back what is not yet on disk.
const RELEASE_MAX: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Others may take the device that was free a moment ago.
const TRIES_MAX: u32 = 64;

/// `linux/loop.h`.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

/// A device over a file. It stays as long as this, or a mount of it, does.
pub struct Loopback {
    _device: File,
    path: PathBuf,
}

impl Loopback {
    /// Over this file, once nobody else uses it.
    ///
    /// # Errors
    /// [`StepError`] if the file is in use for ten seconds more, or the host gives no device.
    pub fn over(path: &Path) -> Result<Self, StepError> {
        let doing = format!("use {} as a disk", path.display());
        let file = File::options().read(true).write(true).open(path).doing(&doing)?;
        lock(&file).doing(&doing)?;
        // While it was waited for, or a moment before.
        if file.metadata().doing(&doing)?.nlink() == 0 {
            return Err(StepError::new(doing, "it was removed"));
        }
        let control = File::options().read(true).write(true).open("/dev/loop-control");
        let control = control.doing("open /dev/loop-control, which the loop module of the kernel makes")?;
        for _ in 0..TRIES_MAX {
            match Self::try_over(&control, &file) {
                Err(cause) if cause.raw_os_error() == Some(libc::EBUSY) => {}
                attached => return attached.doing(&doing),
            }
        }
        Err(StepError::new(doing, Errno::EBUSY))
    }

    fn try_over(control: &File, file: &File) -> std::io::Result<Self> {
        // SAFETY: takes no argument.
        let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) }.into())?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        // SAFETY: zeros are valid in every field, and mean "as usual".
        let mut config: Config = unsafe { std::mem::zeroed() };
        config.fd = file.as_raw_fd().unsigned_abs();
        config.info.flags = LO_FLAGS_AUTOCLEAR;
        // SAFETY: the kernel reads the configuration, which outlives the call and is laid out as it expects.
        let configured = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
        checked(configured.into())?;
        Ok(Self { _device: device, path })
    }

    /// What can be mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn lock(file: &File) -> std::io::Result<()> {
    let deadline = Instant::now() + RELEASE_MAX;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(cause)) => return Err(cause),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(std::io::Error::other("its last user is not yet gone"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_AGAIN),
        }
    }
}
