//! What a ledger refuses that only it can know; nothing is changed by it.

use super::{Flow, noop, spec};
use crate::world::World;
use novacron_common::{
    api::ProblemCode,
    ids::{JobId, RunId, WorkflowId},
};
use novacron_core::{
    CommandBody,
    command::{NodeDecide, RunRetry, RunStart, WorkflowPut, WorkflowUpdate},
};
use serde_json::{Value, json};

fn put(id: u128, body: Value) -> CommandBody {
    let spec = spec(body, JobId::from_u128(999));
    CommandBody::WorkflowPut(Box::new(WorkflowPut::new(WorkflowId::from_u128(id), spec, crate::world::NOON)))
}

#[test]
fn unknown_jobs_and_taken_names_are_refused() {
    let mut world = World::new();
    let job = json!({"id": "a", "type": "job", "config": {"jobId": "report"}});
    let refusal = world.refused(put(1, json!({"name": "w", "nodes": [noop("x"), job]})));
    assert_eq!(refusal.details[0].field, "nodes[1].config.jobId");
    assert!(refusal.fix.unwrap().contains("jobs first"));
    let map = json!({"id": "m", "type": "map", "config": {"items": [1], "each": {"type": "job", "config": {"jobId": "report"}}}});
    assert_eq!(world.refused(put(1, json!({"name": "w", "nodes": [map]}))).code, ProblemCode::InvalidRequest);
    let good = put(1, json!({"name": "w", "nodes": [noop("a")]}));
    world.ok(good.clone());
    world.ok(good);
    assert_eq!(
        world.refused(put(2, json!({"name": "w", "nodes": [noop("a")]}))).code,
        ProblemCode::NameTaken
    );
    assert_eq!(world.refused(put(1, json!({"name": "v", "nodes": [noop("a")]}))).code, ProblemCode::Conflict);
    let mut never = put(3, json!({"name": "v", "schedule": "@daily", "nodes": [noop("a")]}));
    if let CommandBody::WorkflowPut(put) = &mut never {
        put.next_at = None;
    }
    assert_eq!(world.refused(never).details[0].field, "schedule");
}

#[test]
fn a_node_that_fits_no_row_is_refused() {
    let mut world = World::new();
    let env: serde_json::Map<String, Value> =
        (0..20).map(|n| (format!("V{n}"), json!("x".repeat(1500)))).collect();
    let big = json!({"id": "a", "type": "map", "config": {
        "items": ["y".repeat(31_000)], "each": {"type": "command", "config": {"command": ["x"], "env": env}}}});
    let refusal = world.refused(put(1, json!({"name": "w", "nodes": [big]})));
    assert_eq!((refusal.code, refusal.details[0].field.as_str()), (ProblemCode::TooLarge, "nodes[0].config"));
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut flow = Flow::of(json!([noop("a")]), &[]);
    flow.start(Value::Null);
    let (run, none, id) = (flow.run, RunId::from_u128(404), WorkflowId::from_u128(404));
    let decide = |run, node| {
        CommandBody::NodeDecide(NodeDecide {
            run,
            node,
            approved: true,
            by: "x".into(),
            comment: String::new(),
        })
    };
    let record = flow.world.state.workflow(flow.id).unwrap().clone();
    let update = WorkflowUpdate { id, head: record.head, shape: None, revision: 1, next_at: None };
    let start = RunStart { id: none, workflow: id, input: String::new() };
    for body in [
        CommandBody::WorkflowRemove { id },
        CommandBody::WorkflowUpdate(Box::new(update)),
        CommandBody::RunStart(Box::new(start)),
        CommandBody::RunCancel { run: none },
        CommandBody::RunRetry(RunRetry { run: none, from: None }),
        CommandBody::RunRetry(RunRetry { run, from: Some(7) }),
        CommandBody::RunForget { run: none },
        decide(none, 0),
        decide(run, 9),
    ] {
        let shown = format!("{body:?}");
        assert_eq!(flow.world.refused(body).code, ProblemCode::NotFound, "{shown}");
    }
    assert_eq!(flow.world.refused(decide(run, 0)).code, ProblemCode::Conflict);
    assert_eq!(flow.world.refused(CommandBody::RunCancel { run }).code, ProblemCode::Conflict);
    assert_eq!(flow.world.refused(CommandBody::RunForget { run }).code, ProblemCode::Conflict);
    let long = RunStart { id: none, workflow: flow.id, input: "x".repeat(40_000) };
    assert_eq!(flow.world.refused(CommandBody::RunStart(Box::new(long))).code, ProblemCode::TooLarge);
}

#[test]
fn a_disabled_workflow_does_not_run() {
    let mut flow =
        Flow::new(json!({"name": "flow", "enabled": false, "schedule": "@hourly", "nodes": [noop("a")]}));
    assert_eq!(flow.world.state.workflow(flow.id).unwrap().next_at, None);
    let start = RunStart { id: RunId::from_u128(1), workflow: flow.id, input: String::new() };
    let refusal = flow.world.refused(CommandBody::RunStart(Box::new(start)));
    assert!(refusal.fix.unwrap().contains("enable"));
}
