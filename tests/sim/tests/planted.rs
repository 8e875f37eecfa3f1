//! Every planted mistake is caught within [`SEEDS`] seeds, and the same seeds are clean without one: a checker that
//! never fails shows nothing. Built with the feature `planted` only, by `make planted`.

use novacron_common::planted::{MARK, Mistake};
use novacron_sim::{run::run_with, seeds};

/// Seeds within which a mistake must show.
const SEEDS: u64 = 50;

/// The first seed that fails, and what its checkers say of it: that the cluster did not heal is said before the rest,
/// and says least.
fn caught(mistake: Mistake) -> Option<(u64, String)> {
    (1..=SEEDS)
        .find_map(|seed| Some((seed, run_with(seed, Some(mistake)).faults.into_iter().take(2).next_back()?)))
}

/// All, or the one that `NOVACRON_MISTAKE` names.
fn chosen() -> Vec<Mistake> {
    let only = std::env::var("NOVACRON_MISTAKE").ok();
    let chosen = |mistake: &Mistake| only.as_ref().is_none_or(|only| *only == format!("{mistake:?}"));
    let chosen: Vec<_> = Mistake::ALL.iter().copied().filter(chosen).collect();
    assert!(!chosen.is_empty(), "NOVACRON_MISTAKE is none of {:?}", Mistake::ALL);
    chosen
}

#[test]
fn every_planted_mistake_is_caught() {
    let missed: Vec<Mistake> = seeds::parallel(&chosen(), |mistake| match caught(*mistake) {
        Some((seed, fault)) => {
            println!("{mistake:?}: seed {seed}: {fault}");
            None
        }
        None => Some(*mistake),
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}

#[test]
fn without_a_mistake_the_same_seeds_are_clean() {
    let tried = seeds::each_of(1, SEEDS, |seed| run_with(seed, None).faults);
    assert!(tried.failed.is_empty(), "{tried}");
}

/// What the shipped programs must not have (`tests/tests/layering.rs`), this one has.
#[test]
fn the_mark_is_found_where_the_mistakes_are() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(program.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
}
