//! A TAP interface (Linux, Documentation/networking/tuntap.rst): what the kernel sends to it is read, what is written to it
//! the kernel receives.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};

const DEVICE: &str = "/dev/net/tun";

/// Makes one in the network of the calling thread; it goes with the file. It takes no offloads, so that frames are as long
/// as the wire's.
pub fn make(name: &str) -> Result<File> {
    ensure!(name.len() < libc::IFNAMSIZ, "{name} is too long for an interface");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(DEVICE)
        .with_context(|| format!("opening {DEVICE}"))?;
    // SAFETY: ifreq is plain data for which all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the pointer describes `request`, which outlives the call.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    ensure!(made == 0, "making the interface {name}: {}", io::Error::last_os_error());
    Ok(file)
}
