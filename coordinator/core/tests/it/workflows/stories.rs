//! Each rule of runs, told once.

use super::{Flow, command, edges, node, noop, spec};
use crate::world::{job_spec, refusal};
use novacron_common::{
    api::{NodeRunState as N, ProblemCode, RunState},
    ids::{JobId, NodeRef, RunId},
    record::AttemptOutcome,
};
use novacron_core::{
    Applied, CommandBody,
    command::{NodeDecide, RunRetry, RunStart, WorkflowUpdate},
    views,
};
use serde_json::{Value, json};

#[test]
fn a_chain_runs_in_order_and_hands_outputs_on() {
    let greet = node(
        "greet",
        "command",
        json!({"command": ["echo", "{{ nodes.look.output.who }}", "{{ run.input.n }}"]}),
    );
    let mut flow = Flow::of(json!([command("look"), greet, noop("end")]), &["look greet", "greet end"]);
    flow.start(json!({"n": [1, 2]}));
    assert_eq!(flow.nodes(&["look", "greet", "end"]), [N::Running, N::Pending, N::Pending]);
    flow.succeed("look", Some(r#"{"who": "you; rm -rf /"}"#));
    assert_eq!(flow.argv(flow.fire("greet")), ["echo", "you; rm -rf /", "[1,2]"]);
    flow.succeed("greet", None);
    assert_eq!((flow.node("end"), flow.state()), (N::Succeeded, RunState::Succeeded));
    assert_eq!(flow.world.state.workflow(flow.id).unwrap().succeeded, 1);
}

#[test]
fn what_cannot_be_filled_in_fails_its_node_with_the_reason() {
    let use_it = node("use", "command", json!({"command": ["x", "{{ nodes.look.output.missing }}"]}));
    let mut flow = Flow::of(json!([command("look"), use_it]), &["look use"]);
    flow.start(Value::Null);
    flow.succeed("look", Some("{}"));
    assert_eq!((flow.node("use"), flow.state()), (N::Failed, RunState::Failed));
    assert!(flow.row("use").unwrap().reason.as_ref().unwrap().contains("\"missing\""));
    let nul = node("use", "command", json!({"command": ["x", "{{ nodes.look.output }}"]}));
    let mut flow = Flow::of(json!([command("look"), nul]), &["look use"]);
    flow.start(Value::Null);
    flow.succeed("look", Some("\"a\\u0000b\""));
    assert!(flow.row("use").unwrap().reason.as_ref().unwrap().contains("NUL"));
}

#[test]
fn branches_not_taken_are_skipped_up_to_where_they_meet() {
    let mut flow = Flow::new(json!({
        "name": "flow",
        "nodes": [command("count"), node("many", "condition", json!({"if": "nodes.count.output > 3"})),
                  noop("yes"), noop("no"), noop("no2"), noop("meet")],
        "edges": [{"from": "count", "to": "many"}, {"from": "many", "to": "yes"},
                  {"from": "many", "to": "no", "when": false}, {"from": "no", "to": "no2"},
                  {"from": "yes", "to": "meet"}, {"from": "no2", "to": "meet"}]
    }));
    flow.start(Value::Null);
    flow.succeed("count", Some("7"));
    let all = ["yes", "no", "no2", "meet"];
    assert_eq!(flow.nodes(&all), [N::Succeeded, N::Skipped, N::Skipped, N::Succeeded]);
    assert_eq!(flow.state(), RunState::Succeeded);
    flow.start(Value::Null);
    flow.succeed("count", Some("3"));
    assert_eq!(flow.nodes(&all), [N::Skipped, N::Succeeded, N::Succeeded, N::Succeeded]);
}

#[test]
fn a_failure_ends_the_run_but_lets_what_runs_finish() {
    let mut flow = Flow::of(
        json!([
            command("a"),
            command("b"),
            noop("after_a"),
            noop("after_b"),
            node("ask", "approve", Value::Null)
        ]),
        &["a after_a", "b after_b"],
    );
    flow.start(Value::Null);
    flow.fail("a");
    assert_eq!(flow.state(), RunState::Failing);
    assert_eq!(flow.nodes(&["a", "b", "after_a", "ask"]), [N::Failed, N::Running, N::Pending, N::Skipped]);
    flow.succeed("b", None);
    assert_eq!((flow.state(), flow.node("after_b")), (RunState::Failed, N::Skipped));
    let run = flow.world.state.run(flow.run).unwrap();
    assert!(run.reason.as_ref().unwrap().starts_with("node a: exited(1)"), "{:?}", run.reason);
}

#[test]
fn continue_goes_on_and_compensate_undoes_first() {
    let mut flow = Flow::of(
        json!([{"id": "a", "type": "command", "config": {"command": ["x"]}, "on_failure": "continue"}, noop("b")]),
        &["a b"],
    );
    flow.start(Value::Null);
    flow.fail("a");
    assert_eq!((flow.nodes(&["a", "b"]), flow.state()), (vec![N::Failed, N::Succeeded], RunState::Succeeded));

    let with_undo = |id: &str| json!({"id": id, "type": "command", "config": {"command": ["x"]}, "on_failure": "compensate", "compensation": "undo"});
    let mut flow =
        Flow::of(json!([with_undo("a"), with_undo("b"), noop("c"), command("undo")]), &["a c", "b c"]);
    flow.start(Value::Null);
    assert_eq!(flow.node("undo"), N::Pending);
    flow.fail("a");
    assert_eq!((flow.node("undo"), flow.state()), (N::Running, RunState::Failing));
    flow.fail("b");
    flow.succeed("undo", None);
    assert_eq!(
        (flow.nodes(&["c", "undo"]), flow.state()),
        (vec![N::Skipped, N::Succeeded], RunState::Failed)
    );
    assert_eq!(flow.row("undo").unwrap().tries, 1);
    let mut flow = Flow::of(json!([with_undo("a"), command("undo")]), &[]);
    flow.start(Value::Null);
    flow.succeed("a", None);
    assert_eq!((flow.node("undo"), flow.state()), (N::Skipped, RunState::Succeeded));
}

#[test]
fn a_job_node_fires_its_job_and_fires_it_again() {
    let job = json!({"id": "a", "type": "job", "config": {"jobId": "report"}, "max_retries": 1});
    let mut flow = Flow::of(json!([job, noop("b")]), &["a b"]);
    let report = flow.world.state.index().job_named(&"report".parse().unwrap()).unwrap();
    flow.start(Value::Null);
    // The job does nothing: its fire ends at once.
    assert_eq!((flow.fire("a").job, flow.state()), (report, RunState::Succeeded));
    let busy = novacron_common::spec::JobSpec {
        target: crate::world::command_target(),
        ..job_spec("report", "@yearly")
    };
    let record = flow.world.state.job(report).unwrap().clone();
    let pulse = *flow.world.state.pulse(report).unwrap();
    let update = novacron_core::command::JobUpdate::new(&record, &pulse, busy, flow.world.now);
    flow.world.ok(CommandBody::JobUpdate(Box::new(update)));
    flow.start(Value::Null);
    let first = flow.fire("a");
    flow.fail("a");
    assert_eq!((flow.node("a"), flow.state()), (N::Waiting, RunState::Running));
    flow.pass(2_000);
    assert_ne!(flow.fire("a"), first);
    flow.fail("a");
    assert_eq!((flow.node("a"), flow.state()), (N::Failed, RunState::Failed));
    // A job that is removed under a run takes its fire with it.
    flow.start(Value::Null);
    flow.world.ok(CommandBody::JobRemove { id: report });
    assert_eq!((flow.node("a"), flow.state()), (N::Failed, RunState::Failed));
}

#[test]
fn a_task_is_tried_again_by_its_fire() {
    let task = json!({"id": "a", "type": "command", "config": {"command": ["x"]}, "max_retries": 1});
    let mut flow = Flow::of(json!([task]), &[]);
    flow.start(Value::Null);
    let fire = flow.fire("a");
    flow.fail("a");
    assert_eq!((flow.node("a"), flow.fire("a")), (N::Running, fire));
    flow.pass(2_000);
    flow.succeed("a", Some("text"));
    assert_eq!((flow.state(), flow.row("a").unwrap().output.as_deref()), (RunState::Succeeded, Some("text")));
}

#[test]
fn a_map_works_on_a_few_items_at_a_time() {
    let map = node(
        "m",
        "map",
        json!({"items": "nodes.list.output", "parallelism": 2,
        "each": {"type": "command", "config": {"command": ["x", "{{ item.id }}", "{{ item_index }}"]}}}),
    );
    let sum = node("sum", "command", json!({"command": ["{{ nodes.m.output }}", "{{ nodes.m.output.1 }}"]}));
    let mut flow = Flow::of(json!([command("list"), map, sum]), &["list m", "m sum"]);
    flow.start(Value::Null);
    flow.succeed("list", Some(r#"[{"id": "a"}, {"id": "b"}, {"id": "c"}]"#));
    let item =
        |flow: &Flow, item| flow.world.state.node_run(NodeRef { item, ..flow.key("m") }).unwrap().clone();
    assert_eq!([1, 2, 3].map(|n| item(&flow, n).state), [N::Running, N::Running, N::Pending]);
    assert_eq!(flow.argv(item(&flow, 2).fire.unwrap()), ["x", "b", "1"]);
    for n in [2, 1, 3] {
        let fire = item(&flow, n).fire.unwrap();
        flow.finish(fire, AttemptOutcome::Exited(0), Some(&format!("{n}")));
    }
    assert_eq!(flow.argv(flow.fire("sum")), ["[1,2,3]", "2"]);
    flow.succeed("sum", None);
    assert_eq!(flow.state(), RunState::Succeeded);

    flow.start(Value::Null);
    flow.succeed("list", Some("[1, 2, 3]"));
    assert_eq!((flow.node("m"), flow.state()), (N::Failed, RunState::Failed), "1 has no id");
    flow.start(Value::Null);
    flow.succeed("list", Some("[]"));
    assert_eq!(flow.node("m"), N::Succeeded);
    flow.start(Value::Null);
    flow.succeed("list", Some("7"));
    assert!(flow.row("m").unwrap().reason.as_ref().unwrap().contains("no list"));
}

#[test]
fn an_item_that_fails_stops_the_map_unless_it_keeps_going() {
    for (on_item_failure, begun) in [("fail", 1), ("continue", 3)] {
        let map = node(
            "m",
            "map",
            json!({"items": [1, 2, 3], "parallelism": 1, "on_item_failure": on_item_failure,
            "each": {"type": "command", "config": {"command": ["x"]}}}),
        );
        let mut flow = Flow::of(json!([map]), &[]);
        flow.start(Value::Null);
        for n in 1..=begun {
            let key = NodeRef { item: n, ..flow.key("m") };
            let fire = flow.world.state.node_run(key).unwrap().fire.unwrap();
            flow.finish(fire, AttemptOutcome::Exited(1), None);
        }
        assert_eq!((flow.node("m"), flow.state()), (N::Failed, RunState::Failed));
        assert_eq!(flow.row("m").unwrap().map.unwrap().begun, begun, "{on_item_failure}");
    }
}

#[test]
fn waits_end_by_the_clock_and_approvals_by_a_person() {
    let mut flow = Flow::of(
        json!([node("w", "wait", json!({"duration": "5s"})),
               {"id": "ask", "type": "approve", "timeout": "1m", "config": {"message": "ship {{ run.input.v }}?", "approvers": ["boss"]}},
               node("done", "command", json!({"command": ["x", "{{ nodes.ask.output.by }}"]}))]),
        &["w ask", "ask done"],
    );
    flow.start(json!({"v": 2}));
    flow.pass(4_999);
    assert_eq!(flow.node("w"), N::Waiting);
    flow.pass(1);
    assert_eq!(flow.nodes(&["w", "ask"]), [N::Succeeded, N::AwaitingApproval]);
    assert_eq!(flow.row("ask").unwrap().reason.as_deref(), Some("ship 2?"));
    let decide = |flow: &Flow, by: &str, approved| {
        let (run, node) = (flow.run, flow.number("ask"));
        CommandBody::NodeDecide(NodeDecide { run, node, approved, by: by.into(), comment: "ok".into() })
    };
    let (stranger, boss) = (decide(&flow, "intern", true), decide(&flow, "boss", true));
    assert_eq!(flow.world.refused(stranger).code, ProblemCode::Forbidden);
    flow.world.ok(boss.clone());
    assert_eq!(flow.argv(flow.fire("done")), ["x", "boss"]);
    assert_eq!(flow.world.ok(boss), Applied::AlreadySo);
    flow.start(json!({"v": 2}));
    flow.pass(5_000);
    let no = decide(&flow, "boss", false);
    flow.world.ok(no);
    assert_eq!((flow.node("ask"), flow.state()), (N::Failed, RunState::Failed));
    flow.start(json!({"v": 2}));
    flow.pass(5_000);
    flow.pass(60_000);
    assert!(flow.row("ask").unwrap().reason.as_ref().unwrap().contains("in time"));
}

#[test]
fn cancel_ends_at_once_what_waits_and_within_its_grace_what_runs() {
    let nodes =
        json!([command("a"), command("b"), node("w", "wait", json!({"duration": "1h"})), noop("end")]);
    let mut flow = Flow::of(nodes, &["a end"]);
    flow.start(Value::Null);
    let (a, run) = (flow.fire("a"), flow.run);
    flow.place();
    flow.world.ok(CommandBody::RunCancel { run });
    assert_eq!(flow.nodes(&["a", "b", "w"]), [N::Running, N::Running, N::Cancelled]);
    assert!(flow.world.state.fire(a).unwrap().cancel_requested);
    flow.finish(a, AttemptOutcome::Killed, None);
    assert_eq!((flow.node("a"), flow.state()), (N::Cancelled, RunState::Cancelling));
    flow.pass(29_999);
    assert_eq!(flow.state(), RunState::Cancelling);
    flow.pass(1);
    assert_eq!(
        (flow.nodes(&["b", "end"]), flow.state()),
        (vec![N::Cancelled, N::Skipped], RunState::Cancelled)
    );
    assert!(flow.row("b").unwrap().reason.as_ref().unwrap().contains("still be running"));
    assert_eq!(flow.world.ok(CommandBody::RunCancel { run }), Applied::AlreadySo);
    // The late report of what was given up changes nothing any more.
    flow.succeed("b", None);
    assert_eq!(flow.node("b"), N::Cancelled);
}

#[test]
fn a_node_that_takes_too_long_fails() {
    let job = json!({"id": "m", "type": "map", "timeout": "10s",
        "config": {"items": [1], "each": {"type": "command", "config": {"command": ["x"]}}}});
    let mut flow = Flow::of(json!([job]), &[]);
    flow.start(Value::Null);
    flow.pass(10_000);
    assert_eq!((flow.node("m"), flow.state()), (N::Failed, RunState::Failed));
}

#[test]
fn a_retry_keeps_what_is_done() {
    let mut flow = Flow::of(
        json!([
            command("a"),
            node("b", "command", json!({"command": ["x", "{{ nodes.a.output }}"]})),
            noop("c"),
            command("d")
        ]),
        &["a b", "b c"],
    );
    let retry = |flow: &mut Flow, from: Option<&str>| {
        let from = from.map(|id| flow.number(id));
        let run = flow.run;
        flow.world.apply(CommandBody::RunRetry(RunRetry { run, from }))
    };
    flow.start(Value::Null);
    let run = flow.run;
    assert_eq!(refusal(retry(&mut flow, None)).code, ProblemCode::Conflict);
    flow.succeed("a", Some("kept"));
    flow.succeed("d", None);
    flow.fail("b");
    assert_eq!(flow.state(), RunState::Failed);
    assert_eq!(retry(&mut flow, None), Applied::RunStarted(run));
    assert_eq!(flow.nodes(&["a", "b", "d"]), [N::Succeeded, N::Running, N::Succeeded]);
    assert_eq!(flow.argv(flow.fire("b")), ["x", "kept"]);
    flow.succeed("b", None);
    assert_eq!(flow.state(), RunState::Succeeded);
    assert_eq!(refusal(retry(&mut flow, None)).code, ProblemCode::Conflict, "everything ended well");
    retry(&mut flow, Some("a")).accepted().unwrap();
    assert_eq!(flow.nodes(&["a", "b", "c", "d"]), [N::Running, N::Pending, N::Pending, N::Succeeded]);
    assert_eq!(flow.world.state.run(run).unwrap().retries, 2);
}

#[test]
fn a_run_keeps_the_definition_that_it_began_with() {
    let mut flow = Flow::of(json!([command("a"), noop("b")]), &["a b"]);
    flow.start(Value::Null);
    let record = flow.world.state.workflow(flow.id).unwrap().clone();
    let new = spec(json!({"name": "flow", "nodes": [noop("z")]}), JobId::from_u128(1));
    let update = WorkflowUpdate::new(&record, new, true, flow.world.now);
    flow.world.ok(CommandBody::WorkflowUpdate(Box::new(update.clone())));
    assert_eq!(flow.world.refused(CommandBody::WorkflowUpdate(Box::new(update))).code, ProblemCode::Conflict);
    let old = flow.run;
    assert_eq!(flow.world.state.workflow_nodes().len(), 3);
    flow.succeed("a", None);
    assert_eq!((flow.node("b"), flow.state()), (N::Succeeded, RunState::Succeeded));
    flow.start(Value::Null);
    assert_eq!(flow.node("z"), N::Succeeded);
    let (old, new) = (flow.world.state.run(old).unwrap(), flow.world.state.run(flow.run).unwrap());
    assert_eq!((old.version, new.version), (1, 2));
}

#[test]
fn runs_overlap_as_the_workflow_says() {
    let body =
        |concurrency: Value| json!({"name": "flow", "concurrency": concurrency, "nodes": [command("a")]});
    let again = |flow: &mut Flow| {
        let start = RunStart { id: RunId::from_u128(9 << 90), workflow: flow.id, input: String::new() };
        flow.world.apply(CommandBody::RunStart(Box::new(start)))
    };
    let mut flow = Flow::new(body(json!("forbid")));
    flow.start(Value::Null);
    assert_eq!(refusal(again(&mut flow)).code, ProblemCode::Conflict);

    let mut flow = Flow::new(body(json!({"queue": {"max": 1}})));
    let first = flow.start(Value::Null);
    let second = flow.start(Value::Null);
    assert_eq!(flow.state(), RunState::Queued);
    assert_eq!(refusal(again(&mut flow)).code, ProblemCode::Conflict, "one waits already");
    flow.advance();
    assert_eq!(flow.state(), RunState::Queued);
    flow.run = first;
    flow.succeed("a", None);
    flow.advance();
    assert_eq!(flow.world.state.run(second).unwrap().state, RunState::Running);

    let mut flow = Flow::new(body(json!("replace")));
    let first = flow.start(Value::Null);
    flow.place();
    let second = flow.start(Value::Null);
    assert_eq!(flow.world.state.run(first).unwrap().state, RunState::Cancelling);
    flow.pass(30_000);
    let states = [first, second].map(|run| flow.world.state.run(run).unwrap().state);
    assert_eq!(states, [RunState::Cancelled, RunState::Running]);
}

#[test]
fn only_so_many_runs_are_kept_and_a_removal_takes_all() {
    let mut flow = Flow::new(json!({"name": "flow", "runs_kept": 2, "nodes": [command("a")]}));
    for _ in 0..4 {
        flow.start(Value::Null);
        flow.succeed("a", None);
    }
    let forget = |flow: &mut Flow| {
        loop {
            let next = flow.world.state.index().workflows().forgotten().next();
            let Some(run) = next else { break };
            flow.world.ok(CommandBody::RunForget { run });
        }
    };
    forget(&mut flow);
    let state = &flow.world.state;
    assert_eq!((state.runs().len(), state.node_runs().len(), state.fires().len()), (2, 2, 2));
    flow.start(Value::Null);
    let id = flow.id;
    assert_eq!(flow.world.refused(CommandBody::WorkflowRemove { id }).code, ProblemCode::Conflict);
    flow.succeed("a", None);
    flow.world.ok(CommandBody::WorkflowRemove { id });
    assert_eq!(flow.world.refused(CommandBody::WorkflowRemove { id }).code, ProblemCode::NotFound);
    assert_eq!(flow.world.state.index().workflow_named(&"flow".parse().unwrap()), None);
    forget(&mut flow);
    let state = &flow.world.state;
    let left =
        (state.workflows().len(), state.workflow_nodes().len(), state.runs().len(), state.node_runs().len());
    assert_eq!((left, state.fires().len(), state.attempts().len()), ((0, 0, 0, 0), 0, 0));
}

#[test]
fn the_critical_path_is_the_chain_that_took_longest() {
    let mut flow = Flow::of(
        json!([command("a"), command("b"), command("c"), command("d")]),
        &["a b", "a c", "b d", "c d"],
    );
    flow.start(Value::Null);
    for (ms, id) in [(1_000, "a"), (2_000, "b"), (5_000, "c"), (1_000, "d")] {
        flow.pass(ms);
        flow.succeed(id, None);
    }
    let detail = views::run_detail(&flow.world.state, flow.world.state.run(flow.run).unwrap());
    let path = detail.critical_path;
    let steps: Vec<_> = path.steps.iter().map(|step| (step.id.as_str(), step.work_ms)).collect();
    assert_eq!(steps, [("a", 1_000), ("c", 7_000), ("d", 1_000)]);
    assert_eq!((path.work_ms, path.total_ms, path.overhead_ms), (9_000, 9_000, 0));
    assert_eq!(detail.edges.len(), edges(&["a b", "a c", "b d", "c d"]).as_array().unwrap().len());
}

#[test]
fn a_wide_run_begins_no_more_than_it_may() {
    let many: Vec<Value> = (0..2_500).map(|n| command(&format!("n{n}"))).collect();
    let mut flow = Flow::new(json!({"name": "flow", "max_parallel": 7, "nodes": many}));
    flow.start(Value::Null);
    flow.advance();
    let running = |flow: &Flow| views::run(&flow.world.state, flow.world.state.run(flow.run).unwrap()).nodes;
    assert_eq!((running(&flow).active, running(&flow).pending), (7, 2_493));
    flow.succeed("n0", None);
    assert_eq!((running(&flow).active, running(&flow).succeeded), (7, 1));
    // Far more than one command begins, and all of it instant.
    let many: Vec<Value> = (0..2_500).map(|n| noop(&format!("n{n}"))).collect();
    let mut flow = Flow::new(json!({"name": "flow", "nodes": many}));
    flow.start(Value::Null);
    assert_eq!((flow.state(), running(&flow).succeeded), (RunState::Running, 1_000));
    flow.advance();
    assert_eq!((flow.state(), running(&flow).succeeded), (RunState::Succeeded, 2_500));
}
