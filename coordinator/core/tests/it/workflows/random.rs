//! Random graphs with random ends: what holds for every run.

use super::{Flow, at};
use crate::world::NOON;
use novacron_common::{
    api::{FireState, NodeRunState as N, RunState},
    ids::{AttemptKey, NodeRef},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    units::UnixMillis,
};
use novacron_core::{
    Command, CommandBody, State, TableId, attempts,
    command::{NodeDecide, RunRetry},
    workflow::{self, Definition},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
struct Plan {
    nodes: Vec<(u8, u8)>,
    edges: Vec<(u8, u8, bool)>,
    max_parallel: u32,
}

fn plan() -> impl Strategy<Value = Plan> {
    let nodes = proptest::collection::vec((0..9u8, 0..4u8), 1..14);
    let edges = proptest::collection::vec((any::<u8>(), any::<u8>(), any::<bool>()), 0..30);
    (nodes, edges, 1..5u32).prop_map(|(nodes, edges, max_parallel)| Plan { nodes, edges, max_parallel })
}

fn kind(choice: u8) -> (&'static str, Value) {
    let command = json!({"command": ["x"]});
    match choice {
        0 | 1 => ("command", command),
        2 => ("noop", Value::Null),
        3 => ("job", json!({"jobId": "report"})),
        4 => ("wait", json!({"duration": "3s"})),
        5 => ("approve", Value::Null),
        6 => ("condition", json!({"if": "run.input.go"})),
        7 => (
            "map",
            json!({"items": [1, 2, 3], "parallelism": 2, "each": {"type": "command", "config": command}}),
        ),
        _ => ("map", json!({"items": [1, 2], "on_item_failure": "continue", "each": {"type": "noop"}})),
    }
}

impl Plan {
    /// Edges go from lower to higher places, so that there is no cycle; the last node undoes.
    fn body(&self) -> Value {
        let undo = self.nodes.len();
        let node = |(n, (choice, on_failure)): (usize, &(u8, u8))| {
            let (node_type, config) = kind(*choice);
            let on_failure = ["fail", "continue", "compensate", "fail"][*on_failure as usize];
            let mut body = json!({"id": format!("n{n}"), "type": node_type, "config": config, "on_failure": on_failure,
                                  "max_retries": choice % 2});
            if on_failure == "compensate" {
                body["compensation"] = json!(format!("n{undo}"));
            }
            body
        };
        let mut nodes: Vec<Value> = self.nodes.iter().enumerate().map(node).collect();
        nodes.push(json!({"id": format!("n{undo}"), "type": "command", "config": {"command": ["undo"]}}));
        if !self.nodes.iter().any(|(_, on_failure)| *on_failure == 2) {
            nodes.pop();
        }
        json!({"name": "flow", "nodes": nodes, "edges": self.edges(), "max_parallel": self.max_parallel})
    }

    fn edges(&self) -> Vec<Value> {
        let count = self.nodes.len();
        let mut pairs = BTreeMap::new();
        for (a, b, when) in &self.edges {
            let (a, b) = (*a as usize % count, *b as usize % count);
            if a != b {
                pairs.insert((a.min(b), a.max(b)), *when || self.nodes[a.min(b)].0 != 6);
            }
        }
        let edge = |((from, to), when): (&(usize, usize), &bool)| json!({"from": format!("n{from}"), "to": format!("n{to}"), "when": when});
        pairs.iter().map(edge).collect()
    }
}

/// What is done next, chosen by chance among what can be done.
struct Driver {
    flow: Flow,
    log: Vec<Command>,
    store: BTreeMap<(TableId, Vec<u8>), Vec<u8>>,
    seen: BTreeMap<NodeRef, N>,
}

impl Driver {
    fn new(flow: Flow) -> Self {
        let store = flow.world.state.rows().map(|(table, key, value)| ((table, key), value)).collect();
        Self { flow, log: Vec::new(), store, seen: BTreeMap::new() }
    }

    fn state(&self) -> &State {
        &self.flow.world.state
    }

    fn apply(&mut self, body: CommandBody) -> Result<(), TestCaseError> {
        let command = Command { at: self.flow.world.now, body };
        self.log.push(command.clone());
        // A refusal (a node decided twice) is as good an answer as any.
        drop(self.flow.world.state.apply(0, command));
        for change in self.flow.world.state.take_changes() {
            match change.value {
                Some(value) => self.store.insert((change.table, change.key), value),
                None => self.store.remove(&(change.table, change.key)),
            };
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let rows = self.store.iter().map(|((table, key), value)| (*table, key.clone(), value.clone()));
        prop_assert!(
            &State::load(rows).expect("rows of our own") == self.state(),
            "a reload gives another state"
        );
        let run = self.flow.world.state.run(self.flow.run).expect("the run");
        let definition: Vec<_> =
            Definition::nodes(&self.flow.world.state, run.workflow, run.version).collect();
        let state_of = |node: u32| self.flow.world.state.node_run(self.flow_key(node)).map(|row| row.state);
        for node in &definition {
            for next in &node.after {
                let begun = state_of(next.node).is_some_and(|state| !matches!(state, N::Pending));
                let ended = state_of(node.key.node).is_some_and(N::is_final);
                prop_assert!(!begun || ended, "{} began before {} had ended", next.node, node.key.node);
            }
        }
        for row in self.flow.world.state.node_runs().iter() {
            let before = self.seen.insert(row.key, row.state);
            prop_assert!(
                before.is_none_or(|old| !old.is_final() || old == row.state),
                "{:?} ended twice",
                row.key
            );
        }
        let working = self.flow.world.state.index().workflows().counts(run.id).working();
        prop_assert!(working <= run.max_parallel, "{working} nodes at once");
        Ok(())
    }

    fn flow_key(&self, node: u32) -> NodeRef {
        NodeRef { run: self.flow.run, node, item: 0 }
    }

    fn step(&mut self, choice: u8) -> Result<(), TestCaseError> {
        match choice % 4 {
            0 => self.place(),
            1 => self.report(choice / 4),
            2 => self.decide(choice / 4),
            _ => self.pass(),
        }
    }

    fn place(&mut self) -> Result<(), TestCaseError> {
        let plan = attempts::plan(self.state(), self.flow.world.now, u32::MAX, 3);
        plan.places.into_iter().try_for_each(|place| self.apply(CommandBody::AttemptPlace(place)))
    }

    fn report(&mut self, choice: u8) -> Result<(), TestCaseError> {
        let running: Vec<_> = self.state().index().fires().running().map(|(_, fire)| fire).collect();
        let Some(fire) = running.get(choice as usize % running.len().max(1)).copied() else { return Ok(()) };
        let record = self.state().fire(fire).expect("a fire").clone();
        prop_assert_eq!(record.state, FireState::Running);
        let outcome = match (record.cancel_requested, choice % 3) {
            (true, _) => AttemptOutcome::Killed,
            (false, 0) => AttemptOutcome::Exited(1),
            (false, _) => AttemptOutcome::Exited(0),
        };
        let ended_at = self.flow.world.now;
        let end = AttemptEnd { outcome, started_at: None, ended_at, output: Output::default(), result: None };
        let attempt = AttemptKey { fire, number: record.attempts };
        let report = AttemptReport { attempt, epoch: record.epoch, end };
        self.apply(CommandBody::AttemptEnd(Box::new(report)))
    }

    fn decide(&mut self, choice: u8) -> Result<(), TestCaseError> {
        let run = self.flow.run;
        let asked = self.state().node_runs().iter().find(|row| row.state == N::AwaitingApproval);
        let Some(node) = asked.map(|row| row.key.node) else { return Ok(()) };
        let approved = !choice.is_multiple_of(3);
        self.apply(CommandBody::NodeDecide(NodeDecide {
            run,
            node,
            approved,
            by: "x".into(),
            comment: String::new(),
        }))
    }

    fn pass(&mut self) -> Result<(), TestCaseError> {
        self.flow.world.now = UnixMillis(self.flow.world.now.0 + 1_500);
        let due = workflow::due(self.state(), self.flow.world.now, 10);
        due.into_iter().try_for_each(|advance| self.apply(CommandBody::RunAdvance(advance)))
    }

    fn ended(&self) -> bool {
        self.flow.state().is_final()
    }

    /// Goes on sensibly until the run has ended.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for round in 0..2_000u32 {
            if self.ended() {
                break;
            }
            self.step(u8::try_from(round % 251).unwrap_or_default())?;
        }
        prop_assert!(self.ended(), "the run does not end: {:?}", self.flow.state());
        let run = self.state().run(self.flow.run).expect("the run");
        for node in Definition::nodes(self.state(), run.workflow, run.version) {
            let shown = workflow::shown(run, self.state().node_run(self.flow_key(node.key.node)));
            prop_assert!(shown.is_final(), "{} is {shown:?} in an ended run", node.spec.id);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_run_ends_in_order_and_once(
        plan in plan(), go in any::<bool>(), steps in proptest::collection::vec(any::<u8>(), 0..60),
        cancel in proptest::option::of(0..60usize),
    ) {
        let mut flow = Flow::new(plan.body());
        flow.world.state.take_changes();
        let base = flow.world.state.clone();
        let mut driver = Driver::new(flow);
        let start = novacron_core::command::RunStart {
            id: novacron_common::ids::RunId::from_u128(5 << 64),
            workflow: driver.flow.id,
            input: json!({"go": go}).to_string(),
        };
        driver.flow.run = start.id;
        driver.apply(CommandBody::RunStart(Box::new(start)))?;
        for (n, choice) in steps.iter().enumerate() {
            if cancel == Some(n) {
                let run = driver.flow.run;
                driver.apply(CommandBody::RunCancel { run })?;
            }
            driver.step(*choice)?;
        }
        if cancel.is_some_and(|n| n < steps.len()) {
            // Whatever the agents say, or do not say: it ends by its grace.
            driver.flow.world.now = UnixMillis(driver.flow.world.now.0 + 30_000);
            driver.pass()?;
            prop_assert!(driver.ended(), "a cancelled run does not end");
        }
        driver.finish()?;
        let state = driver.flow.state();
        prop_assert!(state != RunState::Cancelled || cancel.is_some());

        // A retry ends as well, and begins where the run left off.
        if state == RunState::Failed {
            driver.seen.clear();
            let run = driver.flow.run;
            driver.apply(CommandBody::RunRetry(RunRetry { run, from: None }))?;
            driver.finish()?;
        }

        let mut replica = base;
        for command in driver.log.clone() {
            replica.apply(0, command);
        }
        replica.take_changes();
        prop_assert!(replica == *driver.state(), "a replica that applied the same commands differs");
        prop_assert!(driver.flow.world.now >= at(0) && NOON == at(0));
    }
}
