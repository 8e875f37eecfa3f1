//! Pages that are offered to the host from which a machine comes: what it left here, what others of its gang brought, and
//! what its template's image holds.
//!
//! Every page is read, and its seal checked, before its print is told: a damaged one is never offered, it crosses as any
//! other page. One that is damaged after that ends the move, fully back, and is not offered again.

use super::{Inner, gang::Part, pages::PagesReader, template::TemplatePages};
use novacron_codec::{HOLE, Library, NotHeld, PAGE, Page, Print, PrintKey, Printer, STOCK_MAX};
use novacron_common::ids::{GangId, VmId};
use std::{
    fmt, io,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Prints that are made at once: of 2 MiB, whole chunks.
const BATCH: u32 = 512;
/// How long an image is read for its offer, as the move waits for that: the rest is told as holes.
const IMAGE_READING: Duration = Duration::from_secs(2);
const BLANK: Page = [0; PAGE];

/// One file of pages that this host holds.
#[derive(Debug)]
pub(super) enum Held {
    /// Of a machine that left.
    Checkpoint(VmId, Part),
    /// Of machines that came.
    Gang(GangId, Part),
    /// Of the image under the machine's disk.
    Template(Arc<TemplatePages>),
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkpoint(vm, _) => write!(formatter, "the checkpoint of {vm}"),
            Self::Gang(gang, _) => write!(formatter, "what machines of {gang} brought"),
            Self::Template(_) => formatter.write_str("the template's image"),
        }
    }
}

impl Held {
    fn count(&self) -> u32 {
        match self {
            Self::Checkpoint(_, part) | Self::Gang(_, part) => part.count,
            Self::Template(pages) => pages.count(),
        }
    }

    fn reader(&self) -> Reader {
        match self {
            Self::Checkpoint(_, Part { pages, .. }) | Self::Gang(_, Part { pages, .. }) => {
                Reader::Sealed(PagesReader::new(pages.clone()))
            }
            Self::Template(pages) => Reader::Plain(pages.clone()),
        }
    }
}

/// Reads one file's pages by their numbers in it.
#[derive(Debug)]
enum Reader {
    Sealed(PagesReader),
    Plain(Arc<TemplatePages>),
}

impl Reader {
    fn read(&mut self, number: u32, into: &mut Page) -> Result<(), io::ErrorKind> {
        match self {
            Self::Sealed(reader) => reader.read(number, into),
            Self::Plain(pages) => pages.read(number, into),
        }
    }
}

/// Pages of one file, and their numbers in the offer.
#[derive(Debug)]
struct Shelf {
    held: Held,
    numbers: Range<u32>,
}

/// Pages as they are offered, numbered from the first file to the last.
#[derive(Debug)]
pub struct Stock {
    /// `None` where no checkpoints are kept.
    inner: Option<Arc<Inner>>,
    shelves: Vec<Shelf>,
    key: PrintKey,
    /// Since when an image is read.
    image_since: OnceLock<Instant>,
    /// What lies below was told, and may be referred to.
    offered: AtomicU32,
}

impl Stock {
    /// Of these files; what goes beyond [`STOCK_MAX`] is left out.
    pub(super) fn of(inner: Option<Arc<Inner>>, files: Vec<Held>) -> io::Result<Arc<Self>> {
        let mut key = PrintKey([0; 16]);
        aws_lc_rs::rand::fill(&mut key.0).map_err(io::Error::other)?;
        let mut end = 0_u32;
        let shelves = files.into_iter().map(|held| {
            let numbers = end..STOCK_MAX.min(end.saturating_add(held.count()));
            end = numbers.end;
            Shelf { held, numbers }
        });
        let shelves = shelves.collect();
        Ok(Arc::new(Self { inner, shelves, key, image_since: OnceLock::new(), offered: AtomicU32::new(0) }))
    }

    /// How many pages there are.
    pub fn count(&self) -> u32 {
        self.shelves.last().map_or(0, |shelf| shelf.numbers.end)
    }

    /// The key of their prints: another for every move.
    pub fn key(&self) -> PrintKey {
        self.key
    }

    /// The next prints, of one file; none when all were told. Reads the disk.
    pub fn next_prints(&self) -> Vec<Print> {
        let from = self.offered.load(Ordering::Acquire);
        let Some(shelf) = self.shelves.iter().find(|shelf| shelf.numbers.contains(&from)) else {
            return Vec::new();
        };
        let to = shelf.numbers.end.min(from.saturating_add(BATCH));
        let prints = if self.is_late_for(&shelf.held) {
            vec![HOLE; (to - from) as usize]
        } else {
            self.prints(shelf, from..to)
        };
        self.offered.store(to, Ordering::Release);
        prints
    }

    fn is_late_for(&self, held: &Held) -> bool {
        let of_image = matches!(held, Held::Template(_));
        of_image && self.image_since.get_or_init(Instant::now).elapsed() > IMAGE_READING
    }

    /// Reads pages of one file.
    fn prints(&self, shelf: &Shelf, numbers: Range<u32>) -> Vec<Print> {
        let (printer, mut page, mut holes) = (Printer::shared(&self.key), [0; PAGE], 0);
        let mut reader = shelf.held.reader();
        let prints =
            numbers.clone().map(|number| match reader.read(number - shelf.numbers.start, &mut page) {
                Ok(()) if page == BLANK => HOLE, // nobody refers to it
                Ok(()) => printer.of(&page),
                Err(_) => {
                    holes += 1;
                    HOLE
                }
            });
        let prints = prints.collect();
        if holes > 0 {
            tracing::warn!(of = %shelf.held, pages = holes, ?numbers, "held pages are damaged and left out");
        }
        prints
    }

    /// A predecessor of this agent told all of it.
    pub fn was_offered(&self) {
        self.offered.store(self.count(), Ordering::Release);
    }

    /// For the decoder.
    pub fn reader(self: &Arc<Self>) -> StockReader {
        let readers = self.shelves.iter().map(|shelf| shelf.held.reader()).collect();
        StockReader { stock: self.clone(), readers }
    }

    /// Of an image the next offer is made anew.
    fn throw_away(&self, held: &Held) {
        let Some(inner) = &self.inner else { return };
        match held {
            Held::Checkpoint(vm, _) => inner.remove(*vm),
            Held::Gang(gang, _) => inner.gangs.forget(*gang),
            Held::Template(_) => {}
        }
    }
}

/// Reads what was offered.
#[derive(Debug)]
pub struct StockReader {
    stock: Arc<Stock>,
    /// One for each file.
    readers: Vec<Reader>,
}

impl Library for StockReader {
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld> {
        let Self { stock, readers } = self;
        let offered = stock.offered.load(Ordering::Acquire);
        let mut shelves = stock.shelves.iter().zip(readers);
        let found = shelves.find(|(shelf, _)| number < offered && shelf.numbers.contains(&number));
        let Some((shelf, reader)) = found else {
            return Err(NotHeld::NeverOffered { number: number.into(), offered });
        };
        reader.read(number - shelf.numbers.start, into).map_err(|reason| {
            tracing::warn!(of = %shelf.held, number, %reason, "held pages are damaged and offered no more");
            stock.throw_away(&shelf.held);
            NotHeld::Lost { number, reason }
        })
    }
}
