//! Workflows: definitions, runs, and what every run has in common whatever happens to it.

mod random;
mod refusals;
mod rows;
mod stories;
mod ticks;

use crate::world::{NOON, World, job_spec};
use novacron_common::{
    api::{NodeRunState, RunState, WorkflowCreate},
    ids::{AttemptKey, FireKey, JobId, NodeRef, RunId, WorkflowId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::workflow::WorkflowSpec,
    units::UnixMillis,
};
use novacron_core::{
    Applied, CommandBody, attempts,
    command::{RunAdvance, RunStart, WorkflowPut},
    record::NodeRunRecord,
    workflow,
};
use serde_json::{Value, json};

/// A ledger with one host, one job `report` that does nothing, and one workflow.
pub struct Flow {
    pub world: World,
    pub id: WorkflowId,
    pub run: RunId,
    runs: u128,
}

pub fn node(id: &str, node_type: &str, config: Value) -> Value {
    json!({ "id": id, "type": node_type, "config": config })
}

pub fn command(id: &str) -> Value {
    node(id, "command", json!({ "command": ["work", id] }))
}

pub fn noop(id: &str) -> Value {
    node(id, "noop", Value::Null)
}

/// `a b` for an edge from a to b.
pub fn edges(list: &[&str]) -> Value {
    let edge = |text: &&str| {
        let (from, to) = text.split_once(' ').expect("two nodes");
        json!({ "from": from, "to": to })
    };
    Value::Array(list.iter().map(edge).collect())
}

pub fn spec(body: Value, job: JobId) -> WorkflowSpec {
    let body: WorkflowCreate = serde_json::from_value(body).expect("a body of the right shape");
    body.check(&|name| (name == "report").then_some(job)).unwrap_or_else(|faults| panic!("{faults}"))
}

impl Flow {
    pub fn new(body: Value) -> Self {
        let (mut world, _) = World::with_hosts(1);
        let job = world.job(job_spec("report", "@yearly"));
        let (id, now) = (WorkflowId::from_u128(70), world.now);
        let put = WorkflowPut::new(id, spec(body, job), now);
        assert_eq!(world.ok(CommandBody::WorkflowPut(Box::new(put))), Applied::WorkflowStored(id));
        Self { world, id, run: RunId::from_u128(0), runs: 0 }
    }

    /// With nodes and edges, and nothing else said.
    pub fn of(nodes: Value, list: &[&str]) -> Self {
        Self::new(json!({ "name": "flow", "nodes": nodes, "edges": edges(list) }))
    }

    pub fn start(&mut self, input: Value) -> RunId {
        self.runs += 1;
        self.run = RunId::from_u128(self.runs << 80);
        let start = RunStart { id: self.run, workflow: self.id, input: input.to_string() };
        let started = self.world.ok(CommandBody::RunStart(Box::new(start)));
        assert_eq!(started, Applied::RunStarted(self.run));
        self.run
    }

    pub fn number(&self, id: &str) -> u32 {
        let run = self.world.state.run(self.run).expect("a run");
        let mut nodes = workflow::Definition::nodes(&self.world.state, run.workflow, run.version);
        nodes.find(|node| node.spec.id.as_str() == id).expect("a node of this id").key.node
    }

    pub fn key(&self, id: &str) -> NodeRef {
        NodeRef { run: self.run, node: self.number(id), item: 0 }
    }

    pub fn row(&self, id: &str) -> Option<&NodeRunRecord> {
        self.world.state.node_run(self.key(id))
    }

    /// How a node is shown.
    pub fn node(&self, id: &str) -> NodeRunState {
        workflow::shown(self.world.state.run(self.run).expect("a run"), self.row(id))
    }

    pub fn nodes(&self, ids: &[&str]) -> Vec<NodeRunState> {
        ids.iter().map(|id| self.node(id)).collect()
    }

    pub fn state(&self) -> RunState {
        self.world.state.run(self.run).expect("a run").state
    }

    pub fn fire(&self, id: &str) -> FireKey {
        self.row(id).and_then(|row| row.fire).expect("a fire")
    }

    /// Gives every waiting fire to the host.
    pub fn place(&mut self) {
        loop {
            let plan = attempts::plan(&self.world.state, self.world.now, u32::MAX, 10_000);
            if plan.places.is_empty() {
                return;
            }
            for place in plan.places {
                self.world.ok(CommandBody::AttemptPlace(place));
            }
        }
    }

    /// Ends the attempt under way at a fire.
    pub fn finish(&mut self, fire: FireKey, outcome: AttemptOutcome, result: Option<&str>) {
        self.place();
        let record = self.world.state.fire(fire).expect("a fire");
        let attempt = AttemptKey { fire, number: record.attempts };
        let end = AttemptEnd {
            outcome,
            started_at: Some(self.world.now),
            ended_at: self.world.now,
            output: Output::default(),
            result: result.map(str::to_owned),
        };
        let report = AttemptReport { attempt, epoch: record.epoch, end };
        self.world.ok(CommandBody::AttemptEnd(Box::new(report)));
    }

    pub fn succeed(&mut self, id: &str, result: Option<&str>) {
        self.finish(self.fire(id), AttemptOutcome::Exited(0), result);
    }

    pub fn fail(&mut self, id: &str) {
        self.finish(self.fire(id), AttemptOutcome::Exited(1), None);
    }

    /// Time passes, and the leader does what is due.
    pub fn pass(&mut self, ms: i64) {
        self.world.now = UnixMillis(self.world.now.0 + ms);
        self.advance();
    }

    /// The leader does what is due, as long as there is anything.
    pub fn advance(&mut self) {
        for _ in 0..100 {
            let due: Vec<RunAdvance> = workflow::due(&self.world.state, self.world.now, 100);
            if due.is_empty() {
                return;
            }
            due.into_iter().for_each(|advance| drop(self.world.ok(CommandBody::RunAdvance(advance))));
        }
        panic!("something is due for ever");
    }

    /// A target that an attempt is told, as text.
    pub fn argv(&self, fire: FireKey) -> Vec<String> {
        match attempts::work_of(&self.world.state, fire).expect("work").target {
            novacron_common::spec::JobTarget::Command(command) => command.program.argv.clone(),
            other => panic!("no command: {other:?}"),
        }
    }
}

pub const fn at(ms: i64) -> UnixMillis {
    UnixMillis(NOON.0 + ms)
}
