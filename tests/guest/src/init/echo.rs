//! TCP echo on port 7 that numbers its replies, so that a client sees a lost, doubled or reset connection at once.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Guest;

const PORT: u16 = 7;
/// More are closed at once.
const CLIENTS_MAX: usize = 32;
/// Longest line taken from a client, in bytes.
const LINE_MAX: u64 = 4096;

static CLIENTS: AtomicUsize = AtomicUsize::new(0);

/// Serves for ever: line `x` of a connection is answered by its number, a space and `x`.
pub fn serve(guest: &Guest) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(listener) => listener,
        Err(cause) => return guest.console.line(&format!("FAULT echo: {cause}")),
    };
    for stream in listener.incoming().flatten() {
        if CLIENTS.fetch_add(1, Ordering::Relaxed) >= CLIENTS_MAX {
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        thread::spawn(move || {
            let _ = answer(stream);
            CLIENTS.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    for number in 1u64.. {
        let mut line = Vec::new();
        io::Read::take(&mut input, LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let reply = [format!("{number} ").as_bytes(), &line].concat();
        output.write_all(&reply)?;
    }
    Ok(())
}
