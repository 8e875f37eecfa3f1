//! What the ledgers rely on, asked of the real store and of the simulated one.

use novacron_store::{Batch, Disk, Store, StoreError, VALUE_MAX};
use std::path::PathBuf;

/// A place that a store is opened on, again and again.
enum Place {
    Folder { folder: PathBuf, _kept: tempfile::TempDir },
    Disk(Disk),
}

impl Place {
    fn both() -> [Self; 2] {
        let kept = tempfile::tempdir().unwrap();
        [Self::Folder { folder: kept.path().join("s"), _kept: kept }, Self::Disk(Disk::default())]
    }

    fn open(&self) -> Result<Store, StoreError> {
        match self {
            Self::Folder { folder, .. } => Store::open(folder),
            Self::Disk(disk) => Store::simulated(disk),
        }
    }
}

fn batch(rows: &[(&[u8], Option<&[u8]>)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in rows {
        match value {
            Some(value) => batch.put(*key, *value),
            None => batch.remove(*key),
        }
    }
    batch
}

#[test]
fn what_was_written_is_seen_at_once_in_order_and_from_both_ends() {
    for place in Place::both() {
        let store = place.open().unwrap();
        let tree = store.tree("t").unwrap();
        for key in [3u8, 1, 2] {
            tree.put(&[key], &[key * 10]).unwrap();
        }
        let rows: Vec<_> = tree.iter().map(Result::unwrap).collect();
        assert_eq!(rows, [(vec![1], vec![10]), (vec![2], vec![20]), (vec![3], vec![30])]);
        assert_eq!(tree.range(vec![2]..vec![3]).next_back().unwrap().unwrap().0, [2]);
        assert_eq!(tree.first().unwrap().unwrap().0, [1]);
        assert_eq!(tree.last().unwrap().unwrap().0, [3]);
        assert_eq!(tree.keys().map(Result::unwrap).collect::<Vec<_>>(), [[1], [2], [3]]);
        tree.remove(&[2]).unwrap();
        tree.remove(&[2]).unwrap();
        assert_eq!(tree.get(&[2]).unwrap(), None);
        tree.clear().unwrap();
        assert_eq!(tree.iter().count(), 0);
    }
}

#[test]
fn a_batch_is_done_whole_or_not_at_all() {
    for place in Place::both() {
        let store = place.open().unwrap();
        let tree = store.tree("t").unwrap();
        tree.apply(&batch(&[(b"a", Some(b"1")), (b"b", Some(b"2"))])).unwrap();
        tree.apply(&batch(&[(b"a", None), (b"c", Some(b"3"))])).unwrap();
        let keys: Vec<_> = tree.keys().map(Result::unwrap).collect();
        assert_eq!(keys, [b"b".to_vec(), b"c".to_vec()]);
        let long = vec![0; VALUE_MAX + 1];
        let refused = tree.apply(&batch(&[(b"d", Some(b"4")), (b"e", Some(&long))]));
        assert!(matches!(refused, Err(StoreError::TooLong { .. })));
        assert!(matches!(tree.put(b"e", &long), Err(StoreError::TooLong { .. })));
        assert_eq!(tree.get(b"d").unwrap(), None);
        tree.put(b"f", &long[..VALUE_MAX]).unwrap();
    }
}

#[test]
fn trees_are_apart_and_a_dropped_one_comes_back_empty() {
    for place in Place::both() {
        let store = place.open().unwrap();
        let (one, two) = (store.tree("one").unwrap(), store.tree("two").unwrap());
        one.put(b"k", b"1").unwrap();
        two.put(b"k", b"2").unwrap();
        drop(one);
        store.drop_tree("one").unwrap();
        store.drop_tree("never made").unwrap();
        assert_eq!(store.tree("one").unwrap().get(b"k").unwrap(), None);
        assert_eq!(two.get(b"k").unwrap().unwrap(), b"2");
    }
}

#[test]
fn what_was_synced_is_there_when_the_store_is_opened_again() {
    for place in Place::both() {
        {
            let store = place.open().unwrap();
            let tree = store.tree("t").unwrap();
            tree.put(b"a", b"1").unwrap();
            store.sync().unwrap();
            assert!(place.open().is_err(), "a second opener is kept out");
        }
        if let Place::Disk(disk) = &place {
            disk.crash(|_| 0);
        }
        let store = place.open().unwrap();
        assert_eq!(store.tree("t").unwrap().get(b"a").unwrap().unwrap(), b"1");
    }
}

/// The real store's half of this is `ledger::tests` (SIGKILL) and `raft::store::tests` (tail cut off).
#[test]
fn a_crash_takes_a_tail_of_what_was_not_synced_and_nothing_else() {
    for survivors in 0..=3 {
        let disk = Disk::default();
        disk.defer_syncs();
        let store = Store::simulated(&disk).unwrap();
        let tree = store.tree("t").unwrap();
        tree.put(b"synced", b"1").unwrap();
        store.sync().unwrap();
        disk.settle(disk.asked());
        for key in [b"a", b"b", b"c"] {
            tree.put(key, b"2").unwrap();
        }
        // Asked for, and not done when the power goes.
        store.sync().unwrap();
        disk.crash(|unsynced| {
            assert_eq!(unsynced, 3);
            survivors
        });
        assert!(tree.get(b"synced").is_err(), "a store from before the crash is dead");
        let keys: Vec<_> =
            Store::simulated(&disk).unwrap().tree("t").unwrap().keys().map(Result::unwrap).collect();
        let expected: Vec<Vec<u8>> = [b"a", b"b", b"c"]
            .iter()
            .take(survivors)
            .map(|key| key.to_vec())
            .chain([b"synced".to_vec()])
            .collect();
        assert_eq!(keys, expected);
    }
}
