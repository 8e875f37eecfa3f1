//! What an attempt prints, to whoever the coordinator lets look, while it runs.

use crate::{attempt::AttemptRunner, hypervisor::namespace::spool::SpoolReader};
use novacron_common::{
    ids::AttemptKey,
    wire::{AgentReply, Denial, DenialCode, LogChunk},
};
use novacron_transport::{LinkError, Stream};
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

/// How often an attempt that prints nothing is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// An empty chunk is sent this often, so that either side notices the other's end.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Attempts that are looked at once.
static PLACES: Semaphore = Semaphore::const_new(64);

/// Answers `AttemptLog`.
pub(super) async fn serve(
    mut stream: Stream,
    runner: &AttemptRunner,
    attempt: AttemptKey,
    follow: bool,
) -> Result<(), LinkError> {
    let place = PLACES.try_acquire();
    let denial = match &place {
        Err(_) => Some((DenialCode::NoRoom, "64 attempts are being looked at on this host: try again later")),
        Ok(_) if !runner.folder(attempt).path().exists() => {
            Some((DenialCode::Unknown, "this host holds nothing of this attempt any more"))
        }
        Ok(_) => None,
    };
    if let Some((code, text)) = denial {
        stream.send(&AgentReply::Denied(Denial { code, text: text.into() })).await?;
    } else {
        stream.send(&AgentReply::Accepted).await?;
        copy(&mut stream, runner, attempt, follow).await?;
    }
    stream.finish();
    Ok(())
}

async fn copy(
    stream: &mut Stream,
    runner: &AttemptRunner,
    attempt: AttemptKey,
    follow: bool,
) -> Result<(), LinkError> {
    let mut reader = None;
    let mut last_sent = Instant::now();
    loop {
        // Looked at before the reading: what is printed after that is printed by nobody.
        let goes_on = follow && runner.is_running(attempt);
        let (at, bytes);
        (reader, at, bytes) = read(reader, runner, attempt).await.map_err(broken)?;
        if !bytes.is_empty() || last_sent.elapsed() > SIGN_OF_LIFE {
            last_sent = Instant::now();
            stream.send(&LogChunk { at, bytes }).await?;
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
    runner: &AttemptRunner,
    attempt: AttemptKey,
) -> io::Result<(Option<SpoolReader>, u64, Vec<u8>)> {
    let folder = runner.folder(attempt);
    let read = spawn_blocking(move || {
        let Some(mut reader) = reader.map_or_else(|| SpoolReader::open(&folder), |open| Ok(Some(open)))?
        else {
            return Ok((None, 0, Vec::new()));
        };
        let (at, bytes) = reader.next(LogChunk::BYTES_MAX)?;
        Ok((Some(reader), at, bytes))
    });
    read.await.map_err(io::Error::other)?
}

fn broken(cause: io::Error) -> LinkError {
    LinkError::Broken { doing: "reading what an attempt prints", reason: cause.to_string() }
}
