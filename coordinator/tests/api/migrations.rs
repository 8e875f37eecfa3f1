//! Moves through the API: the whole saga against fake agents.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use novacron_common::{
    api::{HostView, MigrationState, MigrationView, Page, TemplateView, VmView},
    ids::HostId,
    record::{MoveLimits, Strategy, VmState},
};
use serde_json::json;
use std::num::NonZeroU32;

/// Two hosts that know each other, and a machine that runs on the first.
pub async fn two_hosts(cluster: &TestCluster) -> (FakeAgent, FakeAgent, VmView) {
    let one = FakeAgent::join(cluster, "node-1").await;
    let two = FakeAgent::join(cluster, "node-2").await;
    one.introduce(&two);
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    let mut body = vm("web-1");
    body["host"] = json!("node-1");
    let made: VmView = cluster.post("/api/v1/vms", body).await.ok();
    assert_eq!(made.host, Some(one.host));
    until(cluster, "web-1", VmState::Running).await;
    (one, two, made)
}

async fn migration(cluster: &TestCluster, asked: &MigrationView) -> MigrationView {
    cluster.get(&format!("/api/v1/migrations/{}", asked.id)).await.ok()
}

pub async fn until_ended(cluster: &TestCluster, asked: &MigrationView) -> MigrationView {
    let ended = async || migration(cluster, asked).await.status.state.is_final();
    eventually("the migration ends", ended).await;
    migration(cluster, asked).await
}

async fn place(cluster: &TestCluster) -> (Option<HostId>, u64) {
    let vm: VmView = cluster.get("/api/v1/vms/web-1").await.ok();
    (vm.host, vm.epoch.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_moves_and_every_step_is_taken_once_in_order() {
    let cluster = TestCluster::start().await;
    let (one, two, made) = two_hosts(&cluster).await;
    let asked =
        cluster.post("/api/v1/vms/web-1/migrate", json!({ "target_host": "node-2", "live": true })).await;
    assert_eq!(asked.status.as_u16(), 202);
    let ended = until_ended(&cluster, &asked.ok()).await;
    assert_eq!(ended.status.state, MigrationState::Completed, "{ended:?}");
    assert_eq!((ended.source_host, ended.target_host, ended.iteration), (one.host, two.host, 2));
    let memory = ended.memory;
    assert_eq!((ended.memory_bytes, memory.wire_bytes, memory.written_bytes), (40, 40, 9000));
    assert_eq!((memory.zero.pages, memory.raw.pages), (5, 0), "what the source reports, by kind");
    let metrics = cluster.get("/api/v1/metrics").await.body;
    for line in [
        r#"novacron_migration_memory_pages{kind="zero"} 5"#,
        r#"novacron_migration_memory_bytes{kind="written"} 9000"#,
        r#"novacron_migration_memory_bytes{kind="wire"} 40"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in:\n{metrics}");
    }
    assert_eq!(place(&cluster).await, (Some(two.host), made.epoch.0 + 1));
    until(&cluster, "web-1", VmState::Running).await;
    let steps = |log: Vec<String>, of: &[&str]| -> Vec<String> {
        log.into_iter().filter(|entry| of.contains(&entry.as_str())).collect()
    };
    assert_eq!(steps(two.log(), &["prepare", "resume", "discard"]), ["prepare", "resume"]);
    assert_eq!(steps(one.log(), &["start", "release", "cancel"]), ["start", "release"]);
    assert_eq!(one.vm(made.id), None);
    // The room that was kept on the source is free again.
    let source: HostView = cluster.get("/api/v1/hosts/node-1").await.ok();
    assert_eq!((source.vms, source.memory_reserved.0), (0, 0));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_reach_the_source_and_are_shown_and_contradictions_begin_nothing() {
    let cluster = TestCluster::start().await;
    let (one, _two, _) = two_hosts(&cluster).await;
    let path = "/api/v1/vms/web-1/migrate";
    for (body, field) in [
        (json!({ "live": false, "max_downtime_ms": 5 }), "max_downtime_ms"),
        (json!({ "strategy": "precopy", "max_slowdown_pct": 9 }), "max_slowdown_pct"),
        (json!({ "max_slowdown_pct": 100 }), "max_slowdown_pct"),
        (json!({ "deadline": "soon" }), "deadline"),
        (json!({ "bandwidth_mbit": 0 }), "bandwidth_mbit"),
        (json!({ "strategy": "magic" }), ""),
    ] {
        cluster.post(path, body).await.problem(400, "invalid_request", field);
    }
    let none: Page<MigrationView> = cluster.get("/api/v1/migrations").await.ok();
    assert_eq!(none.items, []);
    let body = json!({ "max_downtime_ms": "2s", "max_slowdown_pct": 30, "deadline": 60000, "bandwidth_mbit": 9, "verify_disk": true });
    let asked: MigrationView = cluster.post(path, body).await.ok();
    let limits = MoveLimits {
        strategy: Strategy::Auto,
        max_downtime_ms: Some(2000),
        max_slowdown_pct: 30,
        deadline_ms: Some(60_000),
        bandwidth_mbit: NonZeroU32::new(9),
        verify_disk: true,
    };
    let ended = until_ended(&cluster, &asked).await;
    assert_eq!((asked.limits, ended.limits, ended.status.state), (limits, limits, MigrationState::Completed));
    assert!(one.log().contains(&format!("{limits:?}")), "{:?}", one.log());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_target_the_placement_chooses_and_says_why() {
    let cluster = TestCluster::start().await;
    let (_one, two, _) = two_hosts(&cluster).await;
    let asked: MigrationView = cluster.post("/api/v1/vms/web-1/migrate", json!({})).await.ok();
    assert_eq!(asked.target_host, two.host);
    assert!(asked.placement.as_ref().is_some_and(|why| why.contains("node-1")), "{asked:?}");
    assert_eq!(until_ended(&cluster, &asked).await.status.state, MigrationState::Completed);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_move_leaves_the_machine_where_it_was() {
    let cluster = TestCluster::start().await;
    let (one, two, made) = two_hosts(&cluster).await;
    two.hold_inbound();
    let asked: MigrationView =
        cluster.post("/api/v1/vms/web-1/migrate", json!({ "target_node": "node-2" })).await.ok();
    eventually("the target prepares", async || {
        migration(&cluster, &asked).await.status.state == MigrationState::Preparing
    })
    .await;

    let twice = cluster.post("/api/v1/vms/web-1/migrate", json!({ "target_host": "node-2" })).await;
    twice.problem(409, "conflict", "");
    let path = format!("/api/v1/migrations/{}/cancel", asked.id);
    assert_eq!(cluster.post_text(&path, "").await.status.as_u16(), 202);
    let ended = until_ended(&cluster, &asked).await;
    assert_eq!(ended.status.state, MigrationState::Cancelled, "{ended:?}");
    assert_eq!(place(&cluster).await, (Some(one.host), made.epoch.0));
    assert!(two.log().iter().any(|step| step == "discard"));
    assert!(!one.log().iter().any(|step| step == "start"));
    until(&cluster, "web-1", VmState::Running).await;
    cluster.stop().await;
}
