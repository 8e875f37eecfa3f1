//! Frames in, QEMU's bytes out. Runs in a privileged process on what another host sends.
//!
//! Memory is bounded by what it is made with: the cache, and [`crate::DECODER_WORK`]; a call appends at most 1 MiB to
//! its output. Nothing is given out before its proof is checked.

mod saved;

use crate::cache::Slots;
use crate::pack::Unpacker;
use crate::proof::{Prover, Secret};
use crate::rebuild::{BadOps, Holdings, Rebuild};
use crate::slots_in;
use crate::stock::{Library, PageObserver};
use crate::wire::frame::{BadHead, BatchHead, HEAD, Head, Kind, Open, PLAIN_MAX, take};

/// Why a stream cannot be rebuilt. Each ends this lane, before a wrong byte is given out.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No frame begins like that.
    #[error("not a frame: {0:?}")]
    Head(BadHead),
    /// A frame's body is not what its kind asks for.
    #[error("the body of a frame ({0:?}) is damaged")]
    Body(Kind),
    /// The first frame, or one behind a restart, must open a generation.
    #[error("a frame ({0:?}) outside of a generation")]
    NotOpen(Kind),
    /// Generations only count up.
    #[error("generation {opened} is opened behind generation {current}")]
    Generation {
        /// In the frame.
        opened: u32,
        /// Before it.
        current: u32,
    },
    /// The peer would keep more than this side has room for.
    #[error(
        "the peer wants {asked} pages kept; there is room for {room}: give both sides the same cache size"
    )]
    Cache {
        /// Pages that the frame names.
        asked: u32,
        /// Pages that fit.
        room: u32,
    },
    /// There is no memory for the pages that are to be kept.
    #[error("there is no memory for {slots} pages to be kept")]
    NoMemory {
        /// Agreed on.
        slots: u32,
        /// The kernel's reason.
        #[source]
        cause: std::io::Error,
    },
    /// A batch does not unpack.
    #[error("a compressed batch is damaged")]
    Unpack(#[source] std::io::Error),
    /// A batch's operations cannot be carried out.
    #[error("a batch cannot be rebuilt")]
    Rebuild(#[source] BadOps),
    /// What was rebuilt is not what was sent.
    #[error("bytes {from} to {to} are not those that the source read")]
    Proof {
        /// Offset in QEMU's stream.
        from: u64,
        /// Offset in QEMU's stream.
        to: u64,
    },
    /// The end names another length than what arrived.
    #[error("the stream ends after {sent} bytes, {rebuilt} were rebuilt")]
    Length {
        /// By the frame.
        sent: u64,
        /// By this side.
        rebuilt: u64,
    },
    /// Bytes follow the end.
    #[error("bytes follow the stream's end")]
    BehindEnd,
    /// The lane closed before the end.
    #[error("the stream was cut after {rebuilt} bytes")]
    Cut {
        /// What had been rebuilt.
        rebuilt: u64,
    },
    /// An earlier call failed.
    #[error("decoding had failed before")]
    Failed,
    /// A predecessor left something else, or in another version.
    #[error("what the predecessor left cannot be read")]
    Saved,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    Ended,
    Failed,
}

/// What was opened last.
struct Generation {
    number: u32,
    slots: Slots,
    prover: Prover,
}

/// The decoder of one lane.
pub struct Decoder {
    secret: Secret,
    lane: u32,
    room: u32,
    generation: Option<Generation>,
    library: Option<Box<dyn Library>>,
    observer: Option<Box<dyn PageObserver>>,
    /// The beginning of a frame.
    arrived: Vec<u8>,
    unpacker: Unpacker,
    rebuilt: u64,
    life: Life,
}

impl Decoder {
    /// For a lane from its first byte; `cache` as the encoder's, in bytes.
    #[must_use]
    pub fn new(secret: Secret, lane: u32, cache: usize) -> Self {
        Self {
            secret,
            lane,
            room: slots_in(cache),
            generation: None,
            library: None,
            observer: None,
            arrived: Vec::new(),
            unpacker: Unpacker::new(),
            rebuilt: 0,
            life: Life::Running,
        }
    }

    /// As it is, with pages that were offered to the encoder. They are its first generation's: behind a restart nothing
    /// is held.
    #[must_use]
    pub fn with_library(self, library: Box<dyn Library>) -> Self {
        Self { library: Some(library), ..self }
    }

    /// As it is, and shows the pages that cross in full or as a change of one before; not those that were held. It shows
    /// them before their proof is checked: if that fails, so does the stream.
    #[must_use]
    pub fn with_observer(self, observer: Box<dyn PageObserver>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Whether decoding may read pages from somewhere.
    #[must_use]
    pub fn has_library(&self) -> bool {
        self.library.is_some()
    }

    /// Takes in `bytes` up to the end of one frame, and appends what that rebuilds to `out`. Returns how many bytes were
    /// taken; the caller comes again with the rest.
    ///
    /// # Errors
    /// At the first frame that no encoder of this lane wrote, or that is not rebuilt to what it was made from. Nothing
    /// of it is in `out`, and every later call fails.
    pub fn decode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        let before = out.len();
        let result = self.step(bytes, out);
        if result.is_err() {
            out.truncate(before);
            self.life = Life::Failed;
        }
        result
    }

    /// Checks that the stream is over: to be called when the lane is.
    ///
    /// # Errors
    /// When it was cut, or had failed.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.life {
            Life::Ended => Ok(()),
            Life::Running => Err(DecodeError::Cut { rebuilt: self.rebuilt }),
            Life::Failed => Err(DecodeError::Failed),
        }
    }

    /// How many bytes of QEMU's stream were rebuilt and proven.
    #[must_use]
    pub fn rebuilt(&self) -> u64 {
        self.rebuilt
    }

    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
        match self.life {
            Life::Running => {}
            Life::Ended if bytes.is_empty() => return Ok(0),
            Life::Ended => return Err(DecodeError::BehindEnd),
            Life::Failed => return Err(DecodeError::Failed),
        }
        let mut rest = bytes;
        self.collect(HEAD, &mut rest);
        if let Some(head) = self.arrived.first_chunk::<HEAD>() {
            let head = Head::read(*head).map_err(DecodeError::Head)?;
            self.arrived.reserve_exact(HEAD + head.length - self.arrived.len());
            if self.collect(HEAD + head.length, &mut rest) {
                let mut frame = std::mem::take(&mut self.arrived);
                self.frame(head.kind, &frame[HEAD..], out)?;
                frame.clear();
                self.arrived = frame;
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Moves bytes over until so many have arrived, and says whether they have.
    fn collect(&mut self, wanted: usize, rest: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.arrived.len());
        let (taken, left) = rest.split_at(missing.min(rest.len()));
        self.arrived.extend(taken);
        *rest = left;
        self.arrived.len() >= wanted
    }

    fn frame(&mut self, kind: Kind, body: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if kind == Kind::Open {
            return self.open(Open::read(body).ok_or(DecodeError::Body(kind))?);
        }
        let generation = self.generation.as_mut().ok_or(DecodeError::NotOpen(kind))?;
        let start = out.len();
        let mut body = body;
        let tag = match kind {
            Kind::Batch => {
                let head = BatchHead::take(&mut body).ok_or(DecodeError::Body(kind))?;
                let blob = self.unpacker.unpack(head.packing, body, head.blob);
                let (ops, literals) = blob.map_err(DecodeError::Unpack)?.split_at(head.ops);
                let library = self.library.as_deref_mut().map(|library| library as &mut dyn Library);
                let observer = self.observer.as_deref_mut().map(|observer| observer as &mut dyn PageObserver);
                let held = Holdings { slots: &mut generation.slots, library, observer };
                let rebuild = Rebuild::new(literals, head.plain, held, out);
                rebuild.run(ops).map_err(DecodeError::Rebuild)?;
                head.tag
            }
            _ => {
                let tag = take(&mut body).ok_or(DecodeError::Body(kind))?;
                out.extend(body);
                tag
            }
        };
        let plain = &out[start..];
        let (from, length) = (self.rebuilt, plain.len() as u64);
        if plain.len() > PLAIN_MAX || generation.prover.next(plain) != tag {
            return Err(DecodeError::Proof { from, to: from + length });
        }
        if kind == Kind::End {
            return self.end(out, start);
        }
        self.rebuilt += length;
        Ok(())
    }

    fn open(&mut self, open: Open) -> Result<(), DecodeError> {
        let Open { generation: number, slots } = open;
        if let Some(current) = self.generation.as_ref().map(|current| current.number)
            && number <= current
        {
            return Err(DecodeError::Generation { opened: number, current });
        }
        if slots > self.room {
            return Err(DecodeError::Cache { asked: slots, room: self.room });
        }
        // The old pages go before the new ones come: both together would exceed the bound.
        if self.generation.take().is_some() {
            self.library = None;
        }
        self.begin(number, slots)
    }

    fn begin(&mut self, number: u32, count: u32) -> Result<(), DecodeError> {
        let prover = Prover::new(&self.secret, self.lane, number);
        let slots = Slots::new(count).map_err(|cause| DecodeError::NoMemory { slots: count, cause })?;
        self.generation = Some(Generation { number, slots, prover });
        Ok(())
    }

    /// The body of the last frame is the stream's length, and none of its bytes.
    fn end(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), DecodeError> {
        let length = <[u8; 8]>::try_from(&out[start..]).map_err(|_| DecodeError::Body(Kind::End))?;
        out.truncate(start);
        let (sent, rebuilt) = (u64::from_le_bytes(length), self.rebuilt);
        if sent != rebuilt {
            return Err(DecodeError::Length { sent, rebuilt });
        }
        self.life = Life::Ended;
        Ok(())
    }
}
