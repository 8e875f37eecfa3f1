//! Numbered places for pages, the same on both sides.

use crate::wire::op::Base;
use crate::{PAGE, Page};

/// Bytes of memory that a slot costs at most: the page, and the encoder's indices.
pub const SLOT_COST: usize = PAGE + 256;

/// Why a slot does not hold what was referred to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    /// It is none of the slots agreed on.
    #[error("slot {slot} is none of {slots}")]
    NoSlot {
        /// What was asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// It holds another version, or nothing (version 0).
    #[error("slot {slot} holds version {held}, not {wanted}")]
    Version {
        /// What was asked for.
        slot: u32,
        /// What it holds.
        held: u32,
        /// What was meant.
        wanted: u32,
    },
}

struct Slot {
    version: u32,
    page: Box<Page>,
}

/// The slots of one generation. Memory is taken as they fill.
pub struct Slots {
    slots: Vec<Slot>,
    count: u32,
}

impl Slots {
    /// At most so many pages.
    pub fn new(count: u32) -> Self {
        Self { slots: Vec::new(), count }
    }

    /// How many pages have room.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many slots were filled so far; they fill from 0.
    pub fn filled(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(self.count)
    }

    /// Puts a page; what was there is forgotten. A slot is filled first when all below it are.
    pub fn put(&mut self, slot: u32, page: &Page) -> Result<Base, Stale> {
        if slot >= self.count || slot > self.filled() {
            return Err(Stale::NoSlot { slot, slots: self.count });
        }
        match self.slots.get_mut(slot as usize) {
            Some(held) => {
                held.version = held.version.wrapping_add(1);
                held.page.copy_from_slice(page);
            }
            None => self.slots.push(Slot { version: 1, page: Box::new(*page) }),
        }
        Ok(self.base(slot))
    }

    /// How to refer to what a filled slot holds now.
    pub fn base(&self, slot: u32) -> Base {
        Base { slot, version: self.slots.get(slot as usize).map_or(0, |held| held.version) }
    }

    /// The page that was referred to.
    pub fn get(&self, base: Base) -> Result<&Page, Stale> {
        self.check(base)?;
        Ok(&self.slots[base.slot as usize].page)
    }

    /// The page that was referred to, to be made into its next version.
    pub fn edit(&mut self, base: Base) -> Result<&mut Page, Stale> {
        self.check(base)?;
        let held = &mut self.slots[base.slot as usize];
        held.version = held.version.wrapping_add(1);
        Ok(&mut held.page)
    }

    fn check(&self, base: Base) -> Result<(), Stale> {
        let Base { slot, version: wanted } = base;
        if slot >= self.count {
            return Err(Stale::NoSlot { slot, slots: self.count });
        }
        match self.base(slot).version {
            held if held == wanted && held > 0 => Ok(()),
            held => Err(Stale::Version { slot, held, wanted }),
        }
    }
}
