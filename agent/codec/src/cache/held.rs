//! What the encoder knows of the pages that both sides hold, and how it decides which to keep.
//!
//! Slots are divided into shards by page address. A page evicts another of its own shard only, so that one decision
//! looks at a few slots. QEMU goes over the dirty pages in the order of their addresses, round after round, which a cache
//! of the latest pages survives with nothing to show. So what is held stays: a new page gets a slot as long as there are free
//! ones, a page that came back also the place of one that never did, and those that do cool slowly. Slots are not spared for
//! pages that are sure to come back: what such a page then costs is itself once more, in full.

use std::collections::HashMap;

use super::{Slots, delta, seen::Seen};
use crate::parse::Place;
use crate::proof::{Printer, Tag};
use crate::wire::op::Base;
use crate::{PAGE, Page};

const SHARDS: u32 = 64;
/// Slots that one eviction looks at.
const LOOKS: u32 = 8;
/// How warm a page may get.
const HEAT_MAX: u8 = 3;
/// Of so many pages that found no place, one cools the slots that it looked at.
const COOLING: u32 = 16;
/// Larger edits are worth less than what zstd makes of the page.
const EDITS_MAX: usize = PAGE / 3;

/// Bijective, so that pages that lie beside each other share nothing (the finisher of SplitMix64).
pub fn mix(key: u64) -> u64 {
    let key = (key ^ (key >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ (key >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ (key >> 31)
}

/// How a page can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// As one that the other side holds.
    Reference(Base),
    /// As edits of one that the other side holds.
    Delta(Base),
    /// Literally, to be held from now on.
    Keep(u32),
    /// Literally.
    Literal,
}

#[derive(Clone, Copy)]
struct About {
    key: u64,
    /// `None` since it was edited: to print each version costs more than it finds.
    print: Option<Tag>,
    heat: u8,
}

/// The encoder's side of the slots.
pub struct Held {
    slots: Slots,
    about: Vec<About>,
    places: HashMap<u64, u32>,
    prints: HashMap<Tag, u32>,
    seen: Seen,
    hands: [u32; SHARDS as usize],
    looked: u32,
    printer: Printer,
}

impl Held {
    /// Nothing held yet, room for `count` pages; for none, if the system has no memory for them.
    pub fn new(count: u32, printer: Printer) -> Self {
        Self {
            slots: Slots::new(count).unwrap_or_else(|_| Slots::none()),
            about: Vec::new(),
            places: HashMap::new(),
            prints: HashMap::new(),
            seen: Seen::default(),
            hands: [0; SHARDS as usize],
            looked: 0,
            printer,
        }
    }

    /// How many pages have room.
    pub fn count(&self) -> u32 {
        self.slots.count()
    }

    /// Whether a page of this place was sent before, as far as is known.
    pub fn again(&mut self, place: Place) -> bool {
        self.seen.again(key_of(place))
    }

    /// How to send a page, given whether its place was sent before. What the other side will hold from this decision on
    /// is held here too; edits go to `edits`.
    pub fn send(&mut self, place: Option<Place>, again: bool, page: &Page, edits: &mut Vec<u8>) -> Found {
        let key = place.map(key_of);
        let known = key.and_then(|key| self.places.get(&key).copied());
        if let Some(base) = known.map(|slot| self.slots.base(slot))
            && let Some(found) = self.against(base, page, edits)
        {
            return found;
        }
        let print = self.printer.of(page);
        if let Some(base) = self.equal(&print, page) {
            return Found::Reference(base);
        }
        let Some(key) = key else { return Found::Literal };
        let slot = known.or_else(|| self.room(key, again));
        slot.map_or(Found::Literal, |slot| {
            self.keep(slot, About { key, print: Some(print), heat: u8::from(again) }, page)
        })
    }

    /// The version sent before, edited or as it was.
    fn against(&mut self, base: Base, page: &Page, edits: &mut Vec<u8>) -> Option<Found> {
        let old = self.slots.get(base).ok()?;
        let start = edits.len();
        if !delta::encode(old, page, EDITS_MAX, edits) {
            return None;
        }
        let about = &mut self.about[base.slot as usize];
        about.heat = HEAT_MAX;
        if edits.len() == start {
            return Some(Found::Reference(base));
        }
        if let Some(print) = about.print.take() {
            self.prints.remove(&print);
        }
        self.slots.edit(base).ok()?.copy_from_slice(page);
        Some(Found::Delta(base))
    }

    /// A held page with the same bytes.
    fn equal(&mut self, print: &Tag, page: &Page) -> Option<Base> {
        let base = self.slots.base(*self.prints.get(print)?);
        let same = self.slots.get(base).is_ok_and(|held| held == page);
        same.then(|| {
            let heat = &mut self.about[base.slot as usize].heat;
            *heat = (*heat + 1).min(HEAT_MAX);
            base
        })
    }

    fn keep(&mut self, slot: u32, about: About, page: &Page) -> Found {
        if self.slots.put(slot, page).is_err() {
            return Found::Literal;
        }
        match self.about.get_mut(slot as usize) {
            Some(held) => {
                let gone = std::mem::replace(held, about);
                if gone.key != about.key {
                    self.places.remove(&gone.key);
                }
                if let Some(print) = gone.print {
                    self.prints.remove(&print);
                }
            }
            None => self.about.push(about),
        }
        self.places.insert(about.key, slot);
        self.prints.extend(about.print.map(|print| (print, slot)));
        Found::Keep(slot)
    }

    /// A slot for a page that has none: a new one, or for a page that came back the first cold one of a few.
    fn room(&mut self, key: u64, again: bool) -> Option<u32> {
        if self.slots.filled() < self.slots.count() {
            return Some(self.slots.filled());
        }
        if !again {
            return None;
        }
        self.looked = self.looked.wrapping_add(1);
        let cools = u8::from(self.looked.is_multiple_of(COOLING));
        let shard = (mix(key) >> 32) as u32 % SHARDS;
        let in_shard = (self.count() + SHARDS - 1 - shard) / SHARDS;
        (0..LOOKS.min(in_shard)).find_map(|_| {
            let hand = &mut self.hands[shard as usize];
            let slot = *hand * SHARDS + shard;
            *hand = (*hand + 1) % in_shard;
            let heat = &mut self.about[slot as usize].heat;
            let cold = *heat == 0;
            *heat = heat.saturating_sub(cools);
            cold.then_some(slot)
        })
    }
}

fn key_of(place: Place) -> u64 {
    u64::from(place.block) << 52 | place.page
}
