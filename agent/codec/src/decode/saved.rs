//! A decoder's state as bytes, for a successor in another process: where it stands in the stream and what it holds.
//!
//! What it holds goes along. A new generation with empty slots would do without, but for that the source had to be asked and
//! heard, and a target is replaced whenever it must be: with its link cut, or with QEMU paused behind a full window.

use std::io::{self, Write};

use super::{DecodeError, Decoder, Generation, Life};
use crate::PAGE;
use crate::cache::Slots;
use crate::proof::{Prover, Secret};
use crate::stock::Library;
use crate::wire::frame::{BODY_MAX, HEAD};
use crate::wire::varint;

/// Begins what [`Decoder::suspend`] leaves, and tells its version.
const SAVED: &[u8] = b"NVD1";

impl Decoder {
    /// Ends this decoder's part, and writes what [`Decoder::resume`] needs to go on.
    ///
    /// # Errors
    /// The writer's; [`io::ErrorKind::InvalidData`] if decoding had failed: nobody goes on then.
    pub fn suspend(self, out: &mut impl Write) -> io::Result<()> {
        let mut head = SAVED.to_vec();
        match self.life {
            Life::Running => head.push(0),
            Life::Ended => head.push(1),
            Life::Failed => return Err(io::Error::new(io::ErrorKind::InvalidData, DecodeError::Failed)),
        }
        varint::put(&mut head, self.rebuilt);
        varint::put_bytes(&mut head, &self.arrived);
        varint::put(&mut head, self.library.is_some().into());
        varint::put_option(&mut head, self.generation.as_ref().map(|generation| generation.number.into()));
        let Some(generation) = &self.generation else { return out.write_all(&head) };
        let (versions, pages) = generation.slots.held();
        varint::put(&mut head, generation.prover.passed());
        varint::put(&mut head, generation.slots.count().into());
        varint::put(&mut head, versions.len() as u64);
        versions.iter().for_each(|version| varint::put(&mut head, (*version).into()));
        out.write_all(&head)?;
        out.write_all(pages)
    }

    /// Goes on where a predecessor suspended it; `cache` as for [`Decoder::new`]. `library` is asked for the pages that were
    /// offered, if they are still of use.
    ///
    /// # Errors
    /// [`DecodeError::Saved`] for anything that no predecessor left; when it kept more pages than there is room or memory
    /// for here.
    pub fn resume(
        (secret, lane): (Secret, u32),
        cache: usize,
        saved: &[u8],
        library: impl FnOnce() -> Option<Box<dyn Library>>,
    ) -> Result<Self, DecodeError> {
        let mut decoder = Self::new(secret, lane, cache);
        let wants_library = decoder.take_over(saved)?;
        decoder.library = wants_library.then(library).flatten();
        Ok(decoder)
    }

    fn take_over(&mut self, saved: &[u8]) -> Result<bool, DecodeError> {
        let read = |value: Option<u64>| value.ok_or(DecodeError::Saved);
        let mut rest = saved.strip_prefix(SAVED).ok_or(DecodeError::Saved)?;
        let rest = &mut rest;
        self.life = match read(varint::take(rest))? {
            0 => Life::Running,
            1 => Life::Ended,
            _ => return Err(DecodeError::Saved),
        };
        self.rebuilt = read(varint::take(rest))?;
        let arrived = varint::take_bytes(rest).filter(|arrived| arrived.len() < HEAD + BODY_MAX);
        self.arrived = arrived.ok_or(DecodeError::Saved)?.to_vec();
        let wants_library = read(varint::take(rest))? == 1;
        if let Some(number) = varint::take_option(rest).ok_or(DecodeError::Saved)? {
            let number = u32::try_from(number).map_err(|_| DecodeError::Saved)?;
            self.generation = Some(self.generation_of(number, rest)?);
        }
        if rest.is_empty() { Ok(wants_library) } else { Err(DecodeError::Saved) }
    }

    fn generation_of(&self, number: u32, rest: &mut &[u8]) -> Result<Generation, DecodeError> {
        let mut figure = || varint::take(rest).ok_or(DecodeError::Saved);
        let passed = figure()?;
        let asked = u32::try_from(figure()?).map_err(|_| DecodeError::Saved)?;
        if asked > self.room {
            return Err(DecodeError::Cache { asked, room: self.room });
        }
        let filled = figure()?;
        if filled > asked.into() {
            return Err(DecodeError::Saved);
        }
        let versions = (0..filled).map(|_| u32::try_from(figure()?).map_err(|_| DecodeError::Saved));
        let versions: Vec<u32> = versions.collect::<Result<_, _>>()?;
        let (pages, left) = rest.split_at_checked(versions.len() * PAGE).ok_or(DecodeError::Saved)?;
        *rest = left;
        let slots = Slots::holding(asked, versions, pages)
            .map_err(|cause| DecodeError::NoMemory { slots: asked, cause })?
            .ok_or(DecodeError::Saved)?;
        Ok(Generation { number, slots, prover: Prover::behind(&self.secret, self.lane, number, passed) })
    }
}
