//! Three coordinators: any of them answers, one is lost, and without a majority nothing pretends to work.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use novacron_common::{
    api::{ClusterView, Health, HostState, HostView, JobView, TemplateView, VmView},
    record::VmState,
};
use reqwest::Method;
use serde_json::json;

async fn is_ready(replica: &TestCluster) -> bool {
    replica.send_as(None, Method::GET, "/health/ready", None).await.status.is_success()
}

pub async fn leads(replica: &TestCluster) -> bool {
    replica.coordinator.parts.ledger.status().leads
}

/// Three coordinators that vote; the founder leads and is the last.
pub async fn three() -> Vec<TestCluster> {
    let founder = TestCluster::start().await;
    let mut all = vec![TestCluster::join(&founder).await, TestCluster::join(&founder).await];
    all.push(founder);
    let voters = async || {
        let view: ClusterView = all[2].get("/api/v1/cluster").await.ok();
        view.coordinators.iter().filter(|c| c.voter).count() == 3
    };
    eventually("three coordinators vote", voters).await;
    for replica in &all {
        eventually("each is ready", async || is_ready(replica).await).await;
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_coordinator_answers_and_work_goes_on_when_the_leader_is_lost() {
    let mut all = three().await;
    let leader = all.pop().unwrap();
    assert!(leads(&leader).await);
    // The agent is sent to the leader by whichever coordinator it asks.
    let _agent = FakeAgent::join(&all[0], "host-1").await;
    all[0].post("/api/v1/templates", template()).await.ok::<TemplateView>();
    all[1].post("/api/v1/vms", vm("web-1")).await.ok::<VmView>();
    assert_eq!(
        all[0].get("/api/v1/vms/web-1").await.ok::<VmView>().name,
        "web-1",
        "read where it was not written"
    );
    until(&all[1], "web-1", VmState::Running).await;
    let log = all[0].get("/api/v1/vms/web-1/console-log").await;
    assert_eq!(log.body, "login: ", "a follower reaches agents too");

    leader.stop().await;
    eventually("another leads", async || leads(&all[0]).await || leads(&all[1]).await).await;
    eventually("both are ready", async || is_ready(&all[0]).await && is_ready(&all[1]).await).await;
    let up = async || all[0].get("/api/v1/hosts/host-1").await.ok::<HostView>().state == HostState::Up;
    eventually("the agent has found the new leader", up).await;
    all[0].post("/api/v1/vms", vm("web-2")).await.ok::<VmView>();
    until(&all[1], "web-2", VmState::Running).await;

    let last = all.pop().unwrap();
    all.pop().unwrap().stop().await;
    let body = json!({ "name": "a", "schedule": "@daily" });
    last.post("/api/v1/jobs", &body).await.problem(503, "unavailable", "");
    last.get("/api/v1/jobs").await.problem(503, "unavailable", "");
    assert!(!is_ready(&last).await);
    assert_eq!(last.send_as(None, Method::GET, "/health/live", None).await.status.as_u16(), 200);
    let health: Health = last.send_as(None, Method::GET, "/health", None).await.ok();
    assert!(health.checks.iter().any(|check| check.name == "quorum" && !check.ok), "{health:?}");
    assert!(last.get("/metrics").await.body.contains("novacron_ledger_leader 0"), "metrics need no quorum");
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_coordinator_is_out_and_the_rest_goes_on() {
    let mut all = three().await;
    let leader = all.pop().unwrap();
    let gone = all.pop().unwrap();
    let node = gone.coordinator.parts.node;
    assert_eq!(leader.delete(&format!("/api/v1/cluster/coordinators/{node}")).await.status.as_u16(), 202);
    let two = async || leader.get("/api/v1/cluster").await.ok::<ClusterView>().coordinators.len() == 2;
    eventually("two are left", two).await;
    gone.stop().await;
    let body = json!({ "name": "a", "schedule": "@daily" });
    leader.post("/api/v1/jobs", &body).await.ok::<JobView>();
    all[0].get("/api/v1/jobs/a").await.ok::<JobView>();
    leader.stop().await;
    all.pop().unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinators_gossip_with_each_other_also_where_there_is_no_agent() {
    let all = three().await;
    for replica in &all {
        let hears = async || replica.get("/metrics").await.body.contains("\nnovacron_gossip_peers 3\n");
        eventually("it hears itself and both others", hears).await;
    }
    for replica in all {
        replica.stop().await;
    }
}
