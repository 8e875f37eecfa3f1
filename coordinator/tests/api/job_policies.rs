//! What a job can be asked and told beside its definition: pause, resume, next, ledger, cancel, labels, and a fenced host.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
};
use novacron_common::api::{
    ConcurrencyBody, ExecuteAccepted, FireState, FireView, JobStatus, JobView, LedgerView, Page, PreviewTick,
    TickState, Transition,
};
use serde_json::json;

async fn fire(cluster: &TestCluster, job: &str, id: &str) -> FireView {
    cluster.get(&format!("/api/v1/jobs/{job}/fires/{id}")).await.ok()
}

async fn ledger(cluster: &TestCluster, job: &str) -> LedgerView {
    cluster.get(&format!("/api/v1/jobs/{job}/ledger?n=1000")).await.ok()
}

fn ticks(ledger: &LedgerView, state: TickState) -> u64 {
    ledger.ticks.iter().filter(|entry| entry.tick == state).map(|entry| entry.count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_found_by_label_changed_paused_and_resumed_and_its_ledger_says_so() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "tick", "schedule": "@every 1s", "labels": { "team": "db" } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let body = json!({ "name": "other", "schedule": "@yearly", "labels": { "team": "web" } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let found: Page<JobView> = cluster.get("/api/v1/jobs?label=team%3Ddb").await.ok();
    assert_eq!(found.items.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["tick"]);

    let fired = async || ticks(&ledger(&cluster, "tick").await, TickState::Fired) >= 2;
    eventually("two ticks fired", fired).await;
    let paused: JobView = cluster.post_text("/api/v1/jobs/tick/pause", "").await.ok();
    assert_eq!((paused.status, paused.next_fire_at), (JobStatus::Paused, None));
    let found: Page<JobView> = cluster.get("/api/v1/jobs?status=paused").await.ok();
    assert_eq!(found.items.len(), 1);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let resumed: JobView = cluster.post_text("/api/v1/jobs/tick/resume", "").await.ok();
    assert_eq!(resumed.status, JobStatus::Active);
    assert!(resumed.next_fire_at.is_some());
    let skipped = async || ticks(&ledger(&cluster, "tick").await, TickState::Skipped) >= 1;
    eventually("the pause is on the ledger", skipped).await;

    let body = json!({ "concurrency": { "queue": { "max": 3 } }, "labels": { "team": "web" } });
    let changed: JobView = cluster.put("/api/v1/jobs/tick", body).await.ok();
    assert_eq!((changed.concurrency, changed.schedule), (ConcurrencyBody::Queue { max: 3 }, paused.schedule));
    let found: Page<JobView> = cluster.get("/api/v1/jobs?label=team%3Ddb").await.ok();
    assert!(found.items.is_empty(), "{found:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_ticks_are_shown_with_the_jumps_of_the_clock() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "night", "schedule": "30 2 * * *", "timezone": "Europe/Berlin" });
    let made: JobView = cluster.post("/api/v1/jobs", body).await.ok();
    assert_eq!(made.warnings.len(), 2, "{:?}", made.warnings);
    let next: Vec<PreviewTick> = cluster.get("/api/v1/jobs/night/next?n=366").await.ok();
    assert_eq!((next.len(), Some(next[0].at)), (366, made.next_fire_at));
    for transition in [Transition::Gap, Transition::Fold] {
        assert!(next.iter().any(|tick| tick.transition == Some(transition)), "{transition:?}");
    }
    cluster.get("/api/v1/jobs/night/next?n=0").await.problem(400, "invalid_request", "n");
    cluster.get("/api/v1/jobs/night/ledger?n=1001").await.problem(400, "invalid_request", "n");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fire_is_cancelled_and_one_on_a_fenced_host_is_lost() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "work", "schedule": "@yearly",
                       "target": { "type": "command", "command": ["/bin/true"] } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let first: ExecuteAccepted = cluster.post_text("/api/v1/jobs/work/execute", "").await.ok();
    let path = format!("/api/v1/jobs/work/fires/{}/cancel", first.fire);
    assert_eq!(cluster.post_text(&path, "").await.status.as_u16(), 202);
    assert_eq!(fire(&cluster, "work", &first.fire).await.state, FireState::Cancelled);

    let agent = FakeAgent::join(&cluster, "host-1").await;
    agent.hold_attempts();
    let second: ExecuteAccepted = cluster.post_text("/api/v1/jobs/work/execute", "").await.ok();
    eventually("it runs", async || agent.attempts() == 1).await;
    cluster.post_text("/api/v1/hosts/host-1/fence", "").await.problem(409, "conflict", "");
    agent.crash().await;
    let unknown = async || fire(&cluster, "work", &second.fire).await.state == FireState::Unknown;
    eventually("nothing is known of it", unknown).await;
    assert_eq!(cluster.post_text("/api/v1/hosts/host-1/fence", "").await.status.as_u16(), 200);
    let lost = fire(&cluster, "work", &second.fire).await;
    assert_eq!((lost.state, lost.attempts[0].outcome.as_str()), (FireState::Failed, "lost"));
    cluster.stop().await;
}
