//! Numbered places for pages, the same on both sides.
//!
//! The pages lie in one anonymous mapping of their own, not in the allocator's heap. There, thousands of blocks of a page
//! each would lie between the buffers of every other task, on whichever thread's arena the lane just ran; freed, they
//! stay with that arena, and the next migration fills another. A mapping takes memory as it is touched (mmap(2)), and
//! gives all of it back when the lane is over (munmap(2)).

use std::io;

use memmap2::MmapMut;

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

/// The slots of one generation. Memory is taken as they fill.
pub struct Slots {
    /// `None` if there is no slot: nothing can be mapped then.
    pages: Option<MmapMut>,
    /// Of those filled so far; the first one of a slot is 1.
    versions: Vec<u32>,
    count: u32,
}

impl Slots {
    /// At most so many pages.
    ///
    /// # Errors
    /// The kernel's, if it has no room for them.
    pub fn new(count: u32) -> io::Result<Self> {
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(PAGE));
        let length = length.ok_or(io::ErrorKind::OutOfMemory)?;
        let pages = if length > 0 { Some(MmapMut::map_anon(length)?) } else { None };
        Ok(Self { pages, versions: Vec::new(), count })
    }

    /// Slots that hold what `versions` and `pages` say, from the first one on. `None` if that is no such thing.
    ///
    /// # Errors
    /// The kernel's, if it has no room for them.
    pub fn holding(count: u32, versions: Vec<u32>, pages: &[u8]) -> io::Result<Option<Self>> {
        let fits = u32::try_from(versions.len()).is_ok_and(|filled| filled <= count);
        if !fits || pages.len() != versions.len() * PAGE {
            return Ok(None);
        }
        let mut slots = Self { versions, ..Self::new(count)? };
        if let Some(all) = slots.pages.as_deref_mut() {
            all[..pages.len()].copy_from_slice(pages);
        }
        Ok(Some(slots))
    }

    /// The versions and the pages of the slots filled so far.
    pub fn held(&self) -> (&[u32], &[u8]) {
        let pages = self.pages.as_deref().unwrap_or_default();
        (&self.versions, &pages[..self.versions.len() * PAGE])
    }

    /// None at all: nothing is ever held.
    pub fn none() -> Self {
        Self { pages: None, versions: Vec::new(), count: 0 }
    }

    /// How many pages have room.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many slots were filled so far; they fill from 0.
    pub fn filled(&self) -> u32 {
        u32::try_from(self.versions.len()).unwrap_or(self.count)
    }

    /// Puts a page; what was there is forgotten. A slot is filled first when all below it are.
    pub fn put(&mut self, slot: u32, page: &Page) -> Result<Base, Stale> {
        let no_slot = self.no_slot(slot);
        if slot > self.filled() {
            return Err(no_slot);
        }
        self.page_mut(slot).ok_or(no_slot)?.copy_from_slice(page);
        match self.versions.get_mut(slot as usize) {
            Some(version) => *version = version.wrapping_add(1),
            None => self.versions.push(1),
        }
        Ok(self.base(slot))
    }

    /// How to refer to what a filled slot holds now.
    pub fn base(&self, slot: u32) -> Base {
        Base { slot, version: self.versions.get(slot as usize).copied().unwrap_or(0) }
    }

    /// The page that was referred to.
    pub fn get(&self, base: Base) -> Result<&Page, Stale> {
        self.check(base)?;
        let pages = self.pages.as_deref().map_or([].as_slice(), |bytes| bytes.as_chunks().0);
        pages.get(base.slot as usize).ok_or(self.no_slot(base.slot))
    }

    /// The page that was referred to, to be made into its next version.
    pub fn edit(&mut self, base: Base) -> Result<&mut Page, Stale> {
        self.check(base)?;
        let no_slot = self.no_slot(base.slot);
        if let Some(version) = self.versions.get_mut(base.slot as usize) {
            *version = version.wrapping_add(1);
        }
        self.page_mut(base.slot).ok_or(no_slot)
    }

    fn page_mut(&mut self, slot: u32) -> Option<&mut Page> {
        self.pages.as_deref_mut()?.as_chunks_mut().0.get_mut(slot as usize)
    }

    fn no_slot(&self, slot: u32) -> Stale {
        Stale::NoSlot { slot, slots: self.count }
    }

    fn check(&self, base: Base) -> Result<(), Stale> {
        let Base { slot, version: wanted } = base;
        if slot >= self.count {
            return Err(self.no_slot(slot));
        }
        match self.base(slot).version {
            held if held == wanted && held > 0 => Ok(()),
            held => Err(Stale::Version { slot, held, wanted }),
        }
    }
}
