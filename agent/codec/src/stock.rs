//! Pages that the target held before the migration began: what of them the source may refer to.
//!
//! The target tells the prints of what it holds, numbered in order; the source finds pages among them and sends their
//! numbers. Who holds them, and where, is the caller's: [`Library`]. Nothing here is taken on trust: a number is checked
//! when it is used, the page's own seal is the library's to check, and the frame's proof covers what was rebuilt from it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proof::{PrintKey, Printer, TAG, Tag};
use crate::{Page, parse::Place};

/// A page's print in an offer.
pub type Print = Tag;
/// The print of a number whose page cannot be had: the offer says it, so that the numbers behind it stay.
pub const HOLE: Print = [0; TAG];

/// Pages in one offer, at most: 4 GiB of a guest's memory.
pub const STOCK_MAX: u32 = 1 << 20;
/// What the source's table takes for each page offered, at most: its print, and up to four places.
const OFFERED_COST: usize = TAG + 4 * size_of::<u32>();
/// What it takes of the largest offer.
pub const OFFERED_MAX: usize = STOCK_MAX as usize * OFFERED_COST;
/// Places that are looked at for one print. A peer that chooses prints to lie together makes them be forgotten, not
/// searched for long.
const PROBES: usize = 16;

/// More was offered than had been announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the target offers more than the {announced} pages that it announced")]
pub struct TooMany {
    /// What it had said.
    pub announced: u32,
}

/// Why a page that was referred to cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// The source refers to what nobody offered.
    #[error("page {number} was never offered: there were {offered}")]
    NeverOffered {
        /// What was asked for.
        number: u64,
        /// How many there are.
        offered: u32,
    },
    /// It was offered, and is damaged or gone since.
    #[error("page {number}, which was offered, cannot be read any more ({reason})")]
    Lost {
        /// Which.
        number: u32,
        /// The system's reason; [`std::io::ErrorKind::InvalidData`] if its seal is broken.
        reason: std::io::ErrorKind,
    },
}

/// The target's pages, by the numbers of its offer.
pub trait Library: Send {
    /// Reads page `number`.
    ///
    /// # Errors
    /// [`NotHeld`]; what is in `into` then means nothing.
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld>;
}

/// Sees every page that crosses a lane and is not blank, once its content is known. It must not wait for anything.
pub trait PageObserver: Send {
    /// The page of this place is `page` now. A decoder does not know the place.
    fn page(&mut self, place: Option<Place>, page: &Page);
}

/// What the source was offered. One side fills it while the other looks things up.
pub struct Offered {
    announced: u32,
    printer: Printer,
    table: Mutex<Table>,
}

/// Prints in the order of their numbers, and an open-addressing table of numbers. Both have their full size from the
/// start, of which the system gives memory as it is touched.
struct Table {
    prints: Vec<Print>,
    /// A number and one, or 0 for none; a power of two of them.
    places: Vec<u32>,
}

impl std::fmt::Debug for Offered {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Offered({} of {})", self.count(), self.announced)
    }
}

impl Offered {
    /// Nothing yet, of an offer of so many pages.
    #[must_use]
    pub fn new(key: &PrintKey, announced: u32) -> Self {
        let places = (2 * announced as usize).next_power_of_two();
        let table = Table { prints: Vec::with_capacity(announced as usize), places: vec![0; places] };
        Self { announced, printer: Printer::shared(key), table: Mutex::new(table) }
    }

    /// How many pages will be offered.
    #[must_use]
    pub fn announced(&self) -> u32 {
        self.announced
    }

    /// What it may take of memory, bytes: at most [`OFFERED_MAX`].
    #[must_use]
    pub fn memory(&self) -> usize {
        self.announced as usize * OFFERED_COST
    }

    /// Takes in the next prints.
    ///
    /// # Errors
    /// [`TooMany`], and none of these is taken then.
    pub fn extend(&self, prints: &[Print]) -> Result<(), TooMany> {
        let mut table = self.table();
        if table.prints.len() + prints.len() > self.announced as usize {
            return Err(TooMany { announced: self.announced });
        }
        for print in prints {
            table.prints.push(*print);
            table.enter(*print);
        }
        Ok(())
    }

    /// How many prints there are so far.
    pub fn count(&self) -> u32 {
        u32::try_from(self.table().prints.len()).unwrap_or(self.announced)
    }

    /// Whether all that was announced is here.
    pub fn is_whole(&self) -> bool {
        self.count() == self.announced
    }

    /// The number of a page with this content, if it was offered.
    pub fn find(&self, page: &Page) -> Option<u32> {
        if self.table().prints.is_empty() {
            return None;
        }
        let print = self.printer.of(page);
        self.table().find(&print)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Enters the last print. The first of several equal ones stays.
    fn enter(&mut self, print: Print) {
        let Ok(entry) = u32::try_from(self.prints.len()) else { return };
        if print == HOLE {
            return;
        }
        for place in probes(&print, self.places.len()) {
            match self.places[place] {
                0 => return self.places[place] = entry,
                held if self.prints[held as usize - 1] == print => return,
                _ => {}
            }
        }
    }

    fn find(&self, print: &Print) -> Option<u32> {
        let held = probes(print, self.places.len()).map(|place| self.places[place]);
        let mut held = held.take_while(|entry| *entry > 0).map(|entry| entry - 1);
        held.find(|number| self.prints[*number as usize] == *print)
    }
}

/// Where a print may be, of a table of so many places.
fn probes(print: &Print, places: usize) -> impl Iterator<Item = usize> + use<> {
    let first = print.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let mask = places.wrapping_sub(1);
    let start = usize::try_from(first & mask as u64).unwrap_or(0);
    (0..PROBES).map(move |step| (start + step) & mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE;
    use proptest::prelude::*;

    fn page(seed: u32) -> Page {
        let mut page = [0; PAGE];
        page[..4].copy_from_slice(&seed.to_le_bytes());
        page
    }

    fn key() -> PrintKey {
        PrintKey([5; 16])
    }

    fn prints(seeds: impl IntoIterator<Item = u32>) -> Vec<Print> {
        let printer = Printer::shared(&key());
        seeds.into_iter().map(|seed| printer.of(&page(seed))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_was_offered_is_found_under_its_first_number(seeds in prop::collection::vec(0..900_u32, 0..600), cut in 1..100_usize) {
            let offered = Offered::new(&key(), 600);
            for part in prints(seeds.iter().copied()).chunks(cut) {
                prop_assert_eq!(offered.extend(part), Ok(()));
            }
            for seed in 0..900 {
                let first = seeds.iter().position(|other| *other == seed).map(|at| at as u32);
                prop_assert_eq!(offered.find(&page(seed)), first);
            }
        }

        #[test]
        fn any_prints_are_taken_in_bounded_time(bytes in prop::collection::vec(any::<[u8; TAG]>(), 0..3000)) {
            let offered = Offered::new(&key(), 3000);
            prop_assert_eq!(offered.extend(&bytes), Ok(()));
            prop_assert_eq!(offered.find(&page(1)), None);
        }
    }

    #[test]
    fn more_than_was_announced_is_refused_and_changes_nothing() {
        let offered = Offered::new(&key(), 3);
        offered.extend(&prints([1, 2])).unwrap();
        assert_eq!(offered.extend(&prints([3, 4])), Err(TooMany { announced: 3 }));
        assert_eq!((offered.count(), offered.find(&page(3)), offered.is_whole()), (2, None, false));
        offered.extend(&prints([3])).unwrap();
        assert!(offered.is_whole() && offered.find(&page(3)) == Some(2));
    }

    #[test]
    fn a_hole_keeps_its_number_and_is_never_found() {
        let offered = Offered::new(&key(), 3);
        let [first, last] = prints([1, 2])[..] else { panic!("two") };
        offered.extend(&[first, HOLE, last]).unwrap();
        assert_eq!((offered.find(&page(2)), offered.find(&page(0))), (Some(2), None));
    }

    #[test]
    fn prints_that_all_want_one_place_are_forgotten_and_the_rest_is_found() {
        let offered = Offered::new(&key(), 100_001);
        let alike: Vec<Print> = (0..100_000_u32)
            .map(|number| {
                let mut print = [7; TAG];
                print[8..12].copy_from_slice(&number.to_le_bytes());
                print
            })
            .collect();
        offered.extend(&alike).unwrap();
        offered.extend(&prints([9])).unwrap();
        assert_eq!(offered.find(&page(9)), Some(100_000));
        assert!(offered.table().places.iter().filter(|entry| **entry > 0).count() < 100);
    }
}
