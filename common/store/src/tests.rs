//! What callers rely on.

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("s")).unwrap();
    (folder, store)
}

#[test]
fn what_was_synced_is_there_after_reopening() {
    let (folder, store) = store();
    let tree = store.tree("t").unwrap();
    let mut batch = Batch::default();
    batch.put(b"a".to_vec(), b"1".to_vec());
    batch.put(b"b".to_vec(), vec![7; VALUE_MAX]);
    tree.apply(&batch).unwrap();
    store.sync().unwrap();
    drop((tree, store));

    let store = Store::open(&folder.path().join("s")).unwrap();
    let tree = store.tree("t").unwrap();
    assert_eq!(tree.get(b"a").unwrap().unwrap(), b"1");
    assert_eq!(tree.last().unwrap().unwrap(), (b"b".to_vec(), vec![7; VALUE_MAX]));
    assert_eq!(
        std::fs::read_dir(folder.path().join("s/blobs")).unwrap().count(),
        0,
        "a value went to a blob file"
    );
}

#[test]
fn too_long_a_value_is_refused_and_its_batch_changes_nothing() {
    let (_folder, store) = store();
    let tree = store.tree("t").unwrap();
    let mut batch = Batch::default();
    batch.put(b"a".to_vec(), b"1".to_vec());
    batch.put(b"b".to_vec(), vec![0; VALUE_MAX + 1]);
    assert!(matches!(tree.apply(&batch), Err(StoreError::TooLong { .. })));
    assert_eq!(tree.get(b"a").unwrap(), None);
}

#[test]
fn a_damaged_value_is_noticed() {
    let (_folder, store) = store();
    let tree = store.tree("t").unwrap();
    tree.put(b"a", b"value").unwrap();
    let Backend::Sled { db, .. } = &store.0 else { unreachable!("opened on a folder") };
    let raw = db.open_tree("t").unwrap();
    let mut stored = raw.get(b"a").unwrap().unwrap().to_vec();
    *stored.last_mut().unwrap() ^= 1;
    raw.insert(b"a", stored).unwrap();
    assert!(matches!(tree.get(b"a"), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_second_process_is_kept_out() {
    let (folder, _store) = store();
    assert!(Store::open(&folder.path().join("s")).is_err());
}

#[test]
fn a_leaf_full_of_the_longest_values_goes_to_no_file_of_its_own() {
    let (folder, store) = store();
    let tree = store.tree("t").unwrap();
    for round in 0..3u8 {
        for key in 0..100u32 {
            tree.put(&key.to_be_bytes(), &vec![round; VALUE_MAX]).unwrap();
        }
        store.sync().unwrap();
        (0..100u32).filter(|key| key % 7 != 0).for_each(|key| tree.remove(&key.to_be_bytes()).unwrap());
        store.sync().unwrap();
    }
    let blobs = std::fs::read_dir(folder.path().join("s/blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "a value went to a blob file");
}
