//! Takes pages off the encoder's hands and has a thread write them. The encoder never waits: what the disk is too slow
//! for is left out.

use super::{
    Inner,
    pages::Pages,
    places::{PLACES_COST, Places},
};
use crate::text::describe;
use novacron_codec::{PAGE, Page, Witness, parse::Place};
use novacron_common::ids::VmId;
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};
use tokio::sync::oneshot;

/// Pages that are handed over together.
const PARCEL: usize = 64;
/// Parcels that may wait for the disk.
const QUEUE: usize = 8;
/// Free room is looked at whenever so many pages were written: 16 MiB.
const LOOK_EVERY: u64 = 4096;
/// What the keeping of one machine's pages takes of memory, at most, bytes: the parcels that wait, the one that is filled
/// and the one that is written, and the records' places.
pub const KEEPING: usize = (QUEUE + 2) * PARCEL * (PAGE + size_of::<Place>()) + PLACES_COST;

#[derive(Debug, Default)]
struct Parcel {
    places: Vec<Place>,
    bytes: Vec<u8>,
}

impl Parcel {
    fn new() -> Self {
        Self { places: Vec::with_capacity(PARCEL), bytes: Vec::with_capacity(PARCEL * PAGE) }
    }
}

/// What an encoder shows its pages to.
#[derive(Debug)]
pub struct Sink {
    parcel: Parcel,
    /// `None` once the writer has given up.
    to: Option<SyncSender<Parcel>>,
}

impl Witness for Sink {
    fn page(&mut self, place: Place, page: &Page) {
        if self.to.is_none() {
            return;
        }
        self.parcel.places.push(place);
        self.parcel.bytes.extend(page);
        if self.parcel.places.len() == PARCEL {
            self.hand_over();
        }
    }
}

impl Sink {
    fn hand_over(&mut self) {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let Some(to) = &self.to else { return };
        match to.try_send(std::mem::replace(&mut self.parcel, Parcel::new())) {
            Ok(()) => {}
            Err(Full(mut parcel)) => {
                parcel.places.clear();
                parcel.bytes.clear();
                self.parcel = parcel;
            }
            Err(Disconnected(_)) => (self.to, self.parcel) = (None, Parcel::default()),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// Starts the thread that writes; it says how many records there are once the sink is gone, or nothing if it failed.
pub(super) fn start(inner: Arc<Inner>, vm: VmId, pages: Pages) -> io::Result<(Sink, oneshot::Receiver<u32>)> {
    let (to, parcels) = sync_channel(QUEUE);
    let (done, written) = oneshot::channel();
    let mut writer = Writer { room: inner.room(), inner, pages, places: Places::default(), sequence: 0 };
    thread::Builder::new().name("checkpoint".into()).spawn(move || match writer.write_all(&parcels) {
        Ok(()) => _ = done.send(writer.places.count()),
        Err(error) => {
            tracing::warn!(%vm, reason = describe(&error), "its checkpoint could not be written and is thrown away");
        }
    })?;
    Ok((Sink { parcel: Parcel::new(), to: Some(to) }, written))
}

struct Writer {
    inner: Arc<Inner>,
    pages: Pages,
    places: Places,
    room: u32,
    sequence: u64,
}

impl Writer {
    fn write_all(&mut self, parcels: &Receiver<Parcel>) -> io::Result<()> {
        for parcel in parcels {
            for (place, page) in parcel.places.iter().zip(parcel.bytes.chunks_exact(PAGE)) {
                self.write(*place, page)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, place: Place, page: &[u8]) -> io::Result<()> {
        let Some(record) = self.places.record(place, self.room) else { return Ok(()) };
        if self.sequence.is_multiple_of(LOOK_EVERY) && !self.inner.has_reserve()? {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "too little would stay free"));
        }
        self.sequence += 1;
        self.pages.write(record, self.sequence, page)
    }
}
