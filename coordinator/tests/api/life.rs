//! What can be asked of a machine that runs: to be held and to run on, and what it prints.

use crate::{cluster::TestCluster, machines::until, migrations::two_hosts};
use novacron_common::{
    api::{VmStats, VmView},
    record::VmState,
    units::{ByteCount, UnixMillis},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_machine_is_neither_started_nor_moved_until_it_is_resumed() {
    let cluster = TestCluster::start().await;
    let (one, _two, _made) = two_hosts(&cluster).await;
    let verb = async |verb: &str| cluster.post_text(&format!("/api/v1/vms/web-1/{verb}"), "").await;
    verb("pause").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Paused).await;

    let said = verb("start").await.problem(409, "conflict", "");
    assert!(said.cause.contains("paused"), "{said:?}");
    for live in [true, false] {
        let move_it = json!({ "target_host": "node-2", "live": live });
        let said = cluster.post("/api/v1/vms/web-1/migrate", move_it).await.problem(409, "conflict", "");
        assert!(said.cause.contains("paused"), "{said:?}");
    }
    verb("resume").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;

    // A restart is one of a paused machine, too.
    verb("pause").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Paused).await;
    verb("restart").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    let log = one.log();
    // Behind the restart comes the wish that the machine runs.
    let asked: Vec<_> = log.iter().map(String::as_str).filter(|word| !word.contains(' ')).take(4).collect();
    assert_eq!(asked, ["Run", "Pause", "Resume", "Pause"], "{log:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_saved_on_its_host_and_restored_there() {
    let cluster = TestCluster::start().await;
    let (one, _two, _made) = two_hosts(&cluster).await;
    let verb =
        async |verb: &str, body: &str| cluster.post_text(&format!("/api/v1/vms/web-1/{verb}"), body).await;
    verb("checkpoint", r#"{"leave_running": true}"#).await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    verb("checkpoint", "").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Paused).await;
    let said = verb("start", "").await.problem(409, "conflict", "");
    assert!(said.cause.contains("paused"), "{said:?}");
    verb("restore", "").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    let log = one.log();
    let asked: Vec<_> =
        log.iter().filter(|word| word.starts_with("Checkpoint") || *word == "Restore").collect();
    assert_eq!(
        asked,
        ["Checkpoint { leave_running: true }", "Checkpoint { leave_running: false }", "Restore"],
        "{log:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_not_there_is_neither_held_nor_looked_at() {
    let cluster = TestCluster::start().await;
    for verb in ["pause", "resume", "checkpoint", "restore"] {
        cluster.post_text(&format!("/api/v1/vms/none/{verb}"), "").await.problem(404, "not_found", "");
    }
    for what in ["logs", "stats"] {
        cluster.get(&format!("/api/v1/vms/none/{what}")).await.problem(404, "not_found", "");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_goes_to_the_machines_host_once() {
    let cluster = TestCluster::start().await;
    let (one, _two, _made) = two_hosts(&cluster).await;
    let kill = async |body| cluster.post("/api/v1/vms/web-1/kill", body).await;
    kill(json!({ "signal": "STOP" })).await.problem(400, "invalid_request", "");
    kill(json!({ "signal": "HUP" })).await.ok::<VmView>();
    cluster.post_text("/api/v1/vms/web-1/kill", "").await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Stopped).await;
    let stop = async |body| cluster.post("/api/v1/vms/web-1/stop", body).await;
    stop(json!({ "signal": "INT" })).await.problem(400, "invalid_request", "signal");
    stop(json!({ "signal": "STOP" })).await.problem(400, "invalid_request", "");
    stop(json!({ "grace_seconds": 3601 })).await.problem(400, "invalid_request", "grace_seconds");
    stop(json!({ "signal": "TERM", "grace_seconds": 1 })).await.ok::<VmView>();
    let log = one.log();
    let sent: Vec<_> = log.iter().filter(|word| word.starts_with("Signal")).collect();
    assert_eq!(sent, ["Signal(Hup)", "Signal(Kill)"], "{log:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_uses_is_shown_beside_what_it_may_use() {
    let cluster = TestCluster::start().await;
    let (one, _two, made) = two_hosts(&cluster).await;
    let stats: VmStats = cluster.get("/api/v1/vms/web-1/stats").await.ok();
    assert_eq!((stats.id, stats.host, stats.state), (made.id, one.host, VmState::Running));
    assert_eq!((stats.cpus, stats.memory_limit), (2, ByteCount::gib(1)));
    assert_eq!((stats.used.at, stats.used.cpu_ms), (UnixMillis(7), 1500));
    assert_eq!((stats.used.processes, stats.used.network), (Some(3), None));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_prints_comes_from_its_host() {
    let cluster = TestCluster::start().await;
    let (_one, _two, _made) = two_hosts(&cluster).await;
    let logs = async |query: &str| cluster.get(&format!("/api/v1/vms/web-1/logs{query}")).await;
    for query in ["", "?follow=true"] {
        assert_eq!(logs(query).await.body, "first\nlast\n");
    }
    // Whoever wants the last lines is not told that there were others.
    assert_eq!(logs("?tail=1").await.body, "last\n");
    logs("?tail=x").await.problem(400, "invalid_request", "tail");
    cluster.stop().await;
}
