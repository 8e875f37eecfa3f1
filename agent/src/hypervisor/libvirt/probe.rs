//! Whether KVM works, found by running something under it with a deadline.
//!
//! Opening `/dev/kvm`, even `KVM_CREATE_VM`, succeeds on hosts where guests crawl through an emulator. So a guest
//! is run: a firmware of a few instructions that counts to 100 million and leaves through QEMU's
//! `isa-debug-exit`. Hardware needs a tenth of a second for it, a slow emulator a minute.

use novacron_common::record::Accel;
use serde::Deserialize;
use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::Command;

/// `hypervisor.accel` in agent.toml.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccelSetting {
    /// KVM if it works, else TCG.
    #[default]
    Auto,
    /// KVM, whatever the probe would say.
    Kvm,
    /// TCG.
    Tcg,
}

const QEMU: &str = "qemu-system-x86_64";
/// Generous for hardware on a loaded host, far too short for an emulator.
const DEADLINE: Duration = Duration::from_secs(4);
const ROUNDS: u32 = 100_000_000;
/// The guest writes this to the exit port; QEMU then ends with `(value << 1) | 1`.
const EXIT_VALUE: u8 = 0x10;
const EXIT_PORT: u16 = 0xf4;
/// A PC's firmware ends at 4 GiB; the reset vector is 16 bytes below.
const FIRMWARE_BYTES: usize = 64 << 10;
const RESET_VECTOR: u16 = 0xfff0;

/// How machines run here.
pub async fn decide(setting: AccelSetting) -> Accel {
    match setting {
        AccelSetting::Kvm => Accel::Kvm,
        AccelSetting::Tcg => Accel::Tcg,
        AccelSetting::Auto if works("kvm", DEADLINE).await => Accel::Kvm,
        AccelSetting::Auto => Accel::Tcg,
    }
}

/// Whether a guest under this accelerator (QEMU's name for it) ends as it should before the deadline.
pub async fn works(accel: &str, deadline: Duration) -> bool {
    match tokio::time::timeout(deadline, run(accel, &std::env::temp_dir())).await {
        Ok(Ok(true)) => true,
        Ok(Ok(false)) => refuse(accel, "the guest did not run to its end"),
        Ok(Err(error)) => refuse(accel, &format!("QEMU could not be run: {error}")),
        Err(_) => refuse(accel, "the guest was too slow: this is no hardware virtualisation"),
    }
}

fn refuse(accel: &str, why: &str) -> bool {
    tracing::info!(accel, why, "acceleration probe");
    false
}

/// Goes with whoever holds it: a probe that is given up leaves nothing behind either.
struct Scratch(PathBuf);

impl Scratch {
    fn below(parent: &Path) -> io::Result<Self> {
        let folder = parent.join(format!("novacron-probe-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a probe's folder was left behind");
        }
    }
}

async fn run(accel: &str, parent: &Path) -> io::Result<bool> {
    let scratch = Scratch::below(parent)?;
    let firmware = scratch.0.join("firmware");
    std::fs::write(&firmware, firmware_image())?;
    run_guest(accel, &firmware).await
}

async fn run_guest(accel: &str, firmware: &Path) -> io::Result<bool> {
    let exit = format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1");
    let mut qemu = Command::new(QEMU);
    qemu.args([
        "-machine",
        "pc",
        "-accel",
        accel,
        "-m",
        "16",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
    ])
    .args(["-display", "none", "-device", &exit, "-bios"])
    .arg(firmware)
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .kill_on_drop(true);
    let status = qemu.spawn()?.wait().await?;
    Ok(status.code() == Some(i32::from(EXIT_VALUE) << 1 | 1))
}

/// 16-bit code at the segment's start, and a jump to it at the reset vector.
fn firmware_image() -> Vec<u8> {
    let mut code = vec![0x66, 0xb9]; // mov ecx, ROUNDS
    code.extend(ROUNDS.to_le_bytes());
    code.extend([0x66, 0x49, 0x75, 0xfc]); // again: dec ecx; jnz again
    code.push(0xba); // mov dx, EXIT_PORT
    code.extend(EXIT_PORT.to_le_bytes());
    code.extend([0xb0, EXIT_VALUE, 0xee]); // mov al, EXIT_VALUE; out dx, al
    code.extend([0xf4, 0xeb, 0xfd]); // halt: hlt; jmp halt
    let mut image = vec![0xf4; FIRMWARE_BYTES];
    image[..code.len()].copy_from_slice(&code);
    let reset = usize::from(RESET_VECTOR);
    image[reset] = 0xe9; // jmp to offset 0 of this segment
    let back = 0u16.wrapping_sub(RESET_VECTOR + 3);
    image[reset + 1..reset + 3].copy_from_slice(&back.to_le_bytes());
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need::require;

    #[test]
    fn the_firmware_starts_where_a_processor_does() {
        let image = firmware_image();
        assert_eq!(image.len(), FIRMWARE_BYTES);
        assert_eq!(&image[0xfff0..0xfff3], [0xe9, 0x0d, 0x00]); // 0xfff3 + 0x000d wraps to 0
    }

    #[tokio::test]
    async fn an_accelerator_that_does_not_exist_does_not_work() {
        assert!(!works("no-such-accelerator", DEADLINE).await);
    }

    #[tokio::test]
    async fn a_guest_that_runs_to_its_end_is_proof() {
        require!(QEMU);
        // TCG counts too, given time: the deadline is what tells it from hardware.
        assert!(works("tcg", Duration::from_secs(60)).await);
        assert!(!works("tcg", Duration::from_millis(1)).await);
    }

    #[tokio::test]
    async fn a_probe_that_is_given_up_leaves_no_folder_behind() {
        require!(QEMU);
        let parent = tempfile::tempdir().unwrap();
        let left = || std::fs::read_dir(parent.path()).unwrap().count();
        let mut probe = Box::pin(run("tcg", parent.path()));
        assert!(futures_util::poll!(&mut probe).is_pending());
        assert_eq!(left(), 1, "it runs");
        drop(probe);
        assert_eq!(left(), 0);
    }

    #[tokio::test]
    async fn a_setting_is_taken_at_its_word() {
        assert_eq!(decide(AccelSetting::Kvm).await, Accel::Kvm);
        assert_eq!(decide(AccelSetting::Tcg).await, Accel::Tcg);
    }
}
