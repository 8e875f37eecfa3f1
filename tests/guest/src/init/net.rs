//! Gives a network interface an address with the old ioctls (netdevice(7)): three calls need no netlink library.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Sets address and mask and brings the interface up.
///
/// # Errors
/// When the interface is absent or the kernel refuses.
pub fn bring_up(name: &str, addr: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let socket = datagram_socket()?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    call(
        &socket,
        libc::SIOCSIFADDR,
        &request(name, libc::__c_anonymous_ifr_ifru { ifru_addr: sockaddr(addr) }),
    )?;
    let mask = libc::__c_anonymous_ifr_ifru { ifru_netmask: sockaddr(Ipv4Addr::from_bits(mask)) };
    call(&socket, libc::SIOCSIFNETMASK, &request(name, mask))?;
    let flags =
        libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short };
    call(&socket, libc::SIOCSIFFLAGS, &request(name, flags))
}

fn datagram_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes no pointers; a descriptor that it returns is ours alone.
    unsafe {
        match libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

fn request(name: &str, ifr_ifru: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    libc::ifreq { ifr_name, ifr_ifru }
}

fn sockaddr(addr: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    for (to, from) in sa_data[2..].iter_mut().zip(addr.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

fn call(socket: &OwnedFd, code: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open, and these three requests read one ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), code, std::ptr::from_ref(request)) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
