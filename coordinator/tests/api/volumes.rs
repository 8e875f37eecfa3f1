//! Volumes of hosts through the API, and the machines that have them.

use crate::{
    cluster::{TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{until, vm},
};
use novacron_common::{
    api::{TemplateView, VmView, VolumeView},
    record::{VmState, VolumeSeen},
    units::ByteCount,
};
use serde_json::json;

const PATH: &str = "/api/v1/hosts/host-1/volumes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_outlives_its_machines_and_goes_when_none_has_it() {
    let cluster = TestCluster::start().await;
    let agent = FakeAgent::join(&cluster, "host-1").await;
    let archive = json!({ "name": "alpine", "disk": { "path": "/images/a", "sha256": "ab".repeat(32), "format": "oci" } });
    cluster.post("/api/v1/templates", archive).await.ok::<TemplateView>();
    let mut body = vm("db");
    body["template"] = json!("alpine");
    body["volumes"] = json!(["data:/data", "/srv/www:/www:ro"]);
    cluster.post("/api/v1/vms", body.clone()).await.problem(400, "invalid_request", "host");
    body["host"] = json!("host-1");
    let made: VmView = cluster.post("/api/v1/vms", body).await.ok();
    assert_eq!(made.volumes, ["data:/data", "/srv/www:/www:ro"]);
    until(&cluster, "db", VmState::Running).await;

    let seen = |name: &str| VolumeSeen {
        name: name.parse().unwrap(),
        size: ByteCount::gib(1),
        used: ByteCount::mib(3),
    };
    agent.has_volumes(vec![seen("data"), seen("old")]);
    let listed: Vec<VolumeView> = cluster.get(PATH).await.ok();
    let listed: Vec<_> = listed.iter().map(|v| (v.name.as_str(), v.machines.join(" "))).collect();
    assert_eq!(listed, [("data", "db".to_owned()), ("old", String::new())]);

    let delete = async |name: &str| cluster.delete(&format!("{PATH}/{name}")).await;
    delete("data").await.problem(409, "conflict", "");
    assert_eq!(delete("old").await.status.as_u16(), 204);
    delete("old").await.problem(404, "not_found", "");
    delete(".hidden").await.problem(404, "not_found", "");
    cluster.get("/api/v1/hosts/host-2/volumes").await.problem(404, "not_found", "");
    cluster.delete("/api/v1/vms/db").await;
    eventually("the volume can be deleted", async || delete("data").await.status == 204).await;
    assert_eq!(cluster.get(PATH).await.ok::<Vec<VolumeView>>(), []);
    cluster.stop().await;
}
