//! Three coordinators under seeded faults: what was acknowledged is kept, reads are linearizable, logs agree, and
//! the cluster heals.

use novacron_sim::{run::run, seeds};

#[test]
fn a_seed_is_one_history() {
    let histories: Vec<_> = (1..=8).map(run).collect();
    for (seed, first) in (1..).zip(&histories) {
        assert_eq!(first, &run(seed), "seed {seed}");
        assert!(first.faults.is_empty(), "{:#?}", first.faults);
    }
    assert_ne!(histories[0].trace, histories[1].trace);
}

#[test]
fn every_seed_keeps_its_promises() {
    let tried = seeds::each(|seed| {
        let verdict = run(seed);
        if verdict.faults.is_empty() && (verdict.writes == 0 || verdict.reads == 0) {
            return vec!["nothing was written or nothing was read: the seed shows nothing".into()];
        }
        verdict.faults
    });
    assert!(tried.failed.is_empty(), "{tried}");
}
