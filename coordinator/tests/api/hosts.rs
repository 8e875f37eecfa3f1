//! Hosts: joining, being lost, being cordoned, being removed.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use novacron_common::{
    api::{HostState, HostView, Page, TemplateView, VmView},
    record::VmState,
    wire::JoinDenied,
};
use novacron_transport::{Endpoint, IdentityCell, RoleKind};
use std::{net::SocketAddr, sync::Arc};

async fn host(cluster: &TestCluster, name: &str) -> HostView {
    cluster.get(&format!("/api/v1/hosts/{name}")).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_lost_counts_as_down_and_up_again_when_it_returns() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    cluster.post("/api/v1/vms", vm("web-1")).await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    assert!(host(&cluster, "host-1").await.last_seen.is_some());
    agent.crash().await;
    eventually("the host is down", async || host(&cluster, "host-1").await.state == HostState::Down).await;
    until(&cluster, "web-1", VmState::Unknown).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_learn_of_each_other_and_of_who_left() {
    let cluster = TestCluster::start().await;
    let one = FakeAgent::join(&cluster, "host-1").await;
    let two = FakeAgent::join(&cluster, "host-2").await;
    let names = |agent: &FakeAgent| -> Vec<String> {
        agent.directory().hosts.iter().map(|peer| peer.name.to_string()).collect()
    };
    eventually("one knows two", async || names(&one) == ["host-2"]).await;
    eventually("two knows one", async || names(&two) == ["host-1"]).await;
    assert_eq!(one.directory().coordinators.len(), 1);

    let link = two.link().await;
    assert_eq!(cluster.delete("/api/v1/hosts/host-2").await.status.as_u16(), 204);
    let reason = tokio::time::timeout(std::time::Duration::from_secs(60), link.closed()).await;
    reason.expect("the removed host is cut off at once");
    eventually("one forgets two", async || names(&one).is_empty()).await;
    let again = two.endpoint.connect_any(cluster.quic, RoleKind::Coordinator).await;
    if let Ok(link) = again {
        assert!(link.closed().await.contains("removed"), "it stays out");
    }
    let left: Page<HostView> = cluster.get("/api/v1/hosts").await.ok();
    assert_eq!(left.items.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_host_takes_no_new_machine() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    assert!(cluster.post_text("/api/v1/hosts/host-1/cordon", "").await.ok::<HostView>().cordoned);
    let refused = cluster.post("/api/v1/vms", vm("web-1")).await.problem(409, "no_placement", "host-1");
    assert!(refused.details[0].reason.contains("cordoned"), "{refused:?}");
    assert!(!cluster.post_text("/api/v1/hosts/host-1/uncordon", "").await.ok::<HostView>().cordoned);
    cluster.post("/api/v1/vms", vm("web-1")).await.ok::<VmView>();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_token_works_once_and_not_after_its_end() {
    let cluster = TestCluster::start().await;
    let token = cluster.join_token().await;
    assert!(cluster.enrol(&token, "host-1").await.is_ok());
    assert_eq!(cluster.enrol(&token, "host-2").await.unwrap_err(), JoinDenied::Used);

    let made = cluster.post("/api/v1/hosts/join-tokens", serde_json::json!({ "ttl_seconds": 1 })).await;
    let token = made.ok::<novacron_common::api::JoinTokenCreated>().token.parse().unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(cluster.enrol(&token, "host-2").await.unwrap_err(), JoinDenied::Expired);

    let token = cluster.join_token().await;
    assert!(matches!(cluster.enrol(&token, "host-1").await, Err(JoinDenied::NameTaken(_))));
    let hosts: Page<HostView> = cluster.get("/api/v1/hosts").await.ok();
    assert_eq!(hosts.items.len(), 1, "refused joins changed nothing");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_another_cluster_does_not_get_in() {
    let (ours, theirs) = (TestCluster::start().await, TestCluster::start().await);
    let token = theirs.join_token().await;
    let (foreign, _) = theirs.enrol(&token, "host-1").await.unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = Endpoint::bind(any, Arc::new(IdentityCell::new(foreign))).unwrap();
    assert!(endpoint.connect_any(ours.quic, RoleKind::Coordinator).await.is_err());
    assert_eq!(ours.get("/api/v1/hosts").await.ok::<Page<HostView>>().items, []);
    ours.stop().await;
    theirs.stop().await;
}
