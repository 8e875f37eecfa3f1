//! Runs by schedule: what becomes of ticks that nobody was there to commit.

use super::{Flow, noop};
use novacron_common::{ids::RunId, units::UnixMillis};
use novacron_core::{CommandBody, workflow};
use serde_json::{Value, json};

#[test]
fn ticks_make_runs_and_missed_ones_are_counted() {
    let mut flow = Flow::new(json!({"name": "flow", "schedule": "0 * * * *", "nodes": [noop("a")],
                                    "misfire": {"policy": "none"}}));
    let mut made = 0u128;
    let mut tick = |flow: &mut Flow| {
        let new_id = || {
            made += 1;
            RunId::from_u128(made << 70)
        };
        let ticks = workflow::due_ticks(&flow.world.state, flow.world.now, 10, new_id);
        ticks.into_iter().for_each(|tick| drop(flow.world.ok(CommandBody::RunTick(tick))));
    };
    tick(&mut flow);
    assert_eq!(flow.world.state.workflow(flow.id).unwrap().runs, 0);
    let first = flow.world.state.workflow(flow.id).unwrap().next_at.unwrap();
    flow.world.now = first;
    tick(&mut flow);
    tick(&mut flow);
    let record = flow.world.state.workflow(flow.id).unwrap().clone();
    assert_eq!((record.runs, record.succeeded, record.last_tick), (1, 1, Some(first)));
    // Three hours without a leader, and the last tick is more than a minute ago as well.
    flow.world.now = UnixMillis(first.0 + 3 * 3_600_000 + 120_000);
    tick(&mut flow);
    let record = flow.world.state.workflow(flow.id).unwrap();
    assert_eq!((record.runs, record.skipped), (1, 3));
    assert!(record.last_skip.as_ref().unwrap().reason.contains("missed"));
    assert_eq!(record.next_at, Some(UnixMillis(first.0 + 4 * 3_600_000)));
}

/// The instants of the runs that an outage of ten minutes and a half leaves behind, in minutes since it began, and
/// the ticks that made none. The workflow is due each minute.
fn after_an_outage(misfire: Value) -> (Vec<i64>, u64) {
    let mut flow = Flow::new(json!({"name": "flow", "schedule": "* * * * *", "nodes": [noop("a")],
                                    "misfire": misfire}));
    let first = flow.world.state.workflow(flow.id).unwrap().next_at.unwrap();
    flow.world.now = UnixMillis(first.0 + 10 * 60_000 + 30_000);
    let mut made = 0u128;
    loop {
        let new_id = || {
            made += 1;
            RunId::from_u128(made << 70)
        };
        let ticks = workflow::due_ticks(&flow.world.state, flow.world.now, 10, new_id);
        if ticks.is_empty() {
            break;
        }
        for tick in ticks {
            flow.world.ok(CommandBody::RunTick(tick));
        }
        // Time goes on while they are dealt with.
        flow.world.now.0 += 10;
    }
    let runs = flow.world.state.runs().iter().map(|run| (run.scheduled_at.0 - first.0) / 60_000).collect();
    (runs, flow.world.state.workflow(flow.id).unwrap().skipped)
}

#[test]
fn late_ticks_make_runs_as_the_policy_says_and_no_more_than_its_maximum() {
    let all = |max: u32| json!({"policy": "all", "max": max});
    // The last minute is late, and not missed.
    assert_eq!(after_an_outage(all(3)), (vec![7, 8, 9, 10], 7));
    assert_eq!(after_an_outage(all(1)), (vec![9, 10], 9));
    assert_eq!(after_an_outage(all(100)), ((0..=10).collect(), 0));
    assert_eq!(after_an_outage(json!({"policy": "all", "max": 100, "window": "4m"})), (vec![7, 8, 9, 10], 7));
    assert_eq!(after_an_outage(json!({"policy": "all", "max": 2, "window": "4m"})), (vec![8, 9, 10], 8));
    assert_eq!(after_an_outage(json!({"policy": "last"})), (vec![10], 10));
    assert_eq!(after_an_outage(json!({"policy": "none"})), (vec![10], 10));
}
