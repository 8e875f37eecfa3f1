//! The serial console: lines out, one at a time, and a few commands in.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use crate::Guest;
use crate::power;

const DEVICE: &str = "/dev/ttyS0";

/// Whole lines to the serial console. What cannot be written is dropped: there is nowhere to complain.
pub struct Console {
    out: Mutex<Option<File>>,
}

impl Console {
    /// Opens the serial port without echo and without translation of line ends.
    pub fn open() -> Self {
        let out = OpenOptions::new().read(true).write(true).open(DEVICE).ok();
        if let Some(file) = &out {
            set_raw(file);
        }
        Self { out: Mutex::new(out) }
    }

    /// Writes one line with one call, so that no other thread's line comes between.
    pub fn line(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(file) = out.as_mut() {
            let _ = file.write_all(format!("{text}\n").as_bytes());
        }
    }

    /// Waits until all that was written has left the port.
    pub fn drain(&self) {
        let out = self.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(file) = out.as_ref() {
            // SAFETY: the descriptor is open for as long as the lock is held.
            unsafe { libc::tcdrain(file.as_raw_fd()) };
        }
    }
}

fn set_raw(file: &File) {
    // SAFETY: termios is plain data for which all-zero is a valid value; tcgetattr fills it, and the descriptor is open.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        if libc::tcgetattr(file.as_raw_fd(), &raw mut settings) == 0 {
            libc::cfmakeraw(&raw mut settings);
            libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const settings);
        }
    }
}

/// Obeys commands for ever: `sum`, `stop`, `go`, `rate N`, `sync`, `off`.
pub fn obey(guest: &Guest) {
    let Ok(input) = File::open(DEVICE) else { return };
    for line in BufReader::new(input).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["sum"] => print_sum(guest),
            ["stop"] => guest.stats.running.store(false, Ordering::Relaxed),
            ["go"] => guest.stats.running.store(true, Ordering::Relaxed),
            ["rate", number] => set_rate(guest, number),
            ["sync"] => settle_disk(guest),
            ["off"] => power::off(guest, "console"),
            other => guest.console.line(&format!("UNKNOWN {}", other.join(" "))),
        }
    }
}

fn set_rate(guest: &Guest, number: &str) {
    match number.parse() {
        Ok(rate) => guest.stats.rate.store(rate, Ordering::Relaxed),
        Err(_) => guest.console.line(&format!("UNKNOWN rate {number}")),
    }
}

fn print_sum(guest: &Guest) {
    let sum = guest.arena.lock().unwrap_or_else(std::sync::PoisonError::into_inner).sum();
    guest.console.line(&format!("SUM hash={:016x} bad={}", sum.hash, sum.bad));
}

/// Stops all writing (until `go`) and prints what the disk then holds, for comparison with the image on the host.
fn settle_disk(guest: &Guest) {
    guest.stats.running.store(false, Ordering::Relaxed);
    let Some(disk) = &guest.disk else {
        return guest.console.line("SYNC none");
    };
    let mut disk = disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match disk.settle() {
        Ok((hash, bad)) => {
            let (slots, seq) = (disk.slots(), disk.last_seq());
            guest.console.line(&format!("SYNC hash={hash:016x} slots={slots} seq={seq} bad={bad}"));
        }
        Err(cause) => guest.console.line(&format!("FAULT sync: {cause}")),
    }
}
