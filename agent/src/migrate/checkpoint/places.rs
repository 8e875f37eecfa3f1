//! Which record of a checkpoint a page of the guest has: its own, so that the last version is the one that stays.

use novacron_codec::parse::Place;
use std::collections::HashMap;

/// Pages whose records are found together: 2 MiB of the guest.
const GROUP: usize = 512;
/// So many groups at most: 4 GiB of the guest in 4 MiB of memory. What lies in others is left out.
const GROUPS_MAX: usize = 2048;
/// What all of it takes, at most, bytes.
pub const PLACES_COST: usize = GROUPS_MAX * (GROUP * size_of::<u32>() + 64);

/// The records given out so far.
#[derive(Debug, Default)]
pub struct Places {
    /// By block and group: a record's number and one, or 0.
    groups: HashMap<(u8, u64), Box<[u32; GROUP]>>,
    count: u32,
}

impl Places {
    /// How many records there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The record of a page: the one that it has, or a new one while there are fewer than `room`.
    pub fn record(&mut self, place: Place, room: u32) -> Option<u32> {
        let key = (place.block, place.page / GROUP as u64);
        if !self.groups.contains_key(&key) && (self.groups.len() >= GROUPS_MAX || self.count >= room) {
            return None;
        }
        let group = self.groups.entry(key).or_insert_with(|| Box::new([0; GROUP]));
        let entry = &mut group[(place.page % GROUP as u64) as usize];
        if *entry == 0 {
            if self.count >= room {
                return None;
            }
            self.count += 1;
            *entry = self.count;
        }
        Some(*entry - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u8, page: u64) -> Place {
        Place { block, page }
    }

    #[test]
    fn a_page_keeps_its_record_and_blocks_are_apart() {
        let mut places = Places::default();
        let given = [at(0, 7), at(1, 7), at(0, 700), at(0, 7)].map(|place| places.record(place, 10));
        assert_eq!(given, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(places.count(), 3);
    }

    #[test]
    fn there_are_no_more_records_than_room_and_old_ones_stay() {
        let mut places = Places::default();
        assert_eq!([1, 2, 3].map(|page| places.record(at(0, page), 2)), [Some(0), Some(1), None]);
        assert_eq!((places.record(at(0, 2), 2), places.record(at(9, 9), 2)), (Some(1), None));
    }

    #[test]
    fn pages_that_lie_far_apart_take_no_more_memory_than_is_stated() {
        let mut places = Places::default();
        let given = (0..3000).filter_map(|group| places.record(at(0, group * 5000), u32::MAX)).count();
        assert_eq!((given, places.groups.len()), (GROUPS_MAX, GROUPS_MAX));
    }
}
