//! The terminal that novactl was started on: raw while somebody else's bytes are shown, its keys, and its size.

use crate::error::CtlError;
use nix::{
    libc,
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};
use novacron_common::api::WindowSize;
use std::{
    io::{IsTerminal, Read},
    os::fd::AsRawFd,
};
use tokio::sync::mpsc;

/// Bytes of the keyboard in one piece.
const PIECE: usize = 16 * 1024;

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);

/// The terminal in raw mode until this is dropped.
pub struct RawTerminal(Termios);

impl RawTerminal {
    /// `None` where standard input is no terminal.
    pub fn enter() -> Result<Option<Self>, CtlError> {
        let keyboard = std::io::stdin();
        if !keyboard.is_terminal() {
            return Ok(None);
        }
        let failed = |e: nix::Error| CtlError::Local { doing: "switch the terminal".into(), cause: e.into() };
        let before = tcgetattr(&keyboard).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&keyboard, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// How large it is; `None` where standard input is no terminal.
pub fn size() -> Option<WindowSize> {
    let keyboard = std::io::stdin();
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize into ours, which outlives the call.
    unsafe { get_window_size(keyboard.as_raw_fd(), &raw mut size) }.ok()?;
    Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// What is typed or piped in, piece by piece; an empty piece is its end. A thread of its own reads it: one that waits for a
/// key must not hold up the end of novactl, as a task of the runtime would.
pub fn keys() -> mpsc::Receiver<std::io::Result<Vec<u8>>> {
    let (sender, keys) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut keyboard = std::io::stdin().lock();
        let mut piece = vec![0; PIECE];
        loop {
            let read = keyboard.read(&mut piece).map(|length| piece[..length].to_vec());
            let is_last = read.as_ref().map_or(true, Vec::is_empty);
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    keys
}
