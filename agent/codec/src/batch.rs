//! Collects what one frame will carry: the original bytes, the operations that rebuild them, and which of the bytes the
//! operations take literally.

use std::ops::Range;

use crate::PAGE;
use crate::wire::op::Op;

/// zstd needs this much at once to be worth its time. With the page that comes last it is no more than 256 KiB: up to there its
/// level 1 looks for shorter matches, and leaves a fiftieth less of ELF files.
const BLOB_TARGET: usize = (256 << 10) - PAGE - 64;
/// A batch is closed when it rebuilds this much, however little it takes.
const PLAIN_TARGET: usize = 896 << 10;
/// What one piece may add: below the distance from both targets to the limits of a frame.
pub const PIECE_MAX: usize = 64 << 10;

/// What operations and literals may take together: the last piece, and its operation, came when they were below the target.
pub const BLOB_MAX: usize = BLOB_TARGET + PIECE_MAX + PAGE;
/// The same of QEMU's bytes.
const BATCH_MAX: usize = PLAIN_TARGET + PIECE_MAX;

/// A batch that is being filled.
pub struct Batch {
    plain: Vec<u8>,
    ops: Vec<u8>,
    literals: Vec<Range<usize>>,
    literal_bytes: usize,
    /// An operation that the next one may still lengthen.
    run: Option<Op>,
    cursor: u64,
}

impl Default for Batch {
    /// Empty, with all the room that it can need: what grows as it is filled is twice as large in the end.
    fn default() -> Self {
        Self {
            plain: Vec::with_capacity(BATCH_MAX),
            ops: Vec::new(),
            literals: Vec::new(),
            literal_bytes: 0,
            run: None,
            cursor: 0,
        }
    }
}

impl Batch {
    /// The bytes that it rebuilds.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// Whether it should be sent.
    pub fn is_full(&self) -> bool {
        self.ops.len() + self.literal_bytes >= BLOB_TARGET || self.plain.len() >= PLAIN_TARGET
    }

    /// Bytes that are no page, at most [`PIECE_MAX`].
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.literal(bytes);
        self.append(Op::Bytes(bytes.len() as u64));
    }

    /// A zero page's record.
    pub fn zero_record(&mut self, page: u64, record: &[u8]) {
        self.seek(page);
        self.plain.extend(record);
        self.cursor = page + 1;
        self.append(Op::ZeroRecords(1));
    }

    /// A page, with the header of its record if that names `page`. `op` says how it is sent, and whether literally.
    pub fn page(&mut self, page: Option<u64>, record: &[u8], op: Op, edits: &[u8]) {
        if let Some(page) = page {
            self.seek(page);
            self.cursor = page + 1;
        }
        let (head, content) = record.split_at(record.len() - PAGE);
        self.plain.extend(head);
        match op {
            Op::Pages { .. } | Op::Keep { .. } => self.literal(content),
            _ => self.plain.extend(content),
        }
        self.append(op);
        self.ops.extend(edits);
    }

    fn seek(&mut self, page: u64) {
        if page != self.cursor {
            self.append(Op::Seek(page.wrapping_sub(self.cursor).cast_signed()));
        }
    }

    fn literal(&mut self, bytes: &[u8]) {
        let start = self.plain.len();
        self.plain.extend(bytes);
        self.literal_bytes += bytes.len();
        match self.literals.last_mut() {
            Some(last) if last.end == start => last.end += bytes.len(),
            _ => self.literals.push(start..start + bytes.len()),
        }
    }

    /// Appends an operation, or lengthens the one before. One that has edits behind it is written at once.
    fn append(&mut self, op: Op) {
        if let Some(longer) = self.run.and_then(|run| joined(run, op)) {
            self.run = Some(longer);
            return;
        }
        self.settle();
        match op {
            Op::Delta { .. } => op.put(&mut self.ops),
            _ => self.run = Some(op),
        }
    }

    fn settle(&mut self) {
        if let Some(run) = self.run.take() {
            run.put(&mut self.ops);
        }
    }

    /// The batch, if it is nothing but bytes as they are.
    pub fn is_bare(&self) -> bool {
        self.ops.is_empty() && matches!(self.run, Some(Op::Bytes(_)))
    }

    /// Appends operations and literals to `blob`, and says how long the operations are.
    pub fn blob(&mut self, blob: &mut Vec<u8>) -> usize {
        self.settle();
        blob.extend(&self.ops);
        self.literals.iter().for_each(|range| blob.extend(&self.plain[range.clone()]));
        self.ops.len()
    }

    /// Makes it an empty one.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.ops.clear();
        self.literals.clear();
        (self.literal_bytes, self.run, self.cursor) = (0, None, 0);
    }
}

/// Two operations as one, if they are the same but for their counts.
fn joined(first: Op, second: Op) -> Option<Op> {
    match (first, second) {
        (Op::Bytes(a), Op::Bytes(b)) => Some(Op::Bytes(a + b)),
        (Op::ZeroRecords(a), Op::ZeroRecords(b)) => Some(Op::ZeroRecords(a + b)),
        (Op::Pages { headed, count: a }, Op::Pages { headed: other, count: b }) if headed == other => {
            Some(Op::Pages { headed, count: a + b })
        }
        (Op::Blank { headed, count: a }, Op::Blank { headed: other, count: b }) if headed == other => {
            Some(Op::Blank { headed, count: a + b })
        }
        (Op::Held { headed, first, count }, Op::Held { headed: other, first: next, count: more })
            if headed == other && u64::from(first) + count == u64::from(next) =>
        {
            Some(Op::Held { headed, first, count: count + more })
        }
        _ => None,
    }
}
