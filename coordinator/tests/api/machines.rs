//! The life of a machine through the API.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
};
use novacron_common::{
    api::{Page, TemplateView, VmView},
    record::VmState,
};
use serde_json::{Value, json};

pub fn template() -> Value {
    let image =
        |file: &str| json!({ "path": format!("/images/{file}"), "sha256": "ab".repeat(32), "format": "raw" });
    json!({ "name": "ubuntu-22.04", "boot": { "kernel": image("vmlinuz"), "cmdline": "console=ttyS0" } })
}

/// The body of features.md 3.19 and 29, with a name.
pub fn vm(name: &str) -> Value {
    json!({ "name": name, "template": "ubuntu-22.04", "resources": { "cpu": 2, "memory_gb": 1, "storage_gb": 1 } })
}

pub async fn state(cluster: &TestCluster, vm: &str) -> VmState {
    cluster.get(&format!("/api/v1/vms/{vm}")).await.ok::<VmView>().state
}

pub async fn until(cluster: &TestCluster, vm: &str, wanted: VmState) {
    eventually(&format!("{vm} is {wanted:?}"), async || state(cluster, vm).await == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_made_runs_stops_restarts_and_is_deleted() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    let made: TemplateView = cluster.post("/api/v1/templates", template()).await.ok();
    assert_eq!(made.name, "ubuntu-22.04");

    let answer = cluster.post("/api/v1/vms", vm("web-1")).await;
    assert_eq!(answer.status.as_u16(), 201);
    let made: VmView = answer.ok();
    assert_eq!((made.name.as_str(), made.host), ("web-1", Some(agent.host)));
    assert!(made.placement.is_some_and(|why| why.contains("host-1")));
    until(&cluster, "web-1", VmState::Running).await;
    let seen: VmView = cluster.get(&format!("/api/v1/vms/{}", made.id)).await.ok();
    assert_eq!(seen.addresses, ["10.0.0.7"]);

    let renamed: VmView = cluster.put("/api/v1/vms/web-1", json!({ "name": "web-2" })).await.ok();
    assert_eq!(renamed.name, "web-2");
    assert_eq!(cluster.post_text("/api/v1/vms/web-2/stop", "").await.status.as_u16(), 202);
    until(&cluster, "web-2", VmState::Stopped).await;
    assert_eq!(cluster.post_text("/api/v1/vms/web-2/start", "").await.status.as_u16(), 202);
    until(&cluster, "web-2", VmState::Running).await;
    cluster.post("/api/v1/vms/web-2/restart", json!({ "grace_seconds": 1 })).await.ok::<VmView>();
    eventually("the restart was carried out once", async || agent.vm(made.id).unwrap().restarted == 1).await;

    let log = cluster.get("/api/v1/vms/web-2/console-log?bytes=100").await;
    assert_eq!((log.status.as_u16(), log.body.as_str()), (200, "login: "));

    assert_eq!(cluster.delete("/api/v1/vms/web-2").await.status.as_u16(), 202);
    eventually("the machine is forgotten", async || cluster.get("/api/v1/vms/web-2").await.status == 404)
        .await;
    assert_eq!(agent.vm(made.id), None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_paged_and_filtered_by_status() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    for n in 0..5 {
        let mut body = vm(&format!("vm-{n}"));
        body["start"] = json!(n % 2 == 0);
        cluster.post("/api/v1/vms", body).await.ok::<VmView>();
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Page<VmView> = cluster.get(&format!("/api/v1/vms?limit=2{cursor}")).await.ok();
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|vm| vm.name));
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["vm-0", "vm-1", "vm-2", "vm-3", "vm-4"]);
    until(&cluster, "vm-4", VmState::Running).await;
    let running: Page<VmView> = cluster.get("/api/v1/vms?status=running&limit=20").await.ok();
    assert!(running.items.iter().all(|vm| vm.state == VmState::Running));
    assert!(running.items.iter().any(|vm| vm.name == "vm-4"));
    cluster.stop().await;
}
