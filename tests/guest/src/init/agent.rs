//! Runs QEMU's own guest agent, where the lab has put it into the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::Guest;

/// The program, as its package has it.
const PROGRAM: &str = "/usr/sbin/qemu-ga";
/// The channel's name on the host's side.
const CHANNEL: &str = "org.qemu.guest_agent.0";
/// Where it keeps its state.
const STATE: &str = "/run";

/// Starts it once its channel is there, and says how it ended. A test that ends it wants it gone.
pub fn run(guest: &Guest) {
    if !Path::new(PROGRAM).exists() {
        return;
    }
    let channel = loop {
        match channel() {
            Some(channel) => break channel,
            None => thread::sleep(Duration::from_millis(100)),
        }
    };
    let _exists = fs::create_dir_all(STATE);
    let started = Command::new(PROGRAM)
        .args(["--method=virtio-serial", "--statedir", STATE, "--path"])
        .arg(channel)
        .stdin(Stdio::null())
        .spawn();
    match started {
        Ok(mut agent) => {
            guest.console.line("AGENT");
            let ended = agent.wait();
            guest.console.line(&format!("AGENT {ended:?}"));
        }
        Err(cause) => guest.console.line(&format!("FAULT {PROGRAM}: {cause}")),
    }
}

/// The device behind the channel. What udev would link by name, the kernel tells here.
fn channel() -> Option<PathBuf> {
    let ports = fs::read_dir("/sys/class/virtio-ports").ok()?.flatten();
    let ours =
        |path: &PathBuf| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim() == CHANNEL);
    let port = ports.map(|entry| entry.path()).find(ours)?;
    Some(Path::new("/dev").join(port.file_name()?))
}
