//! Who gets in: tokens, roles, tickets, and what is open to all.

use crate::cluster::TestCluster;
use novacron_common::api::{ClusterView, Health, Page, TokenCreated, TokenView};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_open_and_everything_else_is_shut() {
    let cluster = TestCluster::start().await;
    for open in ["/health", "/health/live", "/health/ready"] {
        let answer = cluster.send_as(None, Method::GET, open, None).await;
        assert_eq!(answer.ok::<Health>().status, "ok", "{open}");
    }
    let health: Health = cluster.send_as(None, Method::GET, "/health", None).await.ok();
    let names: Vec<_> = health.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(names, ["ledger", "quorum", "clock", "hosts"]);

    let document = novacron_coordinator::http::document();
    let paths = document.paths.paths.keys().filter(|path| !path.starts_with("/health"));
    let undocumented =
        ["/docs", "/docs/", "/api/v1/openapi.json", "/ws/status", "/api/jobs", "/api/workflows", "/"];
    for path in paths.map(String::as_str).chain(undocumented) {
        for token in [None, Some("nva1.x.y"), Some("Basic"), Some(&*wrong_secret(&cluster.token))] {
            cluster.send_as(token, Method::GET, path, None).await.problem(401, "unauthenticated", "");
        }
    }
    cluster.stop().await;
}

/// The right id with another secret.
fn wrong_secret(token: &str) -> String {
    let (head, secret) = token.rsplit_once('.').unwrap();
    let first = if secret.starts_with('A') { 'B' } else { 'A' };
    format!("{head}.{first}{}", &secret[1..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_looks_and_changes_nothing_and_a_removed_token_is_worth_nothing() {
    let cluster = TestCluster::start().await;
    let made: TokenCreated =
        cluster.post("/api/v1/tokens", json!({ "name": "eye", "role": "reader" })).await.ok();
    let reader = Some(made.token.as_str());
    assert!(cluster.send_as(reader, Method::GET, "/api/v1/vms", None).await.status.is_success());
    let before = cluster.snapshot();
    for (method, path) in [
        (Method::POST, "/api/v1/vms"),
        (Method::POST, "/api/v1/jobs"),
        (Method::PUT, "/api/v1/jobs/x"),
        (Method::DELETE, "/api/v1/hosts/x"),
        (Method::POST, "/api/v1/tokens"),
        (Method::GET, "/api/v1/vms/x/console"),
    ] {
        cluster.send_as(reader, method, path, Some("{}".into())).await.problem(403, "forbidden", "");
    }
    assert_eq!(cluster.snapshot(), before);

    let list: Page<TokenView> = cluster.get("/api/v1/tokens").await.ok();
    let names: Vec<_> = list.items.iter().map(|token| token.name.as_str()).collect();
    assert_eq!(names, ["init", "eye"]);
    assert_eq!(cluster.delete(&format!("/api/v1/tokens/{}", made.id)).await.status.as_u16(), 204);
    cluster.send_as(reader, Method::GET, "/api/v1/vms", None).await.problem(401, "unauthenticated", "");
    let last = format!("/api/v1/tokens/{}", list.items[0].id);
    cluster.delete(&last).await.problem(409, "conflict", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_names_its_coordinator_and_its_ca() {
    let cluster = TestCluster::start().await;
    let view: ClusterView = cluster.get("/api/v1/cluster").await.ok();
    assert_eq!((view.answered_by, view.coordinators.len()), (1, 1));
    assert!(view.coordinators[0].leader && view.coordinators[0].voter);
    assert_eq!(view.ca_fingerprint, novacron_coordinator::identity::sha256(&cluster.ca).to_string());
    cluster.delete("/api/v1/cluster/coordinators/1").await.problem(409, "conflict", "");
    cluster.delete("/api/v1/cluster/coordinators/7").await.problem(404, "not_found", "");
    cluster.delete("/api/v1/cluster/coordinators/x").await.problem(404, "not_found", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_labelled_by_route_and_never_by_raw_path() {
    let cluster = TestCluster::start().await;
    cluster.get("/api/v1/vms/some-vm").await;
    cluster.get("/no/such/path").await;
    for path in ["/metrics", "/api/v1/metrics"] {
        let text = cluster.get(path).await;
        assert!(text.content_type.starts_with("text/plain; version=0.0.4"), "{text:?}");
        assert!(
            text.body.contains(r#"endpoint="/api/v1/vms/{vm}",method="GET",status="404""#),
            "{}",
            text.body
        );
        assert!(text.body.contains(r#"endpoint="unmatched""#));
        assert!(!text.body.contains("some-vm") && !text.body.contains("no/such"));
        assert!(text.body.contains("novacron_ledger_leader 1"));
    }
    cluster.stop().await;
}
