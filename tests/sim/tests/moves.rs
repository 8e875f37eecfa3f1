//! Machines that move while everything around them fails: one copy of each guest runs, with its newest memory and disk; no move
//! lasts for ever; nothing is left over.

use novacron_sim::{moves::run, seeds};

/// Seeds in a run of the tests.
const SEEDS: u64 = 60;

/// Whether it is clean is for the test below to say.
#[test]
fn a_seed_is_one_history() {
    let histories: Vec<_> = (1..=3).map(run).collect();
    for (seed, first) in (1..).zip(&histories) {
        assert!(first.moves > 0 && first.boots > 0, "seed {seed} shows nothing: {first:#?}");
        assert_eq!(first, &run(seed), "seed {seed}");
    }
    assert!(histories.iter().any(|history| history.cancelled > 0), "nothing was called off in time");
    assert_ne!(histories[0].trace, histories[1].trace);
}

#[test]
fn every_seed_of_moves_keeps_its_promises() {
    let tried = seeds::each_up_to(SEEDS, |seed| {
        let verdict = run(seed);
        if verdict.faults.is_empty() && verdict.moves == 0 {
            return vec!["nothing moved: the seed shows nothing".into()];
        }
        verdict.faults
    });
    assert!(tried.failed.is_empty(), "{tried}");
}
