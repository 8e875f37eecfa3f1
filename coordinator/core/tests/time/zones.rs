//! Every zone of the IANA database, those with the same offset changes taken once.

use crate::oracle::shown_at;
use chrono_tz::Tz;
use std::collections::BTreeMap;

/// 1970-01-05 and 2040-01-01: the window around the first change begins after 1970.
pub const FROM: i64 = 4 * 86_400;
pub const TO: i64 = 2_208_988_800;

/// A zone and its offset changes: the first second of each new offset.
#[derive(Debug, Clone)]
pub struct Zone {
    pub tz: Tz,
    pub changes: Vec<i64>,
}

/// The first zone of each distinct row of offsets, and how many zones there are in all. `step`: how far apart to look
/// for changes; seconds.
pub fn distinct(step: i64) -> (Vec<Zone>, usize) {
    let all = chrono_tz::TZ_VARIANTS;
    let halves = all.split_at(all.len() / 2);
    // Two threads: half a minute otherwise, most of it in unoptimised chrono.
    let (left, right) = std::thread::scope(|scope| {
        let other = scope.spawn(|| search(halves.1, step));
        (search(halves.0, step), other.join().unwrap())
    });
    let mut found = BTreeMap::new();
    for (tz, offsets) in left.into_iter().chain(right) {
        found.entry(offsets).or_insert(tz);
    }
    let zone = |(offsets, tz): (Vec<(i64, i64)>, Tz)| Zone {
        tz,
        changes: offsets.into_iter().map(|(at, _)| at).filter(|at| *at > FROM).collect(),
    };
    (found.into_iter().map(zone).collect(), all.len())
}

fn search(zones: &[Tz], step: i64) -> Vec<(Tz, Vec<(i64, i64)>)> {
    zones.iter().map(|tz| (*tz, offsets(*tz, step))).collect()
}

/// (first second, offset), the first at [`FROM`].
fn offsets(tz: Tz, step: i64) -> Vec<(i64, i64)> {
    let offset = |at| shown_at(tz, at) - at;
    let mut found = vec![(FROM, offset(FROM))];
    let mut at = FROM;
    while at < TO {
        let known = found[found.len() - 1].1;
        if offset(at + step) == known {
            at += step;
            continue;
        }
        // Halve until the last second of the old offset is known.
        let (mut old, mut new) = (at, at + step);
        while new - old > 1 {
            let middle = old.midpoint(new);
            if offset(middle) == known { old = middle } else { new = middle }
        }
        found.push((new, offset(new)));
        at = new;
    }
    found
}
