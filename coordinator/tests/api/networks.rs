//! Tenant networks through the API, and the machines on them.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use novacron_common::{
    api::{NetworkView, Page, TemplateView, VmView},
    record::VmState,
};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/networks";

fn archive() -> Value {
    json!({ "name": "alpine", "disk": { "path": "/images/a", "sha256": "ab".repeat(32), "format": "oci" } })
}

fn on(network: &str, name: &str) -> Value {
    let mut body = vm(name);
    body["template"] = json!("alpine");
    body["network"] = json!({ "name": network });
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_gets_an_address_of_its_network_and_gives_it_back() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    cluster.post("/api/v1/templates", archive()).await.ok::<TemplateView>();
    let answer = cluster.post(PATH, json!({ "name": "blue", "dns": ["10.9.9.9"] })).await;
    assert_eq!(answer.status.as_u16(), 201);
    let made: NetworkView = answer.ok();
    assert_eq!((made.subnet.as_str(), made.gateway.as_str()), ("10.213.0.0/24", "10.213.0.1"));
    assert_eq!((made.machines, made.capacity), (0, 253));

    let mut body = on("blue", "web-1");
    body["network"]["publish"] = json!(["8080:80"]);
    let web: VmView = cluster.post("/api/v1/vms", body.clone()).await.ok();
    assert_eq!(web.publish, ["8080:80/tcp"]);
    body["name"] = json!("web-2");
    let taken = cluster.post("/api/v1/vms", body).await.problem(409, "no_placement", "host-1");
    assert!(taken.details[0].reason.contains("port 8080/tcp"), "{taken:?}");
    assert_eq!((web.network.as_deref(), web.mac.as_str()), (Some("blue"), "52:54:0a:d5:00:02"));
    assert_eq!(web.addresses, ["10.213.0.2"]);
    until(&cluster, "web-1", VmState::Running).await;

    let listed: Page<NetworkView> = cluster.get(PATH).await.ok();
    assert_eq!(listed.items.iter().map(|net| net.machines).collect::<Vec<_>>(), [1]);
    cluster.delete("/api/v1/networks/blue").await.problem(409, "conflict", "");
    cluster.delete("/api/v1/vms/web-1").await;
    eventually("the network can be removed", async || {
        cluster.delete("/api/v1/networks/blue").await.status == 204
    })
    .await;
    cluster.get("/api/v1/networks/blue").await.problem(404, "not_found", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_by_field() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    for body in [template(), archive()] {
        cluster.post("/api/v1/templates", body).await.ok::<TemplateView>();
    }
    let refused = async |path: &str, body: Value, field: &str| {
        cluster.post(path, body).await.problem(400, "invalid_request", field);
    };
    refused(PATH, json!({ "name": "no good" }), "name").await;
    refused(PATH, json!({ "name": "a", "subnet": "10.1.2.3/24" }), "subnet").await;
    refused(PATH, json!({ "name": "a", "subnet": "8.8.8.0/24" }), "subnet").await;
    refused(PATH, json!({ "name": "a", "dns": vec!["10.0.0.1"; 9] }), "dns").await;
    refused("/api/v1/vms", on("nowhere", "web-1"), "network.name").await;
    cluster.post(PATH, json!({ "name": "blue" })).await.ok::<NetworkView>();
    let mut wrong = on("blue", "web-1");
    wrong["network"]["bridge"] = json!("br0");
    refused("/api/v1/vms", wrong, "network.bridge").await;
    let mut wrong = on("blue", "web-1");
    wrong["template"] = json!("ubuntu-22.04");
    refused("/api/v1/vms", wrong, "network.name").await;
    cluster.stop().await;
}
