//! The last measurements, for the forecasts of moves that are asked for soon after: a move is not held up to be measured again.

use novacron_common::{
    ids::{HostId, VmId},
    units::UnixMillis,
};
use novacron_core::forecast::Measures;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Older ones say nothing of a guest.
const GOOD_FOR: Duration = Duration::from_secs(600);
/// Kept at most; the oldest goes first.
const KEPT_MAX: usize = 1024;

type Key = (VmId, HostId);

/// What was measured lately, by machine and target. Only this coordinator has it: another's forecast is made without.
#[derive(Debug, Default)]
pub struct Kept(Mutex<BTreeMap<Key, (UnixMillis, Measures)>>);

impl Kept {
    /// Keeps it.
    pub fn put(&self, vm: VmId, target: HostId, at: UnixMillis, measures: Measures) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (taken, _)| at.since(*taken) <= GOOD_FOR);
        kept.insert((vm, target), (at, measures));
        if kept.len() > KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, (taken, _))| *taken).map(|(key, _)| *key);
            oldest.map(|key| kept.remove(&key));
        }
    }

    /// What is still good; nothing if there is none.
    pub fn of(&self, vm: VmId, target: HostId, now: UnixMillis) -> Measures {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let good = kept.get(&(vm, target)).filter(|(taken, _)| now.since(*taken) <= GOOD_FOR);
        good.map(|(_, measures)| measures.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::record::GuestMeasure;

    fn measures(disk_bytes: u64) -> Measures {
        Measures { guest: Some(GuestMeasure { disk_bytes, ..GuestMeasure::default() }), link: None }
    }

    #[test]
    fn what_was_measured_is_good_for_ten_minutes_and_for_that_target() {
        let (kept, vm, host) = (Kept::default(), VmId::from_u128(1), HostId::from_u128(2));
        kept.put(vm, host, UnixMillis(0), measures(7));
        assert_eq!(kept.of(vm, host, UnixMillis(600_000)), measures(7));
        assert_eq!(kept.of(vm, host, UnixMillis(600_001)), Measures::default());
        assert_eq!(kept.of(vm, HostId::from_u128(3), UnixMillis(0)), Measures::default());
    }

    #[test]
    fn it_stays_bounded_and_the_oldest_goes() {
        let (kept, host) = (Kept::default(), HostId::from_u128(2));
        for n in 0..=KEPT_MAX as u64 {
            let at = UnixMillis(i64::try_from(n).unwrap());
            kept.put(VmId::from_u128(u128::from(n)), host, at, measures(n));
        }
        let now = UnixMillis(2000);
        assert_eq!(kept.of(VmId::from_u128(0), host, now), Measures::default());
        assert_eq!(kept.of(VmId::from_u128(1), host, now), measures(1));
    }
}
