//! Captured output, bounded whatever the command prints.

use novacron_common::record::Output;
use std::collections::VecDeque;

/// Keeps the first and the last part of what it is given, and counts the rest.
#[derive(Debug, Default)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    /// The first part is over, full or not.
    has_gap: bool,
}

impl Capture {
    /// Takes more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let room = if self.has_gap { 0 } else { Output::PART_MAX - self.head.len() };
        let (head, rest) = bytes.split_at(bytes.len().min(room));
        self.head.extend_from_slice(head);
        let kept = &rest[rest.len().saturating_sub(Output::PART_MAX)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(Output::PART_MAX);
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }

    /// Counts bytes that were printed and never seen. What came before them cannot be part of the end.
    pub fn leave_out(&mut self, bytes: u64) {
        self.total = self.total.saturating_add(bytes);
        self.has_gap = true;
        self.tail.clear();
    }

    /// What was kept.
    pub fn finish(self) -> Output {
        Output { head: self.head, tail: self.tail.into(), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], chunk: usize) -> Output {
        let mut capture = Capture::default();
        bytes.chunks(chunk).for_each(|part| capture.push(part));
        capture.finish()
    }

    #[test]
    fn head_and_tail_do_not_depend_on_how_the_bytes_arrive() {
        let bytes: Vec<u8> = (0..100_003u32).map(|n| (n % 251) as u8).collect();
        for chunk in [1, 7, 16 * 1024, 65_536, 100_003] {
            let output = captured(&bytes, chunk);
            assert_eq!(output.total, bytes.len() as u64);
            assert_eq!(output.head, bytes[..Output::PART_MAX], "chunk {chunk}");
            assert_eq!(output.tail, bytes[bytes.len() - Output::PART_MAX..], "chunk {chunk}");
        }
    }

    #[test]
    fn what_nobody_saw_is_counted_and_parts_are_never_joined_across_it() {
        let mut capture = Capture::default();
        capture.push(b"first");
        capture.leave_out(1000);
        capture.push(b"middle");
        capture.leave_out(500);
        capture.push(b"last");
        let output = capture.finish();
        assert_eq!((output.head.as_slice(), output.tail.as_slice()), (&b"first"[..], &b"last"[..]));
        assert_eq!(output.to_text(), "first\n[… 1506 bytes left out …]\nlast");
    }

    #[test]
    fn short_output_is_whole() {
        let bytes = vec![7u8; Output::PART_MAX + 5];
        let output = captured(&bytes, 100);
        assert_eq!((output.head.len(), output.tail.len()), (Output::PART_MAX, 5));
        assert_eq!(captured(b"", 1), Output::default());
    }
}
