//! Carries out the operations of one batch. All of them come from another host: nothing is taken on trust.

use crate::cache::{BadEdits, Slots, Stale, apply};
use crate::parse::{CONTINUE, PAGE_BITS, PAGE_FLAG, ZERO, ZERO_RECORD};
use crate::stock::{Library, NotHeld, PageObserver};
use crate::wire::op::Op;
use crate::{PAGE, Page};

/// Why operations cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadOps {
    /// The bytes are no operation.
    #[error("byte {at} of {length} begins no operation")]
    Unknown {
        /// Where.
        at: usize,
        /// How many there are.
        length: usize,
    },
    /// They make more bytes than the batch announced.
    #[error("the operations make more than the {announced} bytes announced")]
    TooMuch {
        /// What the batch said.
        announced: usize,
    },
    /// They make fewer bytes, or leave literals over.
    #[error("the operations leave {bytes} bytes unmade and {literals} literals unused")]
    TooLittle {
        /// Announced but not made.
        bytes: usize,
        /// Sent but not used.
        literals: usize,
    },
    /// They take more literals than there are.
    #[error("the operations take more literals than there are")]
    NoLiterals,
    /// They refer to what is not held.
    #[error("the page referred to is not held here")]
    Stale(#[source] Stale),
    /// A delta is none.
    #[error("a delta is damaged")]
    Edits(#[source] BadEdits),
    /// They refer to what was not held before the migration.
    #[error("a page that was held before the migration is not to be had")]
    NotHeld(#[source] NotHeld),
}

/// The pages that operations may refer to.
pub struct Holdings<'a> {
    /// Those that crossed this lane.
    pub slots: &'a mut Slots,
    /// Those that were offered, if any were.
    pub library: Option<&'a mut dyn Library>,
    /// Who sees what crosses.
    pub observer: Option<&'a mut dyn PageObserver>,
}

/// The bytes a batch makes, so far.
pub struct Rebuild<'a> {
    /// What is left of the literals.
    pub literals: &'a [u8],
    /// Where the bytes go.
    pub out: &'a mut Vec<u8>,
    /// The pages held.
    pub held: Holdings<'a>,
    /// How long `out` may become.
    end: usize,
    announced: usize,
    cursor: u64,
}

impl<'a> Rebuild<'a> {
    /// Appends to `out` exactly `announced` bytes, or fails.
    pub fn new(literals: &'a [u8], announced: usize, held: Holdings<'a>, out: &'a mut Vec<u8>) -> Self {
        let end = out.len() + announced;
        out.reserve_exact(announced);
        Self { literals, out, held, end, announced, cursor: 0 }
    }

    /// Carries out all of `ops`.
    ///
    /// # Errors
    /// At the first operation that no encoder would have sent here.
    pub fn run(mut self, ops: &[u8]) -> Result<(), BadOps> {
        let mut rest = ops;
        while !rest.is_empty() {
            let at = ops.len() - rest.len();
            let op = Op::take(&mut rest).ok_or(BadOps::Unknown { at, length: ops.len() })?;
            self.carry_out(op, &mut rest)?;
        }
        let (bytes, literals) = (self.end - self.out.len(), self.literals.len());
        if (bytes, literals) == (0, 0) { Ok(()) } else { Err(BadOps::TooLittle { bytes, literals }) }
    }

    fn carry_out(&mut self, op: Op, ops: &mut &[u8]) -> Result<(), BadOps> {
        match op {
            Op::Bytes(count) => {
                let count = self.room_for(count, 1)?;
                let bytes = self.literally(count)?;
                self.out.extend(bytes);
            }
            Op::Seek(pages) => self.cursor = self.cursor.wrapping_add_signed(pages),
            Op::ZeroRecords(count) => {
                for _ in 0..self.room_for(count, ZERO_RECORD)? {
                    self.head(ZERO);
                    self.out.push(0);
                }
            }
            Op::Pages { headed, count } => {
                for _ in 0..self.room_for(count, PAGE)? {
                    let page = self.literally(PAGE)?;
                    self.page(headed, page)?;
                    self.show(page)?;
                }
            }
            Op::Blank { headed, count } => {
                for _ in 0..self.room_for(count, PAGE)? {
                    self.page(headed, &[0; PAGE])?;
                }
            }
            Op::Keep { headed, slot } => {
                let page = self.literally(PAGE)?;
                self.page(headed, page)?;
                self.show(page)?;
                let page: &Page = page.try_into().map_err(|_| BadOps::NoLiterals)?;
                self.held.slots.put(slot, page).map_err(BadOps::Stale)?;
            }
            Op::Reference { headed, base } => {
                let page = *self.held.slots.get(base).map_err(BadOps::Stale)?;
                self.page(headed, &page)?;
            }
            Op::Delta { headed, base, edits } => {
                let edits = taken(ops, edits)?;
                let held = self.held.slots.edit(base).map_err(BadOps::Stale)?;
                apply(held, edits).map_err(BadOps::Edits)?;
                let page = *held;
                self.page(headed, &page)?;
                self.show(&page)?;
            }
            Op::Held { headed, first, count } => {
                let count = self.room_for(count, PAGE)? as u64;
                for number in u64::from(first)..u64::from(first) + count {
                    let page = self.offered(number).map_err(BadOps::NotHeld)?;
                    self.page(headed, &page)?;
                }
            }
        }
        Ok(())
    }

    fn offered(&mut self, number: u64) -> Result<Page, NotHeld> {
        let none = NotHeld::NeverOffered { number, offered: 0 };
        let library = self.held.library.as_mut().ok_or(none)?;
        let mut page = [0; PAGE];
        library.page(u32::try_from(number).map_err(|_| none)?, &mut page)?;
        Ok(page)
    }

    fn show(&mut self, page: &[u8]) -> Result<(), BadOps> {
        if let Some(observer) = &mut self.held.observer {
            observer.page(None, page.try_into().map_err(|_| BadOps::NoLiterals)?);
        }
        Ok(())
    }

    fn page(&mut self, headed: bool, content: &[u8]) -> Result<(), BadOps> {
        if headed {
            self.room_for(1, crate::parse::HEAD + PAGE)?;
            self.head(PAGE_FLAG);
        }
        self.room_for(1, PAGE)?;
        self.out.extend(content);
        Ok(())
    }

    /// The header of a RAM record at the cursor, which it moves on.
    fn head(&mut self, flag: u64) {
        let head = (self.cursor << PAGE_BITS) | flag | CONTINUE;
        self.out.extend(head.to_be_bytes());
        self.cursor = self.cursor.wrapping_add(1);
    }

    /// Refuses what would not fit the announced length.
    fn room_for(&self, count: u64, each: usize) -> Result<usize, BadOps> {
        let too_much = BadOps::TooMuch { announced: self.announced };
        let count = usize::try_from(count).map_err(|_| too_much)?;
        let needed = count.checked_mul(each).ok_or(too_much)?;
        if needed <= self.end - self.out.len() { Ok(count) } else { Err(too_much) }
    }

    fn literally(&mut self, count: usize) -> Result<&'a [u8], BadOps> {
        let (bytes, rest) = self.literals.split_at_checked(count).ok_or(BadOps::NoLiterals)?;
        self.literals = rest;
        Ok(bytes)
    }
}

/// The edits behind a delta's operation.
fn taken<'a>(ops: &mut &'a [u8], count: u64) -> Result<&'a [u8], BadOps> {
    let count = usize::try_from(count).ok().filter(|count| *count <= ops.len());
    let (edits, rest) = ops.split_at(count.ok_or(BadOps::Edits(BadEdits))?);
    *ops = rest;
    Ok(edits)
}
