//! Every zone × its offset changes from 1970 to 2040 × generated lines; and the proof that the net catches.

use crate::{
    checker::{Candidate, Covered, Effort, check},
    planted::MISTAKES,
    zones::{self, Zone},
};
use novacron_core::schedule::next_after;
use std::sync::OnceLock;

/// With `NOVACRON_SOAK` many more lines, and changes searched hour by hour.
fn soak() -> bool {
    std::env::var_os("NOVACRON_SOAK").is_some()
}

const HOUR: i64 = 3600;

fn all_zones() -> &'static (Vec<Zone>, usize) {
    static FOUND: OnceLock<(Vec<Zone>, usize)> = OnceLock::new();
    FOUND.get_or_init(|| zones::distinct(if soak() { HOUR } else { 24 * HOUR }))
}

fn effort() -> Effort {
    Effort { lines: if soak() { 200 } else { 4 }, percent_with_seconds: 5, seed: 1 }
}

/// On two threads; the zones in turn.
fn check_all(effort: Effort, candidate: Candidate) -> Result<Covered, String> {
    let (zones, _) = all_zones();
    let half = |odd: usize| {
        let mut covered = Covered::default();
        for zone in zones.iter().skip(odd).step_by(2) {
            covered += check(zone, effort, candidate)?;
        }
        Ok::<_, String>(covered)
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| half(1));
        let mut covered = half(0)?;
        covered += other.join().unwrap()?;
        Ok(covered)
    })
}

#[test]
fn ticks_are_those_of_the_oracle_in_every_zone() {
    let (zones, names) = all_zones();
    let covered = check_all(effort(), next_after).unwrap_or_else(|fault| panic!("{fault}"));
    println!(
        "{} distinct of {names} zones, {} offset changes from 1970 to 2040, {} lines, {} ticks, {} steps of the oracle",
        zones.len(),
        covered.changes,
        covered.lines,
        covered.ticks,
        covered.steps,
    );
    assert!(covered.changes > 10_000 && covered.ticks > 10 * covered.lines, "{covered:?}");
}

#[test]
fn the_net_catches_planted_mistakes() {
    for (name, mistake) in MISTAKES {
        match check_all(effort(), mistake) {
            Ok(covered) => panic!("not found: {name}, in {covered:?}"),
            Err(found) => println!("{name}: {found}"),
        }
    }
}
