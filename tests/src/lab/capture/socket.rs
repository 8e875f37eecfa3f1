//! The packet socket (packet(7)) below a capture.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

/// A migration fills a link; what arrives while we look at a packet must wait somewhere.
const BUFFER_BYTES: libc::c_int = 64 << 20;
const LOOK_AGAIN: libc::timeval = libc::timeval { tv_sec: 0, tv_usec: 50_000 };

/// The next packet; `None` if none comes for a while.
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<usize> {
    // SAFETY: the pointer and length describe a buffer that is ours for the call.
    let length =
        unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC) };
    usize::try_from(length).ok()
}

/// A packet socket that hears what passes `port`, in the network of the calling thread.
pub fn open(port: &str) -> Result<OwnedFd> {
    let all = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    // SAFETY: socket(2) takes no pointers; a descriptor that it returns is ours alone. Protocol 0: deaf until bound.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("opening a packet socket");
        }
        OwnedFd::from_raw_fd(fd)
    };
    set(&socket, libc::SO_RCVBUFFORCE, &BUFFER_BYTES).context("setting the receive buffer")?;
    set(&socket, libc::SO_RCVTIMEO, &LOOK_AGAIN).context("setting the receive time-out")?;
    let index = nix::net::if_::if_nametoindex(port).with_context(|| format!("finding {port}"))?;
    // SAFETY: sockaddr_ll is plain data for which all-zero is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = all;
    address.sll_ifindex = i32::try_from(index).context("an interface number beyond i32")?;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if bound == 0 {
        Ok(socket)
    } else {
        Err(io::Error::last_os_error()).with_context(|| format!("binding to {port}"))
    }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which outlives the call; the kernel checks that the size fits.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Packets that the kernel dropped because nobody took them in time.
pub fn dropped(socket: &OwnedFd) -> u64 {
    let mut stats = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `stats`, which outlives the call.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut stats).cast(),
            &raw mut length,
        );
    }
    u64::from(stats.tp_drops)
}
