//! Three coordinators under seeded faults: what was acknowledged is kept, reads are linearizable, logs agree, and
//! the cluster heals.

use novacron_sim::{run::run, seeds};

#[test]
fn a_seed_is_one_history() {
    let (first, second) = (run(7), run(7));
    assert_eq!(first, second);
    assert!(first.faults.is_empty(), "{:#?}", first.faults);
    assert_ne!(first.trace, run(8).trace);
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
