//! Keeps in memory whatever a client sends to TCP port 9: real data for migrations that measure how well it travels.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, TcpListener};

use novacron_guest::hash::WordHash;

use crate::Guest;

/// The port of the discard service (RFC 863): this one only forgets at power-off.
const PORT: u16 = 9;

/// Takes one client's bytes, at most `nova.feed` MiB, says how many and what they hash to, and holds them for ever.
pub fn serve(guest: &Guest) {
    let most = guest.options.feed_mib << 20;
    if most == 0 {
        return;
    }
    match take(most) {
        Ok(data) => {
            let mut hash = WordHash::default();
            hash.bytes(&data);
            guest.console.line(&format!("FED bytes={} hash={:016x}", data.len(), hash.value()));
            std::mem::forget(data);
        }
        Err(cause) => guest.console.line(&format!("FAULT feed: {cause}")),
    }
}

fn take(most: u64) -> io::Result<Vec<u8>> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let (client, _) = listener.accept()?;
    // At once: a vector that grows would need twice the room.
    let mut data = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
    client.take(most).read_to_end(&mut data)?;
    Ok(data)
}
