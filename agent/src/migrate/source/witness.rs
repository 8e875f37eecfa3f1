//! Sees a guest's process end, and ends it.
//!
//! When a copy is complete libvirt asks the source's QEMU to end, and looks only after 200 ms whether it is gone
//! (`virProcessKillPainfully`): for the guest, who waits at the target, most of the pause. The kernel tells at once; and that
//! a process will execute nothing more is certain as soon as it was sent SIGKILL.

use crate::{
    hypervisor::libvirt::xml::domain_name,
    migrate::ports::{GuestProcess, Processes},
    pidfd::PidFd,
};
use async_trait::async_trait;
use nix::{errno::Errno, unistd::Pid};
use novacron_common::ids::VmId;
use std::{io, path::PathBuf};

/// The processes of libvirt's guests, by the files that libvirtd keeps beside its socket
/// (`$RUN/libvirt/qemu/NAME.pid`, qemu_domain.c).
#[derive(Debug, Clone)]
pub struct QemuProcesses {
    /// The socket of this host's libvirtd.
    pub libvirt_socket: PathBuf,
}

impl QemuProcesses {
    fn open(&self, vm: VmId) -> io::Result<PidFd> {
        let name = domain_name(vm);
        let folder = self.libvirt_socket.parent().map(|run| run.join("qemu")).unwrap_or_default();
        let text = std::fs::read_to_string(folder.join(format!("{name}.pid")))?;
        let pid = text.trim().parse().map_err(io::Error::other)?;
        let process = PidFd::open(Pid::from_raw(pid))?;
        // Read behind the opening: the process that has this command line is the one that was opened, or has ended.
        let command = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let is_ours = command.windows(name.len()).any(|part| part == name.as_bytes());
        is_ours.then_some(process).ok_or_else(|| io::Error::other("another process has its id"))
    }
}

impl Processes for QemuProcesses {
    fn of(&self, vm: VmId) -> Option<Box<dyn GuestProcess>> {
        // Without one libvirt's word is waited for.
        let process = self
            .open(vm)
            .inspect_err(|error| tracing::debug!(%vm, %error, "the guest's process is not seen"))
            .ok()?;
        Some(Box::new(process))
    }
}

#[async_trait]
impl GuestProcess for PidFd {
    async fn ended(&self) {
        Self::ended(self).await;
    }

    fn kill(&self) -> io::Result<()> {
        match self.signal(libc::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
