//! What a command prints, for whoever follows it: from its spool, for as long as it runs.

use super::{
    folder::Folder,
    spool::{RING, SpoolReader},
};
use novacron_common::wire::LogChunk;
use std::{io, time::Duration};
use tokio::{sync::mpsc, task::spawn_blocking};

/// How often a command that prints nothing is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Chunks that wait for a slow reader; then the spool goes on without it, and it misses what is overwritten.
const CHUNKS: usize = 2;

/// What is printed, from the oldest byte at hand, or from the last `lines` lines, up to what is there once `goes_on` says
/// that nothing more comes. Ends with its reader, too.
pub fn follow(
    folder: Folder,
    lines: Option<u32>,
    goes_on: impl Fn() -> bool + Send + 'static,
) -> mpsc::Receiver<io::Result<LogChunk>> {
    let (to, printed) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        let ended = tokio::select! {
            () = to.closed() => Ok(()),
            ended = copy(&folder, lines, goes_on, &to) => ended,
        };
        if let Err(error) = ended {
            let _gone = to.send(Err(error)).await;
        }
    });
    printed
}

async fn copy(
    folder: &Folder,
    lines: Option<u32>,
    goes_on: impl Fn() -> bool,
    to: &mpsc::Sender<io::Result<LogChunk>>,
) -> io::Result<()> {
    let mut reader = None;
    if let Some(lines) = lines {
        let backlog;
        (reader, backlog) = read(reader, folder, usize::try_from(RING).unwrap_or(usize::MAX)).await?;
        for chunk in last_lines(backlog, lines) {
            if to.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        }
    }
    loop {
        // Looked at before the reading: what is printed after that is printed by nobody.
        let goes_on = goes_on();
        let chunk;
        (reader, chunk) = read(reader, folder, LogChunk::BYTES_MAX).await?;
        if !chunk.bytes.is_empty() {
            if to.send(Ok(chunk)).await.is_err() {
                return Ok(());
            }
        } else if goes_on {
            tokio::time::sleep(LOOK_AGAIN).await;
        } else {
            return Ok(());
        }
    }
}

/// The next bytes, if there are any yet.
async fn read(
    reader: Option<SpoolReader>,
    folder: &Folder,
    most: usize,
) -> io::Result<(Option<SpoolReader>, LogChunk)> {
    let folder = folder.clone();
    let read = spawn_blocking(move || {
        let Some(mut reader) = reader.map_or_else(|| SpoolReader::open(&folder), |open| Ok(Some(open)))?
        else {
            return Ok((None, LogChunk { at: 0, bytes: Vec::new() }));
        };
        let (at, bytes) = reader.next(most)?;
        Ok((Some(reader), LogChunk { at, bytes }))
    });
    read.await.map_err(io::Error::other)?
}

/// Pure: the last lines of what was printed, in pieces that can be sent. A line that has no end yet counts.
fn last_lines(LogChunk { at, mut bytes }: LogChunk, lines: u32) -> Vec<LogChunk> {
    let body = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let mut ends =
        body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
    let from = match usize::try_from(lines).unwrap_or(usize::MAX).checked_sub(1) {
        None => bytes.len(),
        Some(others) => ends.nth(others).unwrap_or(0),
    };
    let rest = bytes.split_off(from);
    let at = at + from as u64;
    let pieces = rest.chunks(LogChunk::BYTES_MAX).enumerate();
    pieces
        .map(|(n, piece)| LogChunk { at: at + (n * LogChunk::BYTES_MAX) as u64, bytes: piece.to_vec() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::namespace::spool::Spool;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    fn tail(text: &str, lines: u32) -> (u64, String) {
        let chunks = last_lines(LogChunk { at: 100, bytes: text.into() }, lines);
        let at = chunks.first().map_or(0, |chunk| chunk.at);
        (at, chunks.into_iter().map(|chunk| String::from_utf8(chunk.bytes).unwrap()).collect())
    }

    #[test]
    fn the_last_lines_are_counted_from_the_end_with_one_that_has_none() {
        assert_eq!(tail("a\nb\nc\n", 2), (102, "b\nc\n".into()));
        assert_eq!(tail("a\nb\nc", 2), (102, "b\nc".into()));
        assert_eq!(tail("a\n\nc\n", 2), (102, "\nc\n".into()));
        assert_eq!(tail("a\nb\n", 9), (100, "a\nb\n".into()));
        assert_eq!(tail("a\nb\n", 0), (0, String::new()));
        assert_eq!(tail("", 3), (0, String::new()));
        let long = "x".repeat(LogChunk::BYTES_MAX + 1);
        assert_eq!(tail(&format!("a\n{long}"), 1), (102, long));
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_until_it_ends() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        let mut spool = Spool::default();
        spool.push(&folder, b"one\ntwo\n").unwrap();
        let runs = Arc::new(AtomicBool::new(true));
        let goes_on = {
            let runs = runs.clone();
            move || runs.load(Ordering::SeqCst)
        };
        let mut printed = follow(folder.clone(), Some(1), goes_on);
        assert_eq!(printed.recv().await.unwrap().unwrap(), LogChunk { at: 4, bytes: b"two\n".to_vec() });
        spool.push(&folder, b"three\n").unwrap();
        assert_eq!(printed.recv().await.unwrap().unwrap(), LogChunk { at: 8, bytes: b"three\n".to_vec() });
        spool.push(&folder, b"four\n").unwrap();
        runs.store(false, Ordering::SeqCst);
        assert_eq!(printed.recv().await.unwrap().unwrap().bytes, b"four\n");
        assert!(printed.recv().await.is_none());
    }
}
