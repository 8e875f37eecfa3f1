//! Requests that are repeated: `Idempotency-Key`, at one coordinator and over a restart.

use crate::cluster::TestCluster;
use novacron_common::api::{JobView, Page, TokenCreated, TokenView};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_post_is_done_once_and_answered_alike_also_after_a_restart() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "nightly", "schedule": "@daily" });
    let first = cluster.post_keyed("key-1", "/api/v1/jobs", &body).await;
    let made: JobView = first.ok();
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = cluster.post_keyed("key-1", "/api/v1/jobs", &body).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");

    let cluster = cluster.restart().await;
    let after = cluster.post_keyed("key-1", "/api/v1/jobs", &body).await;
    assert_eq!((after.status, &after.body), (first.status, &first.body));
    let jobs: Page<JobView> = cluster.get("/api/v1/jobs").await.ok();
    assert_eq!(jobs.items.iter().map(|job| job.id).collect::<Vec<_>>(), [made.id]);
    cluster.post_keyed("key-2", "/api/v1/jobs", &body).await.problem(409, "name_taken", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_another_request_is_refused_and_a_bad_key_named() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "nightly", "schedule": "@daily" });
    cluster.post_keyed("k", "/api/v1/jobs", &body).await.ok::<JobView>();
    let before = cluster.snapshot();
    let other = json!({ "name": "weekly", "schedule": "@weekly" });
    cluster.post_keyed("k", "/api/v1/jobs", &other).await.problem(422, "idempotency_key_reused", "");
    cluster.post_keyed("k", "/api/v1/jobs/nightly/execute", &other).await.problem(
        422,
        "idempotency_key_reused",
        "",
    );
    for bad in [String::new(), "a b".to_owned(), "k".repeat(201)] {
        cluster.post_keyed(&bad, "/api/v1/jobs", &other).await.problem(
            400,
            "invalid_request",
            "Idempotency-Key",
        );
    }
    assert_eq!(cluster.snapshot(), before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refused_may_be_repeated_and_then_succeed() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "nightly", "schedule": "@daily" });
    cluster.post("/api/v1/jobs", &body).await.ok::<JobView>();
    cluster.post_keyed("k", "/api/v1/jobs", &body).await.problem(409, "name_taken", "");
    assert_eq!(cluster.delete("/api/v1/jobs/nightly").await.status.as_u16(), 204);
    cluster.post_keyed("k", "/api/v1/jobs", &body).await.ok::<JobView>();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_repetitions_make_one_thing() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "nightly", "schedule": "@daily" });
    let all =
        futures_util::future::join_all((0..16).map(|_| cluster.post_keyed("k", "/api/v1/jobs", &body))).await;
    let ids: std::collections::BTreeSet<_> = all.iter().map(|answer| answer.ok::<JobView>().id).collect();
    assert_eq!(ids.len(), 1, "{all:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_secret_is_the_same_and_not_readable_in_the_ledger() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "ci", "role": "reader" });
    let first: TokenCreated = cluster.post_keyed("k", "/api/v1/tokens", &body).await.ok();
    let again: TokenCreated = cluster.post_keyed("k", "/api/v1/tokens", &body).await.ok();
    assert_eq!(first, again);
    let tokens: Page<TokenView> = cluster.get("/api/v1/tokens").await.ok();
    assert_eq!(tokens.items.len(), 2, "the first of the cluster, and this one");
    let secret = first.token.rsplit('.').next().unwrap().as_bytes().to_vec();
    for (table, _, row) in cluster.snapshot() {
        assert!(!row.windows(secret.len()).any(|part| part == secret), "the secret stands in {table:?}");
    }
    cluster.stop().await;
}
