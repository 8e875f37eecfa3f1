//! Jobs through the API: schedules that fire, attempts that run, and what becomes of them.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
};
use novacron_common::{
    api::{ExecuteAccepted, FireState, FireView, JobView, Page},
    ids::FireCause,
};
use serde_json::json;

async fn fires(cluster: &TestCluster, job: &str) -> Vec<FireView> {
    cluster.get(&format!("/api/v1/jobs/{job}/fires")).await.ok::<Page<FireView>>().items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_made_changed_in_part_and_deleted_under_both_paths() {
    let cluster = TestCluster::start().await;
    // features.md 7.12, as it stands.
    let body = json!({ "name": "data-pipeline", "schedule": "0 2 * * *", "timezone": "UTC", "enabled": true,
                       "priority": 5, "max_retries": 3, "timeout": 30000 });
    let answer = cluster.post("/api/jobs", body).await;
    assert_eq!(answer.status.as_u16(), 201);
    let made: JobView = answer.ok();
    assert!(made.next_fire_at.is_some());
    // features.md 7.13.
    let body = json!({ "name": "renamed", "enabled": false });
    let changed: JobView = cluster.put(&format!("/api/v1/jobs/{}", made.id), body).await.ok();
    assert_eq!((changed.name.as_str(), changed.enabled, changed.max_retries), ("renamed", false, 3));
    assert_eq!(changed.next_fire_at, None);
    let list: Page<JobView> = cluster.get("/api/jobs").await.ok();
    assert_eq!(list.items, [changed]);
    assert_eq!(cluster.delete("/api/jobs/renamed").await.status.as_u16(), 204);
    cluster.get("/api/v1/jobs/renamed").await.problem(404, "not_found", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_job_fires_each_second_and_every_fire_is_done_once() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    let body = json!({ "name": "tick", "schedule": "* * * * * *",
                       "target": { "type": "command", "command": ["/bin/date"] } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let done = async || {
        let fires = fires(&cluster, "tick").await;
        fires.iter().filter(|fire| fire.state == FireState::Succeeded).count() >= 3
    };
    eventually("three fires are done", done).await;
    cluster.put("/api/v1/jobs/tick", json!({ "enabled": false })).await.ok::<JobView>();
    let settled =
        async || fires(&cluster, "tick").await.iter().all(|fire| fire.state == FireState::Succeeded);
    eventually("no fire is left open", settled).await;

    let all = fires(&cluster, "tick").await;
    assert_eq!(agent.attempts(), all.len(), "one attempt a fire");
    for pair in all.windows(2) {
        assert_eq!(
            pair[0].scheduled_at.0 - pair[1].scheduled_at.0,
            1000,
            "the newest first, none lost or doubled"
        );
    }
    let late = all.iter().map(|fire| fire.committed_at.0 - fire.scheduled_at.0).max().unwrap();
    assert!((0..1000).contains(&late), "a fire was committed {late} ms late");
    let one: FireView = cluster.get(&format!("/api/v1/jobs/tick/fires/{}", all[0].id)).await.ok();
    assert!(one.attempts[0].output.as_ref().unwrap().starts_with("hello from"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_executed_on_request_although_it_is_disabled() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "manual", "schedule": "@yearly", "enabled": false });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let answer = cluster.post_text("/api/jobs/manual/execute", "").await;
    assert_eq!(answer.status.as_u16(), 202);
    let accepted: ExecuteAccepted = answer.ok();
    let done = async || fires(&cluster, "manual").await.iter().all(|fire| fire.state == FireState::Succeeded);
    eventually("the fire is done", done).await;
    let all = fires(&cluster, "manual").await;
    assert_eq!((all.len(), all[0].cause), (1, FireCause::Manual));
    assert_eq!(all[0].id, accepted.fire);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_waits_for_a_host_that_can_run_it() {
    let cluster = TestCluster::start().await;
    let body = json!({ "name": "later", "schedule": "@yearly",
                       "target": { "type": "command", "command": ["/bin/true"] } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    cluster.post_text("/api/v1/jobs/later/execute", "").await.ok::<ExecuteAccepted>();
    assert_eq!(fires(&cluster, "later").await[0].state, FireState::Waiting);
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    let done = async || fires(&cluster, "later").await[0].state == FireState::Succeeded;
    eventually("the fire is done", done).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attempt_prints_is_followed_to_its_end_and_kept() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    agent.hold_attempts();
    let body = json!({ "name": "talk", "schedule": "@yearly",
                       "target": { "type": "command", "command": ["/bin/date"] } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    let accepted: ExecuteAccepted = cluster.post_text("/api/jobs/talk/execute", "").await.ok();
    let fire = format!("/api/v1/jobs/talk/fires/{}", accepted.fire);
    eventually("it runs", async || agent.attempts() == 1).await;

    let logs = format!("{fire}/attempts/1/logs");
    let followed = cluster.get(&format!("{logs}?follow=true")).await;
    assert_eq!(followed.status.as_u16(), 200);
    assert!(followed.body.starts_with("hello from host"), "{}", followed.body);
    // The ledger has it from now on, and says the same.
    let one: FireView = cluster.get(&fire).await.ok();
    assert_eq!(one.attempts[0].output.as_deref(), Some(followed.body.as_str()));
    assert_eq!(cluster.get(&logs).await.body, followed.body);
    assert_eq!(cluster.get(&format!("{logs}?follow=true")).await.body, followed.body);

    cluster.get(&format!("{fire}/attempts/2/logs")).await.problem(404, "not_found", "");
    cluster.get("/api/v1/jobs/talk/fires/x/attempts/1/logs").await.problem(404, "not_found", "");
    cluster.get(&format!("{logs}?follow=perhaps")).await.problem(400, "invalid_request", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_host_uses_up_no_try() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    agent.fill_for(2);
    let body = json!({ "name": "patient", "schedule": "@yearly", "max_retries": 0,
                       "target": { "type": "command", "command": ["/bin/true"] } });
    cluster.post("/api/v1/jobs", body).await.ok::<JobView>();
    cluster.post_text("/api/v1/jobs/patient/execute", "").await.ok::<ExecuteAccepted>();
    let done = async || fires(&cluster, "patient").await[0].state == FireState::Succeeded;
    eventually("there was room at last", done).await;
    let fire = fires(&cluster, "patient").await.remove(0);
    let tries: Vec<_> = fire.attempts.iter().map(|a| (a.number, a.outcome.as_str())).collect();
    assert_eq!(
        tries,
        [(2, "declined: it runs 1 of 1"), (3, "exited(0)")],
        "of refusals in a row the last is kept"
    );
    cluster.stop().await;
}
