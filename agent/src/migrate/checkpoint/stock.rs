//! A checkpoint that is offered to the host from which its machine returns.
//!
//! Every page is read and its seal checked before its print is told: a damaged one is never offered, it crosses as any
//! other page. One that is damaged after that ends the move, fully back, and is not offered again.

use super::{
    Inner,
    pages::{Pages, PagesReader},
};
use novacron_codec::{HOLE, Library, NotHeld, PAGE, Page, Print, PrintKey, Printer};
use novacron_common::ids::VmId;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// Prints that are made at once: of 2 MiB, whole chunks.
const BATCH: u32 = 512;

/// One machine's pages, as they are offered.
#[derive(Debug)]
pub struct Stock {
    inner: Arc<Inner>,
    vm: VmId,
    pages: Arc<Pages>,
    count: u32,
    key: PrintKey,
    /// What lies below was told, and may be referred to.
    offered: AtomicU32,
}

impl Stock {
    pub(super) fn new(inner: Arc<Inner>, vm: VmId, (pages, count): (Arc<Pages>, u32), key: PrintKey) -> Self {
        Self { inner, vm, pages, count, key, offered: AtomicU32::new(0) }
    }

    /// How many pages there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The key of their prints: another for every move.
    pub fn key(&self) -> PrintKey {
        self.key
    }

    /// The next prints; none when all were told. Reads the disk.
    pub fn next_prints(&self) -> Vec<Print> {
        let from = self.offered.load(Ordering::Acquire);
        let to = self.count.min(from.saturating_add(BATCH));
        let (printer, mut page, mut holes) = (Printer::shared(&self.key), [0; PAGE], 0);
        let mut reader = PagesReader::new(self.pages.clone());
        let prints = (from..to).map(|number| match reader.read(number, &mut page) {
            Ok(()) => printer.of(&page),
            Err(_) => {
                holes += 1;
                HOLE
            }
        });
        let prints = prints.collect();
        if holes > 0 {
            tracing::warn!(vm = %self.vm, pages = holes, from, to, "pages of its checkpoint are damaged and left out");
        }
        self.offered.store(to, Ordering::Release);
        prints
    }

    /// For the decoder.
    pub fn reader(self: &Arc<Self>) -> StockReader {
        StockReader { stock: self.clone(), pages: PagesReader::new(self.pages.clone()) }
    }
}

/// Reads what was offered.
#[derive(Debug)]
pub struct StockReader {
    stock: Arc<Stock>,
    pages: PagesReader,
}

impl Library for StockReader {
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld> {
        let Self { stock, pages } = self;
        let offered = stock.offered.load(Ordering::Acquire);
        if number >= offered {
            return Err(NotHeld::NeverOffered { number: number.into(), offered });
        }
        pages.read(number, into).map_err(|reason| {
            tracing::warn!(vm = %stock.vm, number, %reason, "its checkpoint is damaged and thrown away");
            stock.inner.remove(stock.vm);
            NotHeld::Lost { number, reason }
        })
    }
}
