//! The ways out: the ACPI power button, and `off` on the console.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use crate::Guest;

/// `struct input_event` of the kernel on 64-bit machines: time (16 bytes), type u16, code u16, value i32.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
const PRESSED: i32 = 1;

/// Waits on every input device for the power button; the first press powers off.
pub fn wait_for_button(guest: &Guest) {
    thread::scope(|scope| {
        for device in input_devices() {
            scope.spawn(move || {
                if wait_on(&device) {
                    off(guest, "button");
                }
            });
        }
    });
}

fn input_devices() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/input").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("event")).collect()
}

fn wait_on(device: &PathBuf) -> bool {
    let Ok(mut file) = File::open(device) else {
        return false;
    };
    let mut event = [0; EVENT_BYTES];
    while file.read_exact(&mut event).is_ok() {
        if is_power_press(&event) {
            return true;
        }
    }
    false
}

fn is_power_press(event: &[u8; EVENT_BYTES]) -> bool {
    let kind = u16::from_le_bytes([event[16], event[17]]);
    let code = u16::from_le_bytes([event[18], event[19]]);
    let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
    (kind, code, value) == (EV_KEY, KEY_POWER, PRESSED)
}

/// Says why, flushes, and powers the machine off. The disk is kept locked meanwhile: the kernel takes the drivers down before
/// the machine, and a block written in between would look like a fault of the disk.
pub fn off(guest: &Guest, why: &str) {
    let _disk = guest.disk.as_ref().map(|disk| disk.lock().unwrap_or_else(PoisonError::into_inner));
    guest.console.line(&format!("OFF {why}"));
    guest.console.drain();
    // SAFETY: neither call takes a pointer.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    // The machine goes down under us; a failed call must not end this thread and look like success.
    thread::sleep(Duration::from_secs(10));
    guest.console.line("FAULT power-off refused");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_press_of_the_power_key_counts() {
        let mut event = [0; EVENT_BYTES];
        event[16..24].copy_from_slice(&[1, 0, 116, 0, 1, 0, 0, 0]);
        assert!(is_power_press(&event));
        event[20] = 0;
        assert!(!is_power_press(&event), "a release");
        event[18..21].copy_from_slice(&[115, 0, 1]);
        assert!(!is_power_press(&event), "another key");
    }
}
