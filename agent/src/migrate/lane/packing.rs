//! Packing beside the lane's own task: several parcels at once, their frames in order.
//!
//! zstd takes most of the codec's time, and one batch has nothing to do with the next. A migration has a bounded number
//! of packers for all its memory lanes ([`Packers`]); a lane has a bounded number of parcels on their way ([`Line`]).

use novacron_codec::{Packed, Packer, Parcel};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, spawn_blocking},
};

/// The most packers that a migration has.
pub const PACKERS_MAX: usize = 4;

/// The packers of one migration. Clones share them.
#[derive(Clone)]
pub struct Packers {
    idle: Arc<Mutex<Vec<Packer>>>,
    free: Arc<Semaphore>,
}

impl Default for Packers {
    /// One for each processor.
    fn default() -> Self {
        let count = available_parallelism().map_or(1, usize::from).min(PACKERS_MAX);
        Self { idle: Arc::default(), free: Arc::new(Semaphore::new(count)) }
    }
}

impl Packers {
    fn take(&self) -> Packer {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// And how long that took.
    fn pack(&self, parcel: Parcel) -> (Packed, Duration) {
        let (mut packer, began) = (self.take(), Instant::now());
        let packed = parcel.pack(&mut packer);
        let took = began.elapsed();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(packer);
        (packed, took)
    }

    fn start(&self, parcel: Parcel) -> JoinHandle<(Packed, Duration)> {
        let packers = self.clone();
        tokio::spawn(async move {
            let free = packers.free.clone().acquire_owned().await;
            let work = spawn_blocking(move || {
                let packed = packers.pack(parcel);
                drop(free);
                packed
            });
            work.await.expect("packing does not panic")
        })
    }
}

/// One parcel that has its place in a line.
enum Place {
    Packed(Packed),
    Packing(JoinHandle<(Packed, Duration)>),
}

/// The parcels of one lane on their way, in order.
pub struct Line {
    packers: Packers,
    room: usize,
    places: VecDeque<Place>,
    packing: Duration,
}

impl Line {
    /// An empty one, with room for so many parcels.
    pub fn new(packers: Packers, room: usize) -> Self {
        Self { packers, room, places: VecDeque::with_capacity(room), packing: Duration::ZERO }
    }

    /// Whether the next to be put in must wait for the first to be taken out.
    pub fn is_full(&self) -> bool {
        self.places.len() >= self.room
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Puts a parcel in, behind the others.
    pub fn put(&mut self, parcel: Parcel) {
        let place = if parcel.is_dear() {
            Place::Packing(self.packers.start(parcel))
        } else {
            Place::Packed(parcel.stored())
        };
        self.places.push_back(place);
    }

    /// How long packers took for what was taken out since this was asked last.
    pub fn packing(&mut self) -> Duration {
        std::mem::take(&mut self.packing)
    }

    /// Waits for the first, and takes it out. Never ends while nothing is on its way. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn next(&mut self) -> io::Result<Packed> {
        match self.places.front_mut() {
            None => return std::future::pending().await,
            Some(Place::Packing(work)) => {
                let (packed, took) = work.await.map_err(io::Error::other)?;
                self.packing += took;
                self.places.pop_front();
                return Ok(packed);
            }
            Some(Place::Packed(_)) => {}
        }
        match self.places.pop_front() {
            Some(Place::Packed(packed)) => Ok(packed),
            _ => unreachable!("it was looked at just now"),
        }
    }
}
