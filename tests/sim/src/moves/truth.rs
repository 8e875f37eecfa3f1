//! What is true of every guest, whatever anybody believes: where it runs, which memory and which disk are its newest.
//! Whoever lets a guest run, stops it or throws its memory or disk away says so here, and here it is judged on the spot.

use novacron_common::{
    ids::{HostId, VmId},
    units::Epoch,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A guest's memory as it was when its processors last stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Which start of it.
    boot: u64,
    /// When they stood still, nanoseconds.
    at: u64,
}

/// A disk's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Blank disks differ, so that a guest on a new one is noticed.
    born: u64,
    /// When its guest last stopped writing, nanoseconds.
    written: u64,
}

/// The truth. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Truth(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    numbers: u64,
    guests: BTreeMap<VmId, Guest>,
    memories: BTreeMap<(HostId, VmId), Memory>,
    /// Those that came from another host, and have not run yet.
    untried: BTreeSet<(HostId, VmId)>,
    disks: BTreeMap<(HostId, VmId), Disk>,
    faults: Vec<String>,
}

/// What is known of one guest.
#[derive(Debug, Default)]
struct Guest {
    runs_on: BTreeSet<HostId>,
    newest: Option<Memory>,
    disk: Option<Disk>,
    /// To whom the ledger gives it.
    placed: Option<(Epoch, HostId)>,
    /// A copy away from this host may end by post-copy: the ledger may give it to the other beforehand.
    may_go_over_from: Option<HostId>,
    /// Its memory is on two hosts: the one that it left, and the one where it runs.
    halves: Option<[HostId; 2]>,
    /// Somebody wants it deleted.
    doomed: bool,
    /// Its process, its hypervisor or its host was killed since it was started: its memory may be lost.
    excused: bool,
    starts: u64,
}

impl Truth {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong.
    pub fn faults(&self) -> Vec<String> {
        self.known().faults.clone()
    }

    /// A guest is started from its disk.
    pub fn starts(&self, host: HostId, vm: VmId) {
        let mut known = self.known();
        known.numbers += 1;
        let fresh = Memory { boot: known.numbers, at: 0 };
        let disk = known.disks.get(&(host, vm)).copied();
        let guest = known.guests.entry(vm).or_default();
        let stale = guest.disk.is_some() && guest.disk != disk;
        guest.disk = guest.disk.or(disk);
        guest.newest = Some(fresh);
        (guest.excused, guest.starts) = (false, guest.starts + 1);
        (guest.may_go_over_from, guest.halves) = (None, None);
        if stale {
            known.fault(format!("an old disk: {vm} is started on {host} from a disk that is not its newest"));
        }
        known.memories.insert((host, vm), fresh);
        known.untried.remove(&(host, vm));
        known.runs(host, vm);
    }

    /// A held guest runs on.
    pub fn resumes(&self, host: HostId, vm: VmId) {
        let mut known = self.known();
        let memory = known.memories.get(&(host, vm)).copied();
        let newest = known.guests.entry(vm).or_default().newest;
        if memory != newest {
            known.fault(format!("forked: {vm} runs on on {host} from memory that is not its newest"));
        }
        known.untried.remove(&(host, vm));
        if let Some(other) = known.may_run_again(host, vm) {
            known.fault(format!(
                "two may run: {vm} runs on on {host} while {other}, where it ran, still holds it"
            ));
        }
        known.runs(host, vm);
    }

    /// A guest's processors stand still from `now` on; its memory stays.
    pub fn holds(&self, host: HostId, vm: VmId, now: u64) -> Option<(Memory, Option<Disk>)> {
        let mut known = self.known();
        if !known.guests.entry(vm).or_default().runs_on.remove(&host) {
            return Some((*known.memories.get(&(host, vm))?, known.disks.get(&(host, vm)).copied()));
        }
        let memory = Memory { at: now, ..*known.memories.get(&(host, vm))? };
        known.memories.insert((host, vm), memory);
        let disk = known.disks.get_mut(&(host, vm)).map(|disk| {
            disk.written = now;
            *disk
        });
        let guest = known.guests.entry(vm).or_default();
        (guest.newest, guest.disk) = (Some(memory), disk.or(guest.disk));
        Some((memory, disk))
    }

    /// A guest's process ends in good order or by a kill: its memory is gone, and that is nobody's fault.
    pub fn ends(&self, host: HostId, vm: VmId, now: u64) {
        let _ = self.holds(host, vm, now);
        let mut known = self.known();
        known.halves_end(host, vm);
        known.memories.remove(&(host, vm));
    }

    /// A copy of a guest's memory is thrown away. If it was the only one of its newest, a guest is lost.
    pub fn forgets(&self, host: HostId, vm: VmId, now: u64) {
        let _ = self.holds(host, vm, now);
        let mut known = self.known();
        known.halves_end(host, vm);
        let Some(memory) = known.memories.remove(&(host, vm)) else { return };
        let another = known.memories.iter().any(|((_, other), m)| *other == vm && *m == memory);
        let guest = known.guests.entry(vm).or_default();
        if guest.newest == Some(memory) && !another && !guest.doomed && !guest.excused {
            guest.newest = None;
            known.fault(format!("lost: the only copy of the memory of {vm} is thrown away on {host}"));
        }
    }

    /// A copy of a guest is complete on a host.
    pub fn arrives(&self, host: HostId, vm: VmId, memory: Memory, disk: Option<Disk>) {
        let mut known = self.known();
        tracing::info!(%host, %vm, ?memory, ?disk, "a copy is complete");
        known.memories.insert((host, vm), memory);
        known.untried.insert((host, vm));
        known.disks.extend(disk.map(|disk| ((host, vm), disk)));
    }

    /// A copy begins that may end by post-copy.
    pub fn may_go_over(&self, host: HostId, vm: VmId) {
        self.known().guests.entry(vm).or_default().may_go_over_from = Some(host);
    }

    /// A guest goes over from one host to another, and the rest of its memory is to follow.
    pub fn goes_over(&self, hosts: [HostId; 2], vm: VmId) {
        let [_, to] = hosts;
        let mut known = self.known();
        let guest = known.guests.entry(vm).or_default();
        (guest.may_go_over_from, guest.halves) = (None, Some(hosts));
        drop(known);
        self.resumes(to, vm);
    }

    /// The rest of its memory has followed it.
    pub fn is_whole(&self, vm: VmId) {
        self.known().guests.entry(vm).or_default().halves = None;
    }

    /// Somebody orders that what a host holds of a guest be ended. As long as both halves of it are there, neither may be.
    pub fn gives_up(&self, host: HostId, vm: VmId) {
        let mut known = self.known();
        if known.guests.get(&vm).is_some_and(|guest| guest.has_half_on(host)) {
            known.fault(format!("half a guest: {vm} is ended on {host} while its other half is kept"));
        }
    }

    /// Guests in two halves.
    pub fn in_halves(&self) -> Vec<VmId> {
        let known = self.known();
        known.guests.iter().filter(|(_, guest)| guest.halves.is_some()).map(|(vm, _)| *vm).collect()
    }

    /// A disk is there, blank if it was not.
    pub fn has_disk(&self, host: HostId, vm: VmId) {
        let mut known = self.known();
        known.numbers += 1;
        let blank = Disk { born: known.numbers, written: 0 };
        let disk = known.disks.entry((host, vm)).or_insert(blank);
        tracing::info!(%host, %vm, ?disk, is_blank = *disk == blank, "has a disk");
    }

    /// The disk of a machine on a host.
    pub fn disk(&self, host: HostId, vm: VmId) -> Option<Disk> {
        self.known().disks.get(&(host, vm)).copied()
    }

    /// A stopped machine's disk arrives.
    pub fn lands(&self, host: HostId, vm: VmId, disk: Disk) {
        tracing::info!(%host, %vm, ?disk, "a stopped machine's disk has crossed");
        self.known().disks.insert((host, vm), disk);
    }

    /// A disk is removed. If it was the only one of its newest, all is lost.
    pub fn removes_disk(&self, host: HostId, vm: VmId) {
        let mut known = self.known();
        let Some(disk) = known.disks.remove(&(host, vm)) else { return };
        let another = known.disks.iter().any(|((_, other), d)| *other == vm && *d == disk);
        tracing::info!(%host, %vm, ?disk, another, "a disk is removed");
        let guest = known.guests.entry(vm).or_default();
        if guest.disk == Some(disk) && !another && !guest.doomed {
            known.fault(format!("lost: the only disk of {vm} is removed from {host}"));
        }
    }

    /// Somebody wants a machine deleted.
    pub fn dooms(&self, vm: VmId) {
        self.known().guests.entry(vm).or_default().doomed = true;
    }

    /// Whether somebody wants a machine deleted.
    pub fn is_doomed(&self, vm: VmId) -> bool {
        self.known().guests.get(&vm).is_some_and(|guest| guest.doomed)
    }

    /// Something was killed that a guest's memory depends on.
    pub fn excuses(&self, vm: VmId) {
        self.known().guests.entry(vm).or_default().excused = true;
    }

    /// What the ledger says of a machine, as far as anybody has applied it.
    pub fn is_placed(&self, vm: VmId, epoch: Epoch, host: HostId) {
        let mut known = self.known();
        let guest = known.guests.entry(vm).or_default();
        match guest.placed {
            Some((seen, _)) if epoch < seen => return, // somebody who is behind
            Some((seen, there)) if epoch == seen && there != host => {
                let fault = format!("one {epoch} of {vm} for two hosts: {there} and {host}");
                return known.fault(fault);
            }
            Some((seen, _)) if epoch > seen && guest.may_go_over_from == Some(host) => {
                (guest.placed, guest.may_go_over_from) = (Some((epoch, host)), None); // it did not go over
            }
            _ => guest.placed = Some((epoch, host)),
        }
        let strays = |runs: &HostId| *runs != host && guest.may_go_over_from != Some(*runs);
        if let Some(other) = guest.runs_on.iter().copied().find(strays) {
            known.fault(format!("{vm} is given to {host} while it runs on {other}"));
        }
    }

    /// Whose disks are on a host.
    pub fn disks_on(&self, host: HostId) -> Vec<VmId> {
        self.known().disks.keys().filter(|(there, _)| *there == host).map(|(_, vm)| *vm).collect()
    }

    /// How often guests were started, in all.
    pub fn boots(&self) -> u64 {
        self.known().guests.values().map(|guest| guest.starts).sum()
    }
}

impl Guest {
    fn has_half_on(&self, host: HostId) -> bool {
        self.halves.is_some_and(|hosts| hosts.contains(&host))
    }
}

impl Known {
    /// One of two halves ends: the other is worth nothing.
    fn halves_end(&mut self, host: HostId, vm: VmId) {
        if let Some(guest) = self.guests.get_mut(&vm).filter(|guest| guest.has_half_on(host)) {
            guest.halves = None;
        }
    }

    /// Another host on which the guest has run, and where its process still is: held, but for a libvirtd to let it run again.
    fn may_run_again(&self, host: HostId, vm: VmId) -> Option<HostId> {
        if self.guests.get(&vm).is_some_and(|guest| guest.halves.is_some()) {
            return None; // that one is held for good
        }
        let ran = |(other, of): &&(HostId, VmId)| {
            *of == vm && *other != host && !self.untried.contains(&(*other, *of))
        };
        self.memories.keys().find(ran).map(|(other, _)| *other)
    }

    fn fault(&mut self, what: String) {
        tracing::error!(what, "a fault");
        self.faults.push(what);
    }

    fn runs(&mut self, host: HostId, vm: VmId) {
        let guest = self.guests.entry(vm).or_default();
        guest.runs_on.insert(host);
        guest.may_go_over_from = guest.may_go_over_from.filter(|from| *from == host);
        let ahead = guest.may_go_over_from.is_some();
        let (all, placed) = (guest.runs_on.clone(), guest.placed);
        if all.len() > 1 {
            self.fault(format!("two run: {vm} runs on {all:?}"));
        }
        if let Some((epoch, there)) = placed.filter(|(_, there)| *there != host && !ahead) {
            self.fault(format!("{vm} runs on {host}, but {epoch} gives it to {there}"));
        }
    }
}
