//! Sees a guest's process end.
//!
//! When a copy is complete libvirt ends the source's QEMU, and looks only after 200 ms whether it is gone
//! (`virProcessKillPainfully`): for the guest, who waits at the target, most of the pause. The kernel tells at once.

use crate::{hypervisor::libvirt::xml::domain_name, pidfd::PidFd};
use nix::unistd::Pid;
use novacron_common::ids::VmId;
use std::{io, path::Path};

/// The process in which a guest runs.
#[derive(Debug)]
pub struct Witness(PidFd);

impl Witness {
    /// The process of `vm`'s guest, by the file that libvirtd keeps beside its socket
    /// (`$RUN/libvirt/qemu/NAME.pid`, qemu_domain.c).
    ///
    /// # Errors
    /// When there is no such file, or it is not this guest's process that it names.
    pub fn of(vm: VmId, libvirt_socket: &Path) -> io::Result<Self> {
        let name = domain_name(vm);
        let folder = libvirt_socket.parent().unwrap_or(Path::new("/")).join("qemu");
        let text = std::fs::read_to_string(folder.join(format!("{name}.pid")))?;
        let pid = text.trim().parse().map_err(io::Error::other)?;
        let process = PidFd::open(Pid::from_raw(pid))?;
        // Read behind the opening: the process that has this command line is the one that was opened, or has ended.
        let command = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let is_ours = command.windows(name.len()).any(|part| part == name.as_bytes());
        is_ours.then_some(Self(process)).ok_or_else(|| io::Error::other("another process has its id"))
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        self.0.ended().await;
    }
}
