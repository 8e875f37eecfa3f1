//! Which pages of the guest a checkpoint has already, and whether one more version of them is worth its room.

use novacron_codec::parse::Place;
use std::collections::HashMap;

/// Pages that are marked together: 16 MiB of the guest.
const GROUP: usize = 4096;
const WORDS: usize = GROUP / u64::BITS as usize;
/// So many groups at most: 16 GiB of the guest in 600 KiB of memory. What lies in others is left out.
const GROUPS_MAX: usize = 1024;
/// What all of it takes, at most, bytes.
pub const VERSIONS_COST: usize = GROUPS_MAX * (WORDS * size_of::<u64>() + 64);

/// The pages that were admitted so far.
#[derive(Debug)]
pub struct Versions {
    /// By block and group, a bit for each page that was admitted before.
    groups: HashMap<(u8, u64), Box<[u64; WORDS]>>,
    room: u32,
    first: u32,
    later: u32,
}

impl Versions {
    /// None yet, and room for so many.
    pub fn new(room: u32) -> Self {
        Self { groups: HashMap::new(), room, first: 0, later: 0 }
    }

    /// Whether this version of a page is kept. Every page's first one is, and later ones as long as they are fewer than
    /// the pages themselves: what changes all the time will not be the same when its machine returns.
    /// Where nobody says which page it is, each counts as a new one.
    pub fn admit(&mut self, place: Option<Place>) -> bool {
        if self.first + self.later >= self.room {
            return false;
        }
        let Some(place) = place else {
            self.first += 1;
            return true;
        };
        let key = (place.block, place.page / GROUP as u64);
        if !self.groups.contains_key(&key) && self.groups.len() >= GROUPS_MAX {
            return false;
        }
        let group = self.groups.entry(key).or_insert_with(|| Box::new([0; WORDS]));
        let bit = (place.page % GROUP as u64) as usize;
        let (word, mask) = (&mut group[bit / u64::BITS as usize], 1 << (bit % u64::BITS as usize));
        if *word & mask == 0 {
            *word |= mask;
            self.first += 1;
            return true;
        }
        let admitted = self.later < self.first;
        self.later += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(block: u8, page: u64) -> Option<Place> {
        Some(Place { block, page })
    }

    #[test]
    fn first_versions_are_kept_and_no_more_later_ones_than_those() {
        let mut versions = Versions::new(100);
        let first = [at(0, 7), at(1, 7), at(0, 7000)].map(|place| versions.admit(place));
        let later = [7, 7, 7, 7].map(|page| versions.admit(at(0, page)));
        assert_eq!((first, later), ([true; 3], [true, true, true, false]));
        assert!(versions.admit(at(0, 8)) && versions.admit(at(0, 8)) && !versions.admit(at(0, 8)));
    }

    #[test]
    fn there_are_no_more_than_there_is_room_for() {
        let mut versions = Versions::new(3);
        assert_eq!([1, 1, 2, 3].map(|page| versions.admit(at(0, page))), [true, true, true, false]);
    }

    #[test]
    fn pages_that_lie_far_apart_take_no_more_memory_than_is_stated() {
        let mut versions = Versions::new(u32::MAX);
        let kept = (0..3000).filter(|group| versions.admit(at(0, group * 5000))).count();
        assert_eq!((kept, versions.groups.len()), (GROUPS_MAX, GROUPS_MAX));
    }
}
