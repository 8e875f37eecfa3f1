//! The lane of held pages: the target tells the source what it holds of the machine, before and while the memory crosses.
//!
//! On a `Held` lane, from the target: an [`Offer`] frame, then the prints of so many pages, 16 bytes each, in the order of
//! their numbers, and the end of the direction. The source says nothing. It waits a moment for all of it, because what is
//! sent before its print is known is sent in full.

use super::Counters;
use crate::migrate::{
    checkpoint::Stock,
    link::lane::{LaneReader, LaneWriter},
};
use novacron_codec::{Offered, Print, PrintKey, STOCK_MAX, TooMany};
use novacron_common::wire::{
    LaneKind,
    codec::{self, CodecError, LENGTH_BYTES},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
    task::JoinError,
};

/// More than the header ever takes.
const HEADER_MAX: usize = 64;
const PRINT: usize = size_of::<Print>();
/// Read at once.
const CHUNK: usize = 1024 * PRINT;

/// What the target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The key of the prints.
    pub key: [u8; 16],
    /// How many there will be, at most [`STOCK_MAX`].
    pub pages: u32,
}

/// An offer that did not come across.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It begins with something else.
    #[error("the lane of held pages carries something else")]
    Frame(#[from] CodecError),
    /// It would take too much memory here.
    #[error("the target offers {0} pages; at most {STOCK_MAX} are looked up")]
    TooLarge(u32),
    /// It does not end where it said it would.
    #[error("the offer of held pages is refused")]
    TooMany(#[from] TooMany),
    /// It ended before that.
    #[error("the offer of held pages ended after {heard} bytes of prints, of {announced} pages")]
    Short {
        /// Bytes that came.
        heard: usize,
        /// Pages that were announced.
        announced: u32,
    },
    /// The source has nothing to say here.
    #[error("the source speaks on the lane of held pages")]
    Speaks,
    /// The lane.
    #[error("the lane of held pages broke")]
    Lane(#[from] io::Error),
    /// The task that read the pages.
    #[error("the held pages could not be read")]
    Read(#[from] JoinError),
}

/// How much of the offer the source has.
#[derive(Debug, Clone, Default)]
pub enum Heard {
    /// Not even its header.
    #[default]
    Nothing,
    /// What came so far; more is on its way.
    Some(Arc<Offered>),
    /// All of it; `None` if nothing is held there.
    All(Option<Arc<Offered>>),
    /// It cannot be believed.
    Broken(String),
}

impl Heard {
    /// What can be referred to.
    pub fn offered(&self) -> Option<Arc<Offered>> {
        match self {
            Self::Some(offered) => Some(offered.clone()),
            Self::All(offered) => offered.clone(),
            Self::Nothing | Self::Broken(_) => None,
        }
    }

    /// Whether nothing more will come.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::All(_) | Self::Broken(_))
    }
}

/// The target's end: tells everything that `stock` has.
///
/// # Errors
/// [`OfferError`].
pub async fn tell(
    (mut from, mut to): (LaneReader, LaneWriter),
    stock: Option<Arc<Stock>>,
) -> Result<(), OfferError> {
    let offer = stock
        .as_ref()
        .map_or(Offer { key: [0; 16], pages: 0 }, |stock| Offer { key: stock.key().0, pages: stock.count() });
    to.write_all(&codec::encode_frame(&offer)?).await?;
    if let Some(stock) = stock {
        loop {
            let stock = stock.clone();
            let prints = tokio::task::spawn_blocking(move || stock.next_prints()).await?;
            if prints.is_empty() {
                break;
            }
            to.write_all(prints.as_flattened()).await?;
        }
    }
    to.shutdown().await?;
    if from.read(&mut [0]).await? > 0 { Err(OfferError::Speaks) } else { Ok(()) }
}

/// The source's end: takes in the offer, counts its bytes, and shows how far it is.
///
/// # Errors
/// [`OfferError`]: the target is not to be believed.
pub async fn hear(
    (mut from, mut to): (LaneReader, LaneWriter),
    counters: &Counters,
    heard: &watch::Sender<Heard>,
) -> Result<(), OfferError> {
    to.shutdown().await?;
    let Offer { key, pages } = header(&mut from, counters).await?;
    if pages > STOCK_MAX {
        return Err(OfferError::TooLarge(pages));
    }
    let offered = Arc::new(Offered::new(&PrintKey(key), pages));
    if pages > 0 {
        heard.send_replace(Heard::Some(offered.clone()));
    }
    prints(&mut from, &offered, counters).await?;
    heard.send_replace(Heard::All((pages > 0).then_some(offered)));
    Ok(())
}

async fn header(from: &mut LaneReader, counters: &Counters) -> Result<Offer, OfferError> {
    let mut prefix = [0; LENGTH_BYTES];
    from.read_exact(&mut prefix).await?;
    let length = codec::frame_length(prefix)?;
    if length > HEADER_MAX {
        return Err(CodecError::TooLong { length, max: HEADER_MAX }.into());
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    counters.of(LaneKind::Held).fetch_add((LENGTH_BYTES + length) as u64, Ordering::Relaxed);
    Ok(codec::decode(&frame)?)
}

async fn prints(from: &mut LaneReader, offered: &Offered, counters: &Counters) -> Result<(), OfferError> {
    let (mut buffer, mut held, mut heard) = (vec![0; CHUNK], 0, 0);
    loop {
        let read = from.read(&mut buffer[held..]).await?;
        if read == 0 {
            break;
        }
        heard += read;
        counters.of(LaneKind::Held).fetch_add(read as u64, Ordering::Relaxed);
        held += read;
        let (prints, rest) = buffer[..held].as_chunks::<PRINT>();
        offered.extend(prints)?;
        let (whole, left) = (held - rest.len(), rest.len());
        buffer.copy_within(whole..held, 0);
        held = left;
    }
    if held == 0 && offered.is_whole() {
        return Ok(());
    }
    Err(OfferError::Short { heard, announced: offered.announced() })
}
