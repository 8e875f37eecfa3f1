//! A disk in memory, for simulations: writes are seen at once, are durable only once synced, and a crash loses a
//! tail of what was not, as a database that is one log on a real disk does. It passes the suite that the real one
//! passes (`tests/sim/tests/store_contract.rs`).

use crate::{Row, StoreError};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Trees = BTreeMap<String, Rows>;
pub(crate) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The disk of one simulated machine. Clones are the same disk; it outlives the stores on it.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What readers see.
    visible: Trees,
    /// What a crash leaves for sure.
    durable: Trees,
    /// What was written since, oldest first.
    pending: VecDeque<Write>,
    /// How many writes are in `durable`.
    settled: u64,
    /// Up to which write a sync was asked for.
    asked: u64,
    /// Whether a sync takes time: it is then done when [`Disk::settle`] says so.
    deferred: bool,
    syncs: u64,
    life: u64,
    open: Weak<()>,
}

#[derive(Debug, Clone)]
enum Write {
    Rows(String, Writes),
    Drop(String),
}

/// A store's hold on its disk; worth nothing after a crash.
#[derive(Debug, Clone)]
pub(crate) struct Hold {
    disk: Disk,
    life: u64,
    _open: Arc<()>,
}

impl Disk {
    /// Takes the disk, as a process does that opens its store.
    pub(crate) fn hold(&self) -> Result<Hold, StoreError> {
        let mut platter = self.lock();
        if platter.open.strong_count() > 0 {
            return Err(failed("open the store", "another process has it open"));
        }
        let open = Arc::new(());
        platter.open = Arc::downgrade(&open);
        Ok(Hold { disk: self.clone(), life: platter.life, _open: open })
    }

    /// From now on what is synced is durable only once [`Disk::settle`] says so.
    pub fn defer_syncs(&self) {
        self.lock().deferred = true;
    }

    /// How often [`crate::Store::sync`] was called.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Up to which write a sync was asked for; for [`Disk::settle`].
    pub fn asked(&self) -> u64 {
        self.lock().asked
    }

    /// The syncs of all writes up to `asked` are done.
    pub fn settle(&self, asked: u64) {
        self.lock().settle(asked);
    }

    /// The machine loses its power. Of the writes that no finished sync covers, the oldest `survivors(how many)`
    /// stay; the last may be torn, and then it is gone as a whole. Stores that are open fail from now on.
    pub fn crash(&self, survivors: impl FnOnce(usize) -> usize) {
        let mut platter = self.lock();
        let lucky = survivors(platter.pending.len()).min(platter.pending.len());
        let upto = platter.settled + lucky as u64;
        platter.settle(upto);
        platter.pending.clear();
        platter.visible = platter.durable.clone();
        platter.asked = platter.settled;
        platter.life += 1;
        platter.open = Weak::new();
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    fn settle(&mut self, upto: u64) {
        while self.settled < upto {
            let Some(write) = self.pending.pop_front() else { return };
            apply(&mut self.durable, &write);
            self.settled += 1;
        }
    }

    fn write(&mut self, write: Write) {
        apply(&mut self.visible, &write);
        self.pending.push_back(write);
    }
}

fn apply(trees: &mut Trees, write: &Write) {
    match write {
        Write::Drop(tree) => drop(trees.remove(tree)),
        Write::Rows(tree, writes) => {
            let rows = trees.entry(tree.clone()).or_default();
            for (key, value) in writes {
                match value {
                    Some(value) => drop(rows.insert(key.clone(), value.clone())),
                    None => drop(rows.remove(key)),
                }
            }
        }
    }
}

impl Hold {
    fn with<R>(&self, doing: &str, act: impl FnOnce(&mut Platter) -> R) -> Result<R, StoreError> {
        let mut platter = self.disk.lock();
        if platter.life != self.life {
            return Err(failed(doing, "the machine has crashed since"));
        }
        Ok(act(&mut platter))
    }

    pub fn write(&self, tree: &str, writes: Writes) -> Result<(), StoreError> {
        self.with("write", |platter| platter.write(Write::Rows(tree.to_owned(), writes)))
    }

    pub fn drop_tree(&self, tree: &str) -> Result<(), StoreError> {
        self.with("drop a tree", |platter| platter.write(Write::Drop(tree.to_owned())))
    }

    pub fn clear(&self, tree: &str) -> Result<(), StoreError> {
        self.drop_tree(tree)
    }

    pub fn get(&self, tree: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with("read", |platter| platter.visible.get(tree).and_then(|rows| rows.get(key)).cloned())
    }

    pub fn range(&self, tree: &str, bounds: Bounds) -> Vec<Result<Row, StoreError>> {
        let found = self.with("read", |platter| {
            let rows = platter.visible.get(tree).into_iter().flat_map(|rows| rows.range(bounds.clone()));
            rows.map(|(key, value)| Ok((key.clone(), value.clone()))).collect()
        });
        found.unwrap_or_else(|error| vec![Err(error)])
    }

    pub fn sync(&self) -> Result<(), StoreError> {
        self.with("sync the store", |platter| {
            platter.syncs += 1;
            platter.asked = platter.settled + platter.pending.len() as u64;
            if !platter.deferred {
                platter.settle(platter.asked);
            }
        })
    }

    pub fn bytes(&self) -> Result<u64, StoreError> {
        self.with("measure the store", |platter| {
            let rows = platter.visible.values().flatten();
            rows.map(|(key, value)| (key.len() + value.len()) as u64).sum()
        })
    }
}

fn failed(doing: &str, why: &str) -> StoreError {
    StoreError::File { doing: doing.to_owned(), cause: io::Error::other(why.to_owned()) }
}
