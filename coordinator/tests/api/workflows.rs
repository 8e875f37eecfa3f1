//! Workflows through the API: runs that end, wait for people, are cancelled, retried, and survive their coordinators.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    replicas::{leads, three},
};
use novacron_common::api::{
    JobView, NodeRunState, NodeRunView, Page, RunAccepted, RunDetail, RunState, RunView, WorkflowView,
};
use serde_json::{Value, json};

fn command(id: &str, argv: Value) -> Value {
    json!({ "id": id, "type": "command", "config": { "command": argv } })
}

async fn make(cluster: &TestCluster, body: Value) -> WorkflowView {
    cluster.post("/api/v1/workflows", body).await.ok()
}

async fn execute(cluster: &TestCluster, workflow: &str, input: Value) -> String {
    let path = format!("/api/v1/workflows/{workflow}/execute");
    let accepted: RunAccepted = cluster.post(&path, json!({ "input": input })).await.ok();
    format!("/api/v1/workflows/{workflow}/runs/{}", accepted.run)
}

async fn detail(cluster: &TestCluster, run: &str) -> RunDetail {
    cluster.get(run).await.ok()
}

async fn until(cluster: &TestCluster, run: &str, state: RunState) -> RunDetail {
    let reached = async || detail(cluster, run).await.run.state == state;
    eventually(&format!("the run is {state:?}"), reached).await;
    detail(cluster, run).await
}

fn node(detail: &RunDetail, id: &str) -> NodeRunState {
    detail.node_runs.iter().find(|node| node.id == id).expect("a node of this id").state
}

async fn until_node(cluster: &TestCluster, run: &str, id: &str, state: NodeRunState) {
    let reached = async || node(&detail(cluster, run).await, id) == state;
    eventually(&format!("{id} is {state:?}"), reached).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_workflow_is_taken_as_it_stands_run_changed_and_deleted() {
    let cluster = TestCluster::start().await;
    let job: JobView =
        cluster.post("/api/jobs", json!({ "name": "extract-job", "schedule": "@yearly" })).await.ok();
    // features.md 8.6, as it stands.
    let body = json!({
        "name": "data-pipeline", "description": "Daily data processing workflow",
        "nodes": [
            { "id": "extract", "name": "Extract Data", "type": "job", "config": { "jobId": job.id } },
            { "id": "transform", "name": "Transform Data", "type": "job", "config": { "jobId": "extract-job" } }
        ],
        "edges": [{ "from": "extract", "to": "transform" }],
        "enabled": true
    });
    let answer = cluster.post("/api/workflows", body).await;
    assert_eq!(answer.status.as_u16(), 201);
    let made: WorkflowView = answer.ok();
    assert_eq!((made.node_count, made.edges.as_ref().unwrap().len(), made.version), (2, 1, 1));
    let answer = cluster.post_text("/api/workflows/data-pipeline/execute", "").await;
    assert_eq!(answer.status.as_u16(), 202);
    let run = format!("/api/v1/workflows/{}/runs/{}", made.id, answer.ok::<RunAccepted>().run);
    let ended = until(&cluster, &run, RunState::Succeeded).await;
    assert_eq!((ended.run.nodes.succeeded, ended.critical_path.steps.len()), (2, 2));

    let renamed: WorkflowView = cluster
        .put(&format!("/api/v1/workflows/{}", made.id), json!({ "name": "etl", "enabled": false }))
        .await
        .ok();
    assert_eq!((renamed.name.as_str(), renamed.enabled, renamed.nodes), ("etl", false, made.nodes));
    cluster.post_text("/api/v1/workflows/etl/execute", "").await.problem(409, "conflict", "");
    let reshaped = json!({ "nodes": [{ "id": "only", "type": "noop" }], "edges": [], "enabled": true });
    let reshaped: WorkflowView = cluster.put("/api/v1/workflows/etl", reshaped).await.ok();
    assert_eq!((reshaped.version, reshaped.node_count), (2, 1));
    assert_eq!(detail(&cluster, &run).await.node_runs.len(), 2, "the run keeps its definition");
    let list: Page<WorkflowView> = cluster.get("/api/workflows").await.ok();
    assert_eq!((list.items.len(), list.items[0].nodes.is_none()), (1, true));
    let again = execute(&cluster, "etl", Value::Null).await;
    until(&cluster, &again, RunState::Succeeded).await;
    let runs: Page<RunView> = cluster.get("/api/v1/workflows/etl/runs?limit=1").await.ok();
    assert_eq!((runs.items[0].version, runs.next_cursor.is_some()), (2, true));
    let metrics = cluster.get("/api/v1/metrics").await.body;
    assert!(metrics.contains("novacron_workflow_runs{state=\"succeeded\"} 2"), "{metrics}");

    assert_eq!(cluster.delete("/api/workflows/etl").await.status.as_u16(), 204);
    cluster.get("/api/v1/workflows/etl").await.problem(404, "not_found", "");
    let rows = async || {
        let tables = cluster.snapshot();
        !tables.iter().any(|(table, ..)| table.name().contains("workflow") || table.name().contains("run"))
    };
    eventually("its runs are forgotten", rows).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_choose_the_way_and_a_person_has_a_say() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    make(&cluster, json!({
        "name": "nightly",
        "nodes": [
            command("count", json!(["result", "{\"n\": 3, \"parts\": [\"a\", \"b\", \"c\"]}"])),
            { "id": "many", "type": "condition", "config": { "if": "nodes.count.output.n > 2" } },
            { "id": "few", "type": "noop" },
            { "id": "ask", "type": "approve", "config": { "message": "{{ nodes.count.output.n }} parts?" } },
            { "id": "parts", "type": "map", "config": { "items": "nodes.count.output.parts", "parallelism": 2,
              "each": { "type": "command", "config": { "command": ["result", "{{ run.input.mode }} {{ item }}"] } } } },
            command("last", json!(["result", "{{ nodes.parts.output.2 }}"])),
            { "id": "pause", "type": "wait", "config": { "duration": "50ms" } }
        ],
        "edges": [{ "from": "count", "to": "many" }, { "from": "many", "to": "ask" },
                  { "from": "many", "to": "few", "when": false }, { "from": "ask", "to": "parts" },
                  { "from": "parts", "to": "last" }, { "from": "last", "to": "pause" }]
    }))
    .await;
    let run = execute(&cluster, "nightly", json!({ "mode": "full" })).await;
    until_node(&cluster, &run, "ask", NodeRunState::AwaitingApproval).await;
    let asked: NodeRunView = cluster.get(&format!("{run}/nodes/ask")).await.ok();
    assert_eq!(asked.reason.as_deref(), Some("3 parts?"));
    cluster.post_text(&format!("{run}/nodes/many/approve"), "").await.problem(409, "conflict", "");
    let approve = json!({ "comment": "go on" });
    cluster.post(&format!("{run}/nodes/ask/approve"), approve).await.ok::<NodeRunView>();
    let ended = until(&cluster, &run, RunState::Succeeded).await;
    assert_eq!(node(&ended, "few"), NodeRunState::Skipped);
    let last: NodeRunView = cluster.get(&format!("{run}/nodes/last")).await.ok();
    assert_eq!(last.output, Some(json!("full c")));
    let items: Page<NodeRunView> = cluster.get(&format!("{run}/nodes/parts/items")).await.ok();
    assert_eq!((items.items.len(), items.items[1].output.clone()), (3, Some(json!("full b"))));
    assert_eq!(agent.attempts(), 5, "one attempt a command");
    let steps: Vec<_> = ended.critical_path.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(steps, ["count", "many", "ask", "parts", "last", "pause"]);
    assert!(ended.critical_path.total_ms >= 50);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_fails_is_retried_and_another_is_cancelled() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    make(&cluster, json!({
        "name": "flaky",
        "nodes": [command("good", json!(["result", "1"])), command("bad", json!(["{{ run.input.verb }}"]))],
        "edges": [{ "from": "good", "to": "bad" }]
    }))
    .await;
    let run = execute(&cluster, "flaky", json!({ "verb": "fail" })).await;
    let failed = until(&cluster, &run, RunState::Failed).await;
    assert!(failed.run.reason.unwrap().starts_with("node bad: exited(1)"));
    let attempts = agent.attempts();
    cluster.post(&format!("{run}/retry"), json!({ "from": "nobody" })).await.problem(404, "not_found", "");
    cluster.post_text(&format!("{run}/retry"), "").await.ok::<RunAccepted>();
    until(&cluster, &run, RunState::Failed).await;
    eventually("one node was tried again", async || agent.attempts() == attempts + 1).await;
    until(&cluster, &run, RunState::Failed).await;
    assert_eq!(detail(&cluster, &run).await.run.retries, 1);
    cluster.post_text(&format!("{run}/cancel"), "").await.problem(409, "conflict", "");

    make(
        &cluster,
        json!({ "name": "slow", "nodes": [
        { "id": "wait", "type": "wait", "config": { "duration": "1h" } }, { "id": "end", "type": "noop" }],
        "edges": [{ "from": "wait", "to": "end" }] }),
    )
    .await;
    let run = execute(&cluster, "slow", Value::Null).await;
    cluster.delete("/api/v1/workflows/slow").await.problem(409, "conflict", "");
    let cancelled: RunDetail = cluster.post_text(&format!("{run}/cancel"), "").await.ok();
    assert_eq!(cancelled.run.state, RunState::Cancelled);
    assert_eq!(
        (node(&cancelled, "wait"), node(&cancelled, "end")),
        (NodeRunState::Cancelled, NodeRunState::Skipped)
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_runs_by_its_own_schedule() {
    let cluster = TestCluster::start().await;
    make(
        &cluster,
        json!({ "name": "tick", "schedule": "* * * * * *", "nodes": [{ "id": "a", "type": "noop" }] }),
    )
    .await;
    let runs = async || cluster.get("/api/v1/workflows/tick/runs").await.ok::<Page<RunView>>().items;
    eventually("it ran three times", async || runs().await.len() >= 3).await;
    let all = runs().await;
    for pair in all.windows(2) {
        assert_eq!(pair[0].scheduled_at.0 - pair[1].scheduled_at.0, 1000, "none lost or doubled");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_prints_is_followed_and_kept() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    agent.hold_attempts();
    let job = json!({ "name": "talk", "schedule": "@yearly",
                      "target": { "type": "command", "command": ["/bin/date"] } });
    cluster.post("/api/v1/jobs", job).await.ok::<JobView>();
    make(&cluster, json!({
        "name": "chatty",
        "nodes": [command("say", json!(["/bin/date"])), { "id": "pause", "type": "wait", "config": { "duration": "1ms" } },
                  { "id": "again", "type": "job", "config": { "jobId": "talk" } },
                  { "id": "each", "type": "map", "config": { "items": ["a", "b"],
                    "each": { "type": "command", "config": { "command": ["say", "{{ item }}"] } } } }],
        "edges": [{ "from": "say", "to": "pause" }, { "from": "pause", "to": "again" }, { "from": "again", "to": "each" }]
    }))
    .await;
    let run = execute(&cluster, "chatty", Value::Null).await;
    let logs = |node: &str, query: &str| format!("{run}/nodes/{node}/logs{query}");
    cluster.get(&logs("again", "")).await.problem(404, "not_found", "");
    eventually("it runs", async || agent.attempts() == 1).await;
    let followed = cluster.get(&logs("say", "?follow=true")).await;
    assert_eq!(followed.status.as_u16(), 200);
    assert!(followed.body.starts_with("hello from host"), "{}", followed.body);
    until(&cluster, &run, RunState::Succeeded).await;
    for (node, query) in [("say", ""), ("say", "?attempt=1"), ("again", ""), ("each", "?item=1&follow=true")]
    {
        assert_eq!(cluster.get(&logs(node, query)).await.body, followed.body, "{node}{query}");
    }
    cluster.get(&logs("pause", "")).await.problem(404, "not_found", "");
    cluster.get(&logs("say", "?attempt=2")).await.problem(404, "not_found", "");
    cluster.get(&logs("each", "?item=2")).await.problem(404, "not_found", "");
    cluster.get(&logs("nobody", "")).await.problem(404, "not_found", "");
    cluster.get(&logs("each", "")).await.problem(400, "invalid_request", "item");
    cluster.stop().await;
}

fn survivor() -> Value {
    json!({
        "name": "survivor",
        "nodes": [command("before", json!(["result", "\"kept\""])), { "id": "ask", "type": "approve" },
                  { "id": "pause", "type": "wait", "config": { "duration": "20ms" } },
                  command("after", json!(["result", "{{ nodes.before.output }}"]))],
        "edges": [{ "from": "before", "to": "ask" }, { "from": "ask", "to": "pause" }, { "from": "pause", "to": "after" }]
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_after_a_restart_of_everything() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    make(&cluster, survivor()).await;
    let run = execute(&cluster, "survivor", Value::Null).await;
    until_node(&cluster, &run, "ask", NodeRunState::AwaitingApproval).await;
    let before = detail(&cluster, &run).await;
    let cluster = cluster.restart().await;
    assert_eq!(detail(&cluster, &run).await, before);
    cluster.post_text(&format!("{run}/nodes/ask/approve"), "").await.ok::<NodeRunView>();
    until(&cluster, &run, RunState::Succeeded).await;
    let after: NodeRunView = cluster.get(&format!("{run}/nodes/after")).await.ok();
    assert_eq!((after.output, agent.attempts()), (Some(json!("kept")), 2));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_when_the_leader_is_lost() {
    let mut all = three().await;
    let leader = all.pop().unwrap();
    let _agent = FakeAgent::join(&all[0], "host-1").await;
    make(&all[0], survivor()).await;
    let run = execute(&all[1], "survivor", Value::Null).await;
    until_node(&all[0], &run, "ask", NodeRunState::AwaitingApproval).await;
    leader.stop().await;
    eventually("another leads", async || leads(&all[0]).await || leads(&all[1]).await).await;
    let approved =
        async || all[1].post_text(&format!("{run}/nodes/ask/approve"), "").await.status.is_success();
    eventually("the new leader takes the approval", approved).await;
    let ended = until(&all[0], &run, RunState::Succeeded).await;
    assert!(ended.node_runs.iter().all(|node| node.state == NodeRunState::Succeeded && node.tries == 1));
    for replica in all {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_workflows_are_refused_by_field_and_change_nothing() {
    let cluster = TestCluster::start().await;
    let noop = |id: &str| json!({ "id": id, "type": "noop" });
    let ab = json!([noop("a"), noop("b")]);
    let ring = json!([{ "from": "a", "to": "b" }, { "from": "b", "to": "a" }]);
    let many: Vec<Value> = (0..10_000).map(|n| noop(&format!("n{n}"))).collect();
    let unknown = "job-00000000000000000000000000000001";
    let job = |id: &str| json!({ "id": "j", "type": "job", "config": { "jobId": id } });
    let table = [
        (json!({ "name": "w", "nodes": ab, "edges": ring }), "edges", "a → b"),
        (
            json!({ "name": "w", "nodes": ab, "edges": [{ "from": "a", "to": "x" }] }),
            "edges[0].to",
            "there is no node",
        ),
        (json!({ "name": "w", "nodes": [noop("a"), noop("a")] }), "nodes[1].id", "already"),
        (json!({ "name": "w", "nodes": [job("nobody")] }), "nodes[0].config.jobId", "nobody"),
        (json!({ "name": "w", "nodes": [job(unknown)] }), "nodes[0].config.jobId", unknown),
        (json!({ "name": "w", "nodes": many }), "nodes", "at most 5000"),
        (json!({ "name": "w w", "nodes": ab }), "name", "' '"),
        (json!({ "name": "w", "nodes": ab, "schedule": "whenever" }), "schedule", ""),
        (json!({ "name": "w", "nodes": [{ "id": "a", "type": "nop" }] }), "nodes[0].type", "noop"),
        (
            json!({ "name": "w", "nodes": [{ "id": "a", "type": "noop", "confg": {} }] }),
            "nodes[0].confg",
            "config",
        ),
        (
            json!({ "name": "w", "nodes": [command("a", json!(["{{ nodes.b.output }}"]))] }),
            "nodes[0].config",
            "no node b",
        ),
    ];
    let before = cluster.snapshot();
    for (body, field, reason) in table {
        let problem = cluster.post("/api/v1/workflows", body).await.problem(400, "invalid_request", field);
        let text = format!("{problem:?}");
        assert!(text.contains(reason), "{field}: {reason} is not in {text}");
    }
    let huge = json!({ "name": "w", "nodes": [command("a", json!(["x".repeat(2 << 20)]))] });
    cluster.post("/api/v1/workflows", huge).await.problem(413, "too_large", "");
    assert!(cluster.snapshot() == before, "a refused workflow changed something");

    make(&cluster, json!({ "name": "good", "nodes": ab })).await;
    let big = json!({ "input": "x".repeat(40_000) });
    cluster.post("/api/v1/workflows/good/execute", big).await.problem(413, "too_large", "input");
    cluster.get("/api/v1/workflows/good/runs/run-0").await.problem(404, "not_found", "");
    cluster.get("/api/v1/workflows/nobody/runs").await.problem(404, "not_found", "");
    cluster.stop().await;
}
