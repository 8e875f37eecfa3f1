//! What kind of machine a template gives, and what that kind may be asked for.

use super::*;
use crate::{api::TemplateCreate, spec::Mobility};
use serde_json::{Value, json};

fn template(format: &str) -> TemplateSpec {
    let disk = json!({"path": "/images/a", "sha256": "0".repeat(64), "format": format});
    let body = serde_json::from_value(json!({"name": "a", "disk": disk})).unwrap();
    TemplateSpec::try_from(&body as &TemplateCreate).unwrap()
}

/// A machine of this template, with these fields besides.
fn made(template: &TemplateSpec, fields: Value) -> Result<VmSpec, Vec<String>> {
    let mut body = json!({"name": "box", "template": "a", "resources": {"cpu": 1, "memory_mb": 64}});
    let all = body.as_object_mut().unwrap();
    all.extend(fields.as_object().unwrap().clone());
    let body: VmCreate = serde_json::from_value(body).unwrap();
    let tenant = body.network.name.as_ref().map(|_| NetworkId::from_u128(1));
    body.to_spec(template, tenant).map_err(|faults| faults.0.into_iter().map(|fault| fault.field).collect())
}

#[test]
fn only_namespace_machines_are_asked_whether_they_are_well() {
    let health = json!({"cmd": "curl -f localhost", "interval": "5s"});
    let oci = template("oci");
    assert_eq!(made(&oci, json!({"health": health})).unwrap().health.interval_ms, Some(5000));
    assert_eq!(made(&oci, json!({})).unwrap().health, HealthSpec::default());
    assert_eq!(made(&oci, json!({"health": {"retries": 0}})).unwrap_err(), ["health.retries"]);
    let kvm = json!({"health": health, "resources": {"cpu": 1, "memory_mb": 64, "storage_mb": 64}});
    assert_eq!(made(&template("qcow2"), kvm).unwrap_err(), ["health"]);
}

#[test]
fn volumes_are_one_hosts_and_each_has_a_place_of_its_own() {
    let with = |volumes: &[&str]| json!({"host": "h1", "volumes": volumes});
    let volumes = made(&template("oci"), with(&["data:/data", "/srv/www:/www:ro"])).unwrap().volumes;
    assert_eq!(
        volumes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["data:/data", "/srv/www:/www:ro"]
    );
    let many: Vec<String> = (0..17).map(|n| format!("v{n}:/v{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (fields, field) in [
        (json!({"volumes": ["data:/data"]}), "host"),
        (with(&["data:/data", "data"]), "volumes[1]"),
        (with(&["data:/data", "other:/data/"]), "volumes[1]"),
        (with(&many), "volumes"),
    ] {
        assert_eq!(made(&template("oci"), fields).unwrap_err(), [field]);
    }
    let mut kvm = with(&["data:/data"]);
    kvm["resources"] = json!({"cpu": 1, "memory_mb": 64, "storage_mb": 64});
    assert_eq!(made(&template("qcow2"), kvm).unwrap_err(), ["volumes"]);
}

#[test]
fn the_template_says_what_kind_of_machine_it_is_for() {
    for format in ["oci", "rootfs"] {
        let spec = made(&template(format), json!({})).unwrap();
        assert_eq!((spec.kind, spec.cloud_init, spec.storage), (MachineKind::Namespace, None, ByteCount(0)));
        assert!(made(&template(format), json!({"kind": "namespace"})).is_ok());
        assert_eq!(made(&template(format), json!({"kind": "kvm"})).unwrap_err(), ["kind"]);
    }
    let storage = json!({"resources": {"cpu": 1, "memory_mb": 64, "storage_mb": 64}});
    let spec = made(&template("qcow2"), storage.clone()).unwrap();
    assert!(spec.kind == MachineKind::Kvm && spec.cloud_init.is_some());
    let mut contrary = storage;
    contrary["kind"] = json!("namespace");
    assert_eq!(made(&template("raw"), contrary).unwrap_err(), ["kind"]);
}

#[test]
fn what_namespace_machines_do_not_have_is_refused_by_name() {
    let many_ports: Vec<String> = (1..=65).map(|port| format!("{port}:80")).collect();
    let asked = [
        (json!({"network": {"address": "10.0.0.7/24"}}), "network.address"),
        (json!({"network": {"gateway": "10.0.0.1"}}), "network.address"),
        (json!({"network": {"bridge": "br0"}}), "network.bridge"),
        (json!({"network": {"dns": ["10.0.0.1"]}}), "network.dns"),
        (json!({"network": {"publish": ["80:80"]}}), "network.publish"),
        (json!({"network": {"name": "blue", "publish": ["80:80", "80"]}}), "network.publish[1]"),
        (json!({"network": {"name": "blue", "publish": ["80:80", "80:81"]}}), "network.publish[1]"),
        (json!({"network": {"name": "blue", "publish": many_ports}}), "network.publish"),
        (json!({"cloud_init": {"ssh_keys": []}}), "cloud_init"),
        (json!({"post_copy": true}), "post_copy"),
    ];
    for (fields, field) in asked {
        assert_eq!(made(&template("oci"), fields).unwrap_err(), [field]);
    }
}

#[test]
fn a_migratable_machine_has_nothing_of_one_host_and_says_what_speaks_against_it() {
    let migratable = json!({"mobility": "migratable"});
    let spec = made(&template("oci"), migratable.clone()).unwrap();
    assert_eq!(spec.mobility, Mobility::Migratable);
    assert_eq!(made(&template("oci"), json!({})).unwrap().mobility, Mobility::Usual);
    let mut bound = json!({"host": "h1", "volumes": ["data:/data", "/srv/www:/www:ro"]});
    bound["mobility"] = json!("migratable");
    assert_eq!(made(&template("oci"), bound).unwrap_err(), ["volumes[0]", "volumes[1]"]);
    let mut virtual_machine = migratable;
    virtual_machine["resources"] = json!({"cpu": 1, "memory_mb": 64, "storage_mb": 64});
    assert_eq!(made(&template("qcow2"), virtual_machine.clone()).unwrap_err(), ["mobility"]);
    virtual_machine["mobility"] = json!("usual");
    virtual_machine["post_copy"] = json!(true);
    assert_eq!(made(&template("qcow2"), virtual_machine).unwrap().mobility, Mobility::PostCopy);
}

#[test]
fn only_a_namespace_machine_is_on_a_tenant_network() {
    let on = json!({"network": {"name": "blue", "dns": ["10.0.0.1"]}});
    let card = made(&template("oci"), on.clone()).unwrap().network;
    assert_eq!((card.tenant, card.dns.len(), card.address), (Some(NetworkId::from_u128(1)), 1, None));
    let mut virtual_machine = on;
    virtual_machine["resources"] = json!({"cpu": 1, "memory_mb": 64, "storage_mb": 64});
    assert_eq!(made(&template("qcow2"), virtual_machine).unwrap_err(), ["network.name"]);
}

#[test]
fn an_archive_cannot_be_booted() {
    let image = |format: &str| json!({"path": "/images/a", "sha256": "0".repeat(64), "format": format});
    let boots = |kernel: &str, disk: &str| {
        let body = json!({"name": "a", "disk": image(disk), "boot": {"kernel": image(kernel)}});
        let body: TemplateCreate = serde_json::from_value(body).unwrap();
        TemplateSpec::try_from(&body).map(drop)
    };
    assert!(boots("raw", "qcow2").is_ok());
    for (kernel, disk) in [("raw", "oci"), ("raw", "rootfs"), ("oci", "raw"), ("rootfs", "raw")] {
        assert!(boots(kernel, disk).is_err(), "kernel {kernel}, disk {disk}");
    }
}
