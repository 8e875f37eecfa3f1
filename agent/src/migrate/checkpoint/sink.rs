//! Takes pages off lanes' hands and has a thread seal and write them. No lane ever waits for the disk: what it is too slow
//! for is left out.

use super::{
    Inner,
    pages::{CHUNK, Chunk, Pages},
    versions::{VERSIONS_COST, Versions},
};
use crate::text::describe;
use novacron_codec::{Page, PageObserver, parse::Place};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};
use tokio::sync::oneshot;

/// Chunks of one machine, full or empty: 5 MiB.
const CHUNKS: usize = 20;
/// Free room is looked at whenever so many chunks were written: 16 MiB.
const LOOK_EVERY: u32 = 64;
/// What the keeping of one machine's pages takes of memory, at most, bytes.
pub const KEEPING: usize = CHUNKS * CHUNK + VERSIONS_COST;

/// What a lane shows its pages to.
#[derive(Debug)]
pub struct Sink {
    versions: Versions,
    chunk: Chunk,
    /// `None` once the writer has given up.
    to: Option<SyncSender<Chunk>>,
    /// What was written, to be filled again.
    empty: Receiver<Chunk>,
}

impl PageObserver for Sink {
    fn page(&mut self, place: Option<Place>, page: &Page) {
        if self.to.is_none() || !self.versions.admit(place) {
            return;
        }
        self.chunk.push(page);
        if self.chunk.is_full() {
            self.hand_over();
        }
    }
}

impl Sink {
    fn hand_over(&mut self) {
        // None is empty while the disk is behind.
        let (Some(to), Ok(next)) = (&self.to, self.empty.try_recv()) else { return self.chunk.clear() };
        if to.try_send(std::mem::replace(&mut self.chunk, next)).is_err() {
            self.to = None;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.chunk.count() > 0 {
            self.hand_over();
        }
    }
}

/// A sink for all memory lanes of a migration. It is theirs: with the last of them it is gone.
#[derive(Debug)]
pub struct SharedSink(Mutex<Share>);

#[derive(Debug)]
enum Share {
    Whole(Option<Sink>),
    Lent(Weak<Mutex<Sink>>),
}

impl SharedSink {
    /// Nobody has it yet, if there is one.
    pub fn new(sink: Option<Sink>) -> Self {
        Self(Mutex::new(Share::Whole(sink)))
    }

    /// For one lane more; `None` if there is no sink, or those that had it are over.
    pub fn of_lane(&self) -> Option<LaneSink> {
        let mut share = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *share {
            Share::Lent(lent) => lent.upgrade().map(LaneSink),
            Share::Whole(sink) => {
                let lent = Arc::new(Mutex::new(sink.take()?));
                *share = Share::Lent(Arc::downgrade(&lent));
                Some(LaneSink(lent))
            }
        }
    }
}

/// A lane's part of a [`SharedSink`].
#[derive(Debug)]
pub struct LaneSink(Arc<Mutex<Sink>>);

impl PageObserver for LaneSink {
    fn page(&mut self, place: Option<Place>, page: &Page) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).page(place, page);
    }
}

/// Starts the thread that writes; it says how many pages there are once the sink is gone, or nothing if it failed.
pub(super) fn start(
    inner: Arc<Inner>,
    room: u32,
    pages: Arc<Pages>,
) -> io::Result<(Sink, oneshot::Receiver<u32>)> {
    let ((to, full), (back, empty)) = (sync_channel(CHUNKS), sync_channel(CHUNKS));
    (1..CHUNKS).for_each(|_| _ = back.try_send(Chunk::new()));
    let versions = Versions::new(room);
    let (done, written) = oneshot::channel();
    let writer = Writer { inner, pages, back };
    thread::Builder::new().name("checkpoint".into()).spawn(move || match writer.write_all(&full) {
        Ok(count) => _ = done.send(count),
        Err(error) => {
            tracing::warn!(reason = describe(&error), "pages could not be kept, and are thrown away");
        }
    })?;
    Ok((Sink { versions, chunk: Chunk::new(), to: Some(to), empty }, written))
}

struct Writer {
    inner: Arc<Inner>,
    pages: Arc<Pages>,
    back: SyncSender<Chunk>,
}

impl Writer {
    /// Writes what comes, and says how many pages that were. All chunks but the last are full.
    fn write_all(&self, full: &Receiver<Chunk>) -> io::Result<u32> {
        let mut pages = 0;
        for (number, mut chunk) in (0..).zip(full) {
            if number % LOOK_EVERY == 0 {
                self.inner.demand_reserve()?;
            }
            self.pages.write(number, &mut chunk)?;
            pages += chunk.count();
            chunk.clear();
            // Nobody fills it any more once the sink is gone.
            let _ = self.back.try_send(chunk);
        }
        Ok(pages)
    }
}
