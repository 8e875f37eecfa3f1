//! Pages that are offered to the host from which a machine comes: what it left here, and what others of its gang brought.
//!
//! Every page is read and its seal checked before its print is told: a damaged one is never offered, it crosses as any
//! other page. One that is damaged after that ends the move, fully back, and is not offered again.

use super::{
    Inner,
    gang::Part,
    pages::{Pages, PagesReader},
};
use novacron_codec::{HOLE, Library, NotHeld, PAGE, Page, Print, PrintKey, Printer, STOCK_MAX};
use novacron_common::ids::{GangId, VmId};
use std::{
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

/// Prints that are made at once: of 2 MiB, whole chunks.
const BATCH: u32 = 512;

/// Whose pages they are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// Of a machine that left.
    Checkpoint(VmId),
    /// Of machines that came.
    Gang(GangId),
}

/// Pages of one file, and their numbers in the offer.
#[derive(Debug)]
struct Shelf {
    origin: Origin,
    pages: Arc<Pages>,
    numbers: Range<u32>,
}

/// Pages as they are offered, numbered from the first file to the last.
#[derive(Debug)]
pub struct Stock {
    inner: Arc<Inner>,
    shelves: Vec<Shelf>,
    key: PrintKey,
    /// What lies below was told, and may be referred to.
    offered: AtomicU32,
}

impl Stock {
    /// Of these files; what goes beyond [`STOCK_MAX`] is left out.
    pub(super) fn of(inner: Arc<Inner>, parts: Vec<(Origin, Part)>) -> io::Result<Arc<Self>> {
        let mut key = PrintKey([0; 16]);
        aws_lc_rs::rand::fill(&mut key.0).map_err(io::Error::other)?;
        let mut end = 0_u32;
        let shelves = parts.into_iter().map(|(origin, Part { pages, count })| {
            let numbers = end..STOCK_MAX.min(end.saturating_add(count));
            end = numbers.end;
            Shelf { origin, pages, numbers }
        });
        let shelves = shelves.collect();
        Ok(Arc::new(Self { inner, shelves, key, offered: AtomicU32::new(0) }))
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
        let (printer, mut page, mut holes) = (Printer::shared(&self.key), [0; PAGE], 0);
        let mut reader = PagesReader::new(shelf.pages.clone());
        let prints = (from..to).map(|number| match reader.read(number - shelf.numbers.start, &mut page) {
            Ok(()) => printer.of(&page),
            Err(_) => {
                holes += 1;
                HOLE
            }
        });
        let prints = prints.collect();
        if holes > 0 {
            tracing::warn!(origin = ?shelf.origin, pages = holes, from, to, "held pages are damaged and left out");
        }
        self.offered.store(to, Ordering::Release);
        prints
    }

    /// A predecessor of this agent told all of it.
    pub fn was_offered(&self) {
        self.offered.store(self.count(), Ordering::Release);
    }

    /// For the decoder.
    pub fn reader(self: &Arc<Self>) -> StockReader {
        let readers = self.shelves.iter().map(|shelf| PagesReader::new(shelf.pages.clone())).collect();
        StockReader { stock: self.clone(), readers }
    }

    fn throw_away(&self, origin: Origin) {
        match origin {
            Origin::Checkpoint(vm) => self.inner.remove(vm),
            Origin::Gang(gang) => self.inner.gangs.forget(gang),
        }
    }
}

/// Reads what was offered.
#[derive(Debug)]
pub struct StockReader {
    stock: Arc<Stock>,
    /// One for each file.
    readers: Vec<PagesReader>,
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
            tracing::warn!(origin = ?shelf.origin, number, %reason, "held pages are damaged and thrown away");
            stock.throw_away(shelf.origin);
            NotHeld::Lost { number, reason }
        })
    }
}
