//! What is taken, and what is refused by name.

use super::*;
use crate::{
    ids::JobId,
    spec::{Faults, workflow::WorkflowSpec},
};
use serde_json::{Value, json};

fn check(body: Value) -> Result<WorkflowSpec, Faults> {
    let known = JobId::from_u128(7);
    let body: WorkflowCreate = serde_json::from_value(body).expect("a body of the right shape");
    body.check(&|name| (name == "extract-job").then_some(known))
}

fn node(id: &str, node_type: &str, config: Value) -> Value {
    json!({"id": id, "type": node_type, "config": config})
}

fn noop(id: &str) -> Value {
    node(id, "noop", Value::Null)
}

#[test]
fn the_documented_body_is_taken_as_it_stands() {
    let body = json!({
        "name": "data-pipeline",
        "description": "Daily data processing workflow",
        "nodes": [
            {"id": "extract", "name": "Extract Data", "type": "job", "config": {"jobId": "extract-job"}},
            {"id": "transform", "name": "Transform Data", "type": "job",
             "config": {"jobId": "job-00000000000000000000000000000009"}}
        ],
        "edges": [{"from": "extract", "to": "transform"}],
        "enabled": true
    });
    let spec = check(body).unwrap();
    assert_eq!(spec.nodes[0].kind.job(), Some(JobId::from_u128(7)));
    assert_eq!(spec.nodes[1].kind.job(), Some(JobId::from_u128(9)));
    assert_eq!(spec.graph().after(0), [1]);
}

/// Every type, and everything that it may say.
fn full() -> Value {
    json!({
        "name": "full",
        "schedule": "0 2 * * *", "timezone": "Europe/Berlin", "concurrency": {"queue": {"max": 3}},
        "max_parallel": 4, "runs_kept": 7, "misfire": {"policy": "none"}, "dst": {"gap": "skip"},
        "nodes": [
            node("list", "command", json!({"command": ["ls", "{{ run.input.folder }}"], "env": {"A": "{{ run.id }}"}})),
            {"id": "each", "type": "map", "timeout": "5m", "on_failure": "compensate", "compensation": "undo",
             "config": {"items": "{{ nodes.list.output.files }}", "parallelism": 2, "on_item_failure": "continue",
                        "each": {"type": "http", "config": {"url": "https://x/{{ item.id }}?n={{ item_index }}"}}}},
            node("few", "map", json!({"items": [1, "b"], "each": {"type": "job", "config": {"jobId": "extract-job"}}})),
            {"id": "big", "type": "condition", "max_retries": 0, "config": {"if": "nodes.list.output.n > 3"}},
            node("pause", "wait", json!({"duration": "5s"})),
            node("later", "wait", json!({"until": "{{ run.input.at }}"})),
            node("then", "wait", json!({"until": "2027-01-01T00:00:00Z"})),
            {"id": "ok", "type": "approve", "on_failure": "continue",
             "config": {"message": "ship {{ nodes.list.output.n }}?", "approvers": ["boss"]}},
            node("move", "vm", json!({"vm": "{{ run.input.vm }}", "verb": "migrate", "live": true})),
            node("inside", "vm_command", json!({"vm": "db", "command": ["sync"]})),
            node("undo", "command", json!({"command": ["undo", "{{ nodes.list.output.n }}"]})),
        ],
        "edges": [
            {"from": "list", "to": "each"}, {"from": "list", "to": "big"}, {"from": "big", "to": "ok"},
            {"from": "big", "to": "pause", "when": false}
        ]
    })
}

#[test]
fn what_is_taken_is_shown_so_that_it_is_taken_again() {
    let spec = check(full()).unwrap();
    let again = WorkflowCreate::from(&spec).check(&|_| None).unwrap();
    assert_eq!(again, spec);
    let renamed = WorkflowUpdate { name: Some("other".into()), ..WorkflowUpdate::default() };
    let renamed = renamed.apply_to(&spec, &|_| None).unwrap();
    assert_eq!((renamed.head.name.as_str(), &renamed.nodes), ("other", &spec.nodes));
    let unscheduled = WorkflowUpdate { schedule: Some(String::new()), ..WorkflowUpdate::default() };
    assert_eq!(unscheduled.apply_to(&spec, &|_| None).unwrap().head.trigger, None);
}

#[test]
fn every_bad_graph_is_refused_by_name() {
    let edges = |list: &[(&str, &str)]| {
        Value::Array(list.iter().map(|(from, to)| json!({"from": from, "to": to})).collect())
    };
    let abc = json!([noop("a"), noop("b"), noop("c")]);
    let many: Vec<Value> = (0..10_000).map(|n| noop(&format!("n{n}"))).collect();
    let dense: Vec<Value> = (0..20_001).map(|_| json!({"from": "a", "to": "b"})).collect();
    let undone = |undo: &str| json!([noop("b"), {"id": "a", "type": "noop", "on_failure": "compensate", "compensation": undo}]);
    let table = [
        (abc.clone(), edges(&[("a", "b"), ("b", "c"), ("c", "a")]), "edges", "cycle: "),
        (abc.clone(), edges(&[("a", "a")]), "edges", "cycle: a → a"),
        (abc.clone(), edges(&[("a", "x")]), "edges[0].to", "no node \"x\""),
        (abc.clone(), edges(&[("x", "a")]), "edges[0].from", "no node \"x\""),
        (abc.clone(), edges(&[("a", "b"), ("a", "b")]), "edges[1]", "second time"),
        (abc.clone(), json!([{"from": "a", "to": "b", "when": false}]), "edges[0].when", "condition"),
        (abc, Value::Array(dense), "edges", "at most 20000"),
        (json!([noop("a"), noop("a")]), json!([]), "nodes[1].id", "nodes[0]"),
        (json!([noop("a.b")]), json!([]), "nodes[0].id", "'.'"),
        (json!([noop(&"x".repeat(64))]), json!([]), "nodes[0].id", "64 characters"),
        (json!([]), json!([]), "nodes", "at least one"),
        (Value::Array(many), json!([]), "nodes", "10000: a workflow has at most 5000"),
        (undone("x"), json!([]), "nodes[1].compensation", "no node \"x\""),
        (undone("a"), json!([]), "nodes[1].compensation", "itself"),
        (undone("b"), edges(&[("b", "a")]), "nodes[1].compensation", "no edge"),
    ];
    for (nodes, edges, field, reason) in table {
        let faults = check(json!({"name": "w", "nodes": nodes, "edges": edges})).unwrap_err();
        let found = faults.0.iter().any(|f| f.field == field && f.reason.contains(reason));
        assert!(found, "{field}: {reason} is not among {:?}", &faults.0[..faults.0.len().min(3)]);
    }
}

#[test]
fn every_bad_node_is_refused_by_name() {
    let huge = "x".repeat(40_000);
    let items: Vec<u32> = (0..1001).collect();
    let table = [
        (node("a", "job", json!({"jobId": "nobody"})), "nodes[0].config.jobId", "no job \"nobody\""),
        (node("a", "job", json!({})), "nodes[0].config", "jobId"),
        (node("a", "command", json!({"command": []})), "nodes[0].config.command", "no program"),
        (node("a", "command", json!({"command": [huge]})), "nodes[0].config.command", "bytes"),
        (node("a", "command", json!({"command": ["x"], "shell": true})), "nodes[0].config", "shell"),
        (node("a", "command", json!(["x"])), "nodes[0].config", "object"),
        (node("a", "noop", json!({"x": 1})), "nodes[0].config", "empty"),
        (node("a", "vm", json!({"vm": "v", "verb": "snapshot"})), "nodes[0].config.verb", "snapshot"),
        (node("a", "http", json!({"url": "gopher://x"})), "nodes[0].config.url", "http://"),
        (node("a", "wait", json!({})), "nodes[0].config", "either duration or until"),
        (node("a", "wait", json!({"until": "tomorrow"})), "nodes[0].config.until", "RFC 3339"),
        (node("a", "wait", json!({"duration": "99999d"})), "nodes[0].config.duration", "ten years"),
        (node("a", "condition", json!({"if": "1 +"})), "nodes[0].config.if", "expected"),
        (node("a", "condition", json!({"if": "nodes.b.output"})), "nodes[0].config", "no node b"),
        (
            node("a", "command", json!({"command": ["{{ nodes.a.output }}"]})),
            "nodes[0].config",
            "lead an edge",
        ),
        (node("a", "command", json!({"command": ["{{ item }}"]})), "nodes[0].config", "map"),
        (
            node("a", "command", json!({"command": ["{{ secrets.x }}"]})),
            "nodes[0].config",
            "refers to nothing",
        ),
        (
            node("a", "map", json!({"items": items, "each": {"type": "noop"}})),
            "nodes[0].config.items",
            "at most 1000",
        ),
        (node("a", "map", json!({"items": 7, "each": {"type": "noop"}})), "nodes[0].config.items", "a list"),
        (
            node("a", "map", json!({"items": [], "each": {"type": "wait"}})),
            "nodes[0].config.each.config",
            "for each item",
        ),
        (
            node("a", "map", json!({"items": [], "parallelism": 0, "each": {"type": "noop"}})),
            "nodes[0].config.parallelism",
            "1 to 100",
        ),
        (json!({"id": "a", "type": "noop", "timeout": 0}), "nodes[0].timeout", "milliseconds"),
        (json!({"id": "a", "type": "noop", "compensation": "b"}), "nodes[0].compensation", "compensate only"),
    ];
    for (body, field, reason) in table {
        let faults = check(json!({"name": "w", "nodes": [body]})).unwrap_err();
        let found = faults.0.iter().any(|f| f.field == field && f.reason.contains(reason));
        assert!(found, "{field}: {reason} is not among {faults}");
    }
}

#[test]
fn thousands_of_faults_are_not_all_listed() {
    let nodes: Vec<Value> = (0..4000).map(|n| node(&format!("n{n}"), "job", json!({"jobId": "x"}))).collect();
    let faults = check(json!({"name": "w", "nodes": nodes})).unwrap_err();
    assert_eq!(faults.0.len(), 51);
    assert!(faults.0[50].reason.contains("3950 more"));
}
