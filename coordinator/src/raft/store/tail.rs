//! The youngest entries of the log in memory: what is on its way to the disk, and what was written last, which is what
//! replication and the state machine ask for. Pure; [`super::journal`] does the waiting and the writing.

use super::log_disk::Span;
use crate::raft::types::{Entry, LogId};
use std::collections::VecDeque;

/// Bytes of entries that are kept although they are on disk: a few replication requests.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// An entry, and its record until that is handed to the disk.
struct Kept {
    entry: Entry,
    record: Vec<u8>,
    length: usize,
}

/// The end of the log, by index: nothing younger than its first is anywhere else. The last `unsynced` of the entries are not on stable storage.
#[derive(Default)]
pub(super) struct Tail {
    kept: VecDeque<Kept>,
    bytes: usize,
    unsynced: usize,
    /// Entries at the end that nobody has begun to write.
    unwritten: usize,
}

/// What is to be written, in one batch.
pub(super) struct Unwritten {
    /// Index and record of each entry.
    pub records: Vec<(u64, Vec<u8>)>,
    /// The last of them.
    pub last: LogId,
}

impl Tail {
    /// Index of the first entry here; `None` if there is none.
    pub fn first(&self) -> Option<u64> {
        self.kept.front().map(|kept| kept.entry.log_id.index)
    }

    /// The last entry's id.
    pub fn last(&self) -> Option<LogId> {
        self.kept.back().map(|kept| kept.entry.log_id)
    }

    /// Index of the first entry that is not on stable storage; `u64::MAX` if all are.
    pub fn first_unsynced(&self) -> u64 {
        let at = self.kept.len() - self.unsynced;
        self.kept.get(at).map_or(u64::MAX, |kept| kept.entry.log_id.index)
    }

    /// Takes the next entry of the log.
    pub fn push(&mut self, entry: Entry, record: Vec<u8>) {
        let length = record.len();
        self.bytes += length;
        self.kept.push_back(Kept { entry, record, length });
        self.unsynced += 1;
        self.unwritten += 1;
    }

    /// What nobody has begun to write; `None` if there is nothing.
    pub fn take_unwritten(&mut self) -> Option<Unwritten> {
        let from = self.kept.len() - std::mem::take(&mut self.unwritten);
        let last = self.last()?;
        let take = |kept: &mut Kept| (kept.entry.log_id.index, std::mem::take(&mut kept.record));
        let records: Vec<_> = self.kept.range_mut(from..).map(take).collect();
        (!records.is_empty()).then_some(Unwritten { records, last })
    }

    /// Everything up to `index` is on stable storage.
    pub fn synced(&mut self, index: u64) {
        self.unsynced = self.unsynced.min(self.kept.len() - self.at(index + 1));
        while self.bytes > KEPT_BYTES_MAX && self.kept.len() > self.unsynced {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.length;
        }
    }

    /// Cuts off the entries from `index` on. Nothing may be on its way to the disk.
    pub fn cut(&mut self, index: u64) {
        while self.last().is_some_and(|last| last.index >= index) {
            let Some(youngest) = self.kept.pop_back() else { return };
            self.bytes -= youngest.length;
        }
    }

    /// Forgets the entries up to `index`. Nothing may be on its way to the disk.
    pub fn purge(&mut self, index: u64) {
        while self.first().is_some_and(|first| first <= index) {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.length;
        }
    }

    /// Where the first entry from `index` on is.
    fn at(&self, index: u64) -> usize {
        self.kept.partition_point(|kept| kept.entry.log_id.index < index)
    }

    /// The entries in `span` that are here, of which as many as fit into its bytes, but at least one.
    pub fn read(&self, span: Span) -> Vec<Entry> {
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        for kept in self.kept.iter().skip(self.at(span.start)) {
            bytes = bytes.saturating_add(kept.length);
            let full = bytes > span.bytes_max && !entries.is_empty();
            if full || kept.entry.log_id.index >= span.end {
                break;
            }
            entries.push(kept.entry.clone());
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::{CommittedLeaderId, EntryPayload};

    fn id(term: u64, index: u64) -> LogId {
        LogId { leader_id: CommittedLeaderId::new(term, 1), index }
    }

    fn tail(indexes: std::ops::Range<u64>, length: usize) -> Tail {
        let mut tail = Tail::default();
        for index in indexes {
            tail.push(Entry { log_id: id(1, index), payload: EntryPayload::Blank }, vec![7; length]);
        }
        tail
    }

    fn indexes(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn what_is_written_is_not_yet_synced() {
        let mut tail = tail(5..8, 10);
        assert_eq!(tail.first_unsynced(), 5);
        let batch = tail.take_unwritten().unwrap();
        assert_eq!((batch.records.len(), batch.last, batch.records[0].1.len()), (3, id(1, 7), 10));
        tail.push(Entry { log_id: id(1, 8), payload: EntryPayload::Blank }, vec![7; 10]);
        assert_eq!(tail.first_unsynced(), 5);
        tail.synced(7);
        assert_eq!(tail.first_unsynced(), 8);
        let batch = tail.take_unwritten().unwrap();
        assert_eq!((batch.records.len(), batch.last), (1, id(1, 8)));
        assert!(tail.take_unwritten().is_none());
        tail.synced(8);
        assert_eq!(tail.first_unsynced(), u64::MAX);
    }

    #[test]
    fn old_entries_go_when_there_are_too_many_but_never_unsynced_ones() {
        let mut tail = tail(1..11, KEPT_BYTES_MAX / 5);
        tail.take_unwritten();
        tail.synced(2);
        assert_eq!(tail.first(), Some(3));
        tail.synced(10);
        assert_eq!(tail.first(), Some(6));
        assert_eq!(tail.bytes, 5 * (KEPT_BYTES_MAX / 5));
    }

    #[test]
    fn a_cut_takes_the_end_and_a_purge_the_beginning() {
        let mut tail = tail(1..11, 10);
        tail.take_unwritten();
        tail.synced(10);
        tail.cut(8);
        tail.purge(3);
        assert_eq!((tail.first(), tail.last(), tail.bytes), (Some(4), Some(id(1, 7)), 40));
        // Behind a snapshot the log goes on elsewhere.
        tail.push(Entry { log_id: id(2, 20), payload: EntryPayload::Blank }, vec![7; 10]);
        assert_eq!((tail.first_unsynced(), tail.last(), tail.bytes), (20, Some(id(2, 20)), 50));
    }

    #[test]
    fn a_reader_gets_its_span_up_to_its_bytes() {
        let tail = tail(5..15, 10);
        let span = |start, end, bytes_max| Span { start, end, bytes_max };
        assert_eq!(indexes(&tail.read(span(0, 7, usize::MAX))), [5, 6]);
        assert_eq!(indexes(&tail.read(span(13, u64::MAX, usize::MAX))), [13, 14]);
        assert_eq!(indexes(&tail.read(span(6, 15, 25))), [6, 7]);
        assert_eq!(indexes(&tail.read(span(6, 15, 5))), [6], "one always fits");
        assert!(tail.read(span(15, 20, usize::MAX)).is_empty());
    }
}
