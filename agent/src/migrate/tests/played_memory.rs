//! What played QEMUs send of a guest's memory, and how they take it: on one connection, or in parts on several.

use std::io;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
    task::JoinSet,
};

/// A page's record has so many bytes.
const RECORD: usize = 8 + 4096;

/// What each channel carries of `memory`, the main one first, and so many beside it.
pub fn parts(memory: &[u8], channels: u8) -> Vec<Vec<u8>> {
    let part = memory.len().div_ceil(usize::from(channels) + 1).next_multiple_of(RECORD);
    memory.chunks(part).map(<[u8]>::to_vec).collect()
}

/// Pieces of all parts in turns, with the numbers of their parts.
pub fn in_turns(parts: &[Vec<u8>]) -> impl Iterator<Item = (usize, &[u8])> {
    const PIECE: usize = 1 << 20;
    let longest = parts.iter().map(Vec::len).max().unwrap_or_default();
    (0..longest).step_by(PIECE).flat_map(move |at| {
        let piece = move |(number, part): (usize, &'_ Vec<u8>)| (number, at..part.len().min(at + PIECE));
        let pieces = parts.iter().enumerate().map(piece).filter(|(_, range)| !range.is_empty());
        pieces.map(|(number, range)| (number, &parts[number][range]))
    })
}

/// Takes each part on a connection of its own, in whatever order they come, and holds all against what was sent.
pub async fn take_memory(listener: UnixListener, mut sent: Vec<Vec<u8>>) -> io::Result<()> {
    let mut ways = JoinSet::new();
    for _ in &sent {
        let (mut source, _) = listener.accept().await?;
        ways.spawn(async move {
            let mut taken = Vec::new();
            source.read_to_end(&mut taken).await?;
            source.write_all(&(taken.len() as u64).to_be_bytes()).await?;
            io::Result::Ok(taken)
        });
    }
    while let Some(taken) = ways.join_next().await {
        let taken = taken.unwrap()?;
        let one = sent.iter().position(|part| *part == taken);
        sent.remove(one.ok_or_else(|| io::Error::other("cut, or changed on the way"))?);
    }
    Ok(())
}
