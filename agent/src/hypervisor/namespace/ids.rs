//! User ids: each isolated tree gets a range of its own, so that two of them share no id, and none has one of the
//! host's. Pure; `user_namespaces(7)` has the format of the map files.

use nix::unistd::Pid;

use super::step::{Doing, StepError};

/// Ids in one range.
pub const RANGE: u32 = 1 << 16;

/// Where the ranges begin: just above the ids that systemd-nspawn hands out (systemd, `UIDS-GIDS.md`).
pub const FIRST: u32 = 0x7000_0000;

/// How many ranges there are; so many isolated trees may run at once.
pub const SLOTS: u32 = 2048;

/// Which ids of the host stand behind those inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMap {
    /// 0 to 65535 inside are a range outside.
    Range {
        /// The id outside that is 0 inside.
        first: u32,
    },
    /// Only 0 exists inside, and is this id outside.
    Single {
        /// The supervisor's own id.
        outside: u32,
    },
}

impl IdMap {
    /// A range, if the supervisor's own user namespace has these ids (`own_map` is its `/proc/self/uid_map`).
    pub fn choose(own_map: &str, slot: u32, own_id: u32) -> Self {
        let first = FIRST + (slot % SLOTS) * RANGE;
        let has_it = own_map.lines().filter_map(line).any(|(inside, length)| {
            u64::from(first) >= inside && u64::from(first) + u64::from(RANGE) <= inside + length
        });
        if has_it { Self::Range { first } } else { Self::Single { outside: own_id } }
    }

    /// The id outside that is 0 inside.
    pub fn root_outside(self) -> u32 {
        match self {
            Self::Range { first } => first,
            Self::Single { outside } => outside,
        }
    }

    /// Whether this id outside is one inside.
    pub fn has(self, outside: u32) -> bool {
        match self {
            Self::Range { first } => (first..first + RANGE).contains(&outside),
            Self::Single { outside: only } => outside == only,
        }
    }

    /// What stands behind 0, and how many ids there are from there on.
    pub fn extent(self) -> (u32, u32) {
        match self {
            Self::Range { first } => (first, RANGE),
            Self::Single { outside } => (outside, 1),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Range { first } => format!("0 {first} {RANGE}\n"),
            Self::Single { outside } => format!("0 {outside} 1\n"),
        }
    }

    /// Gives the process in its new user namespace this map, for users and groups alike.
    pub fn write(self, pid: Pid) -> Result<(), StepError> {
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{file}"), self.text()).doing("map user and group ids")?;
        }
        Ok(())
    }
}

fn line(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.split_ascii_whitespace().map(|field| field.parse::<u64>().ok());
    let (inside, _outside, length) = (fields.next()??, fields.next()??, fields.next()??);
    Some((inside, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_with_all_ids_hands_out_disjoint_ranges() {
        let whole = "         0          0 4294967295\n";
        let (a, b) = (IdMap::choose(whole, 0, 0), IdMap::choose(whole, 1, 0));
        assert_eq!(a, IdMap::Range { first: FIRST });
        assert_eq!(b.root_outside() - a.root_outside(), RANGE);
        assert_eq!(b.text(), format!("0 {} 65536\n", FIRST + RANGE));
        let last = IdMap::choose(whole, SLOTS - 1, 0).root_outside();
        assert!(last.checked_add(RANGE).is_some_and(|end| end <= i32::MAX.unsigned_abs()));
    }

    #[test]
    fn without_the_range_one_id_is_mapped() {
        assert_eq!(IdMap::choose("0 100000 65536\n", 3, 0), IdMap::Single { outside: 0 });
        assert_eq!(IdMap::choose("garbage\n", 3, 9).text(), "0 9 1\n");
    }
}
