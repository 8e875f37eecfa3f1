//! A machine's serial console on this terminal. Ctrl-] leaves, as with telnet and virsh.

use super::{Context, segment};
use crate::{
    error::CtlError,
    socket::{self, Socket},
    terminal::{self, RawTerminal},
};
use futures_util::{SinkExt, StreamExt};
use std::io::Write;
use tokio_tungstenite::tungstenite::{Bytes, Message};

/// Ctrl-].
const LEAVE: u8 = 0x1d;

pub async fn run(context: &Context, vm: &str) -> Result<(), CtlError> {
    let socket =
        socket::open(&context.client.settings, &format!("/api/v1/vms/{}/console", segment(vm))).await?;
    let raw = RawTerminal::enter()?;
    if raw.is_some() {
        eprint!("Connected to {vm}; ctrl-] leaves.\r\n");
    }
    let ended = relay(socket).await;
    drop(raw);
    ended
}

async fn relay(socket: Socket) -> Result<(), CtlError> {
    let (mut to_guest, mut from_guest) = socket.split();
    let mut keyboard = terminal::keys();
    let mut open = true;
    loop {
        tokio::select! {
            typed = keyboard.recv(), if open => {
                let typed = typed.unwrap_or(Ok(Vec::new())).map_err(CtlError::local("read the keyboard"))?;
                open = !typed.is_empty();
                let (keys, leave) = up_to_leave(&typed);
                if !keys.is_empty() && to_guest.send(Message::Binary(Bytes::copy_from_slice(keys))).await.is_err() {
                    return Ok(());
                }
                if leave {
                    let _ = to_guest.close().await;
                    return Ok(());
                }
            }
            message = from_guest.next() => match message {
                Some(Ok(Message::Binary(bytes))) => show(&bytes)?,
                Some(Ok(Message::Text(text))) => show(text.as_bytes())?,
                Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                    return Err(CtlError::Outcome(format!("the console ended: {}", frame.reason)));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => {}
            }
        }
    }
}

/// What was typed before Ctrl-], and whether it was typed.
fn up_to_leave(typed: &[u8]) -> (&[u8], bool) {
    match typed.iter().position(|b| *b == LEAVE) {
        Some(at) => (&typed[..at], true),
        None => (typed, false),
    }
}

fn show(bytes: &[u8]) -> Result<(), CtlError> {
    let mut screen = std::io::stdout();
    screen.write_all(bytes).and_then(|()| screen.flush()).map_err(CtlError::local("write to the screen"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_before_leaving_is_still_sent() {
        assert_eq!(up_to_leave(b"ls\n\x1dxx"), (&b"ls\n"[..], true));
        assert_eq!(up_to_leave(b"ls\n"), (&b"ls\n"[..], false));
    }
}
