//! A process that stands for a guest's QEMU: its command line names the guest, and libvirtd's pid file names it.

use super::world::{Host, VM};
use crate::hypervisor::libvirt::xml::domain_name;
use std::{
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
};

pub struct GuestProcess(Child);

impl GuestProcess {
    /// Starts it, and writes the file beside the host's libvirt socket.
    pub fn start(host: &Host) -> Self {
        let name = domain_name(VM);
        let mut command = Command::new("sh");
        // It waits for a line that never comes; if the test ends, its input does.
        let child = command.args(["-c", "read _", &name]).stdin(Stdio::piped()).spawn().unwrap();
        let folder = host.folder.join("qemu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.pid")), format!("{}\n", child.id())).unwrap();
        Self(child)
    }

    /// Waits for its end: was it killed?
    pub fn was_killed(&mut self) -> bool {
        self.0.wait().unwrap().signal() == Some(libc::SIGKILL)
    }

    /// Ends and collects it.
    pub fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
