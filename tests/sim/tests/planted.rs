//! Every planted mistake is caught within a number of seeds of its world, and the same seeds are clean without one: a checker that
//! never fails shows nothing. Built with the feature `planted` only, by `make planted`.

use novacron_common::planted::{MARK, Mistake};
use novacron_sim::{moves, run, seeds};

/// A world in which mistakes are planted, and what it says is wrong with a seed.
struct World {
    mistakes: &'static [Mistake],
    /// Seeds within which one must show.
    seeds: u64,
    faults: fn(u64, Option<Mistake>) -> Vec<String>,
}

const JOBS: World = World {
    mistakes: Mistake::OF_JOBS,
    seeds: 50,
    faults: |seed, mistake| run::run_with(seed, mistake).faults,
};
const MOVES: World = World {
    mistakes: Mistake::OF_MOVES,
    seeds: 60,
    faults: |seed, mistake| moves::run_with(seed, mistake).faults,
};

impl World {
    /// The first seed that fails, and what its checkers say of it: that the cluster did not heal is said before the rest,
    /// and says least.
    fn caught(&self, mistake: Mistake) -> Option<(u64, String)> {
        (1..=self.seeds).find_map(|seed| {
            Some((seed, (self.faults)(seed, Some(mistake)).into_iter().take(2).next_back()?))
        })
    }

    /// All, or the one that `NOVACRON_MISTAKE` names; none if that is another world's.
    fn chosen(&self) -> Vec<Mistake> {
        let only = std::env::var("NOVACRON_MISTAKE").ok();
        let chosen = |mistake: &Mistake| only.as_ref().is_none_or(|only| *only == format!("{mistake:?}"));
        let known = |mistakes: &[Mistake]| mistakes.iter().copied().any(|mistake| chosen(&mistake));
        assert!(known(JOBS.mistakes) || known(MOVES.mistakes), "NOVACRON_MISTAKE names no mistake");
        self.mistakes.iter().copied().filter(chosen).collect()
    }

    fn assert_all_are_caught(&self) {
        let missed: Vec<Mistake> = seeds::parallel(&self.chosen(), |mistake| match self.caught(*mistake) {
            Some((seed, fault)) => {
                println!("{mistake:?}: seed {seed}: {fault}");
                None
            }
            None => Some(*mistake),
        })
        .into_iter()
        .flatten()
        .collect();
        assert!(missed.is_empty(), "not caught within {} seeds: {missed:?}", self.seeds);
    }

    fn assert_clean_without(&self) {
        let tried = seeds::each_of(1, self.seeds, |seed| (self.faults)(seed, None));
        assert!(tried.failed.is_empty(), "{tried}");
    }
}

#[test]
fn every_planted_mistake_is_caught() {
    JOBS.assert_all_are_caught();
}

#[test]
fn without_a_mistake_the_same_seeds_are_clean() {
    JOBS.assert_clean_without();
}

#[test]
fn every_mistake_with_moves_is_caught() {
    MOVES.assert_all_are_caught();
}

#[test]
fn without_a_mistake_the_same_seeds_of_moves_are_clean() {
    MOVES.assert_clean_without();
}

/// What the shipped programs must not have (`tests/tests/layering.rs`), this one has.
#[test]
fn the_mark_is_found_where_the_mistakes_are() {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(program.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
}
