//! Bad input: each has a clear problem that names the field, and nothing changed.

use crate::{
    cluster::{Answer, TestCluster, eventually},
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use novacron_common::{
    api::{HostState, HostView, JobView, TemplateView, VmView},
    record::VmState,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Sends it and asserts that nothing changed.
async fn harmless(cluster: &TestCluster, method: Method, path: &str, body: &str) -> Answer {
    let before = cluster.snapshot();
    let answer = cluster.send_as(Some(&cluster.token), method, path, Some(body.to_owned())).await;
    assert!(
        cluster.snapshot() == before,
        "{path} with {body} was refused and yet changed something: {answer:?}"
    );
    answer
}

async fn refused(cluster: &TestCluster, path: &str, body: &Value) -> Answer {
    harmless(cluster, Method::POST, path, &body.to_string()).await
}

/// The document with one value replaced, by JSON pointer.
fn with(mut body: Value, at: &str, value: Value) -> Value {
    let (parent, key) = at.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[key] = value;
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_json_or_has_unknown_fields_is_refused() {
    let cluster = TestCluster::start().await;
    for path in ["/api/v1/vms", "/api/v1/jobs", "/api/jobs", "/api/v1/templates", "/api/v1/tokens"] {
        for body in ["", "{", "nonsense", "{\"name\": \"a\",}", "[1]"] {
            let problem =
                harmless(&cluster, Method::POST, path, body).await.problem(400, "invalid_request", "body");
            assert!(problem.cause.contains("line 1 column"), "{path} {body}: {problem:?}");
        }
    }
    for (path, body, field) in [
        ("/api/v1/vms", with(vm("a"), "/resources/memory_gib", json!(1)), "resources.memory_gib"),
        ("/api/v1/vms", with(vm("a"), "/memory", json!(1)), "memory"),
        ("/api/v1/templates", with(template(), "/boot/kernel/sha1", json!("x")), "boot.kernel.sha1"),
        ("/api/v1/jobs", json!({ "name": "a", "schedule": "@daily", "shedule": "x" }), "shedule"),
        ("/api/v1/tokens", json!({ "name": "a", "rights": "all" }), "rights"),
        ("/api/v1/hosts/join-tokens", json!({ "ttl": 5 }), "ttl"),
        ("/api/v1/vms/x/migrate", json!({ "target": "x" }), "target"),
        ("/api/v1/vms", json!({ "template": "x", "resources": { "cpu": 1 } }), "name"),
        ("/api/v1/vms", with(vm("a"), "/resources/cpu", json!("two")), "resources.cpu"),
    ] {
        refused(&cluster, path, &body).await.problem(400, "invalid_request", field);
    }
    for twice in [
        r#"{"name": "a", "schedule": "@daily", "name": "b"}"#,
        r#"{"name": "a", "schedule": "@daily", "schedule": "@hourly"}"#,
    ] {
        let problem =
            harmless(&cluster, Method::POST, "/api/v1/jobs", twice).await.problem(400, "invalid_request", "");
        assert!(problem.cause.contains("duplicate field"), "{problem:?}");
    }
    cluster.get("/api/v1/vms?page=2").await.problem(400, "invalid_request", "page");
    cluster.get("/api/v1/vms?limit=0").await.problem(400, "invalid_request", "limit");
    cluster.get("/api/v1/vms?limit=x").await.problem(400, "invalid_request", "limit");
    cluster.get("/api/v1/vms?cursor=x").await.problem(400, "invalid_request", "cursor");
    cluster.get("/api/v1/vms?status=jogging").await.problem(400, "invalid_request", "status");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_methods_and_sizes_are_refused_as_problems() {
    let cluster = TestCluster::start().await;
    cluster.get("/api/v1/nothing").await.problem(404, "not_found", "");
    cluster.get("/api/nothing").await.problem(404, "not_found", "");
    for what in ["vms", "hosts", "templates", "migrations", "jobs", "workflows"] {
        cluster.get(&format!("/api/v1/{what}/no-such")).await.problem(404, "not_found", "");
    }
    let patched =
        cluster.send_as(Some(&cluster.token), Method::PATCH, "/api/v1/vms", Some("{}".into())).await;
    patched.problem(405, "invalid_request", "");
    let large = json!({ "name": "a".repeat(1 << 20), "schedule": "@daily" });
    refused(&cluster, "/api/v1/jobs", &large).await.problem(413, "too_large", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_sizes_unknown_templates_and_taken_names_are_refused() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    refused(&cluster, "/api/v1/vms", &vm("a")).await.problem(400, "invalid_request", "template");
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    refused(&cluster, "/api/v1/templates", &template()).await.problem(409, "name_taken", "");
    for (at, value, field) in [
        ("/resources/cpu", json!(0), "resources.cpu"),
        ("/resources/cpu", json!(100_000), "resources.cpu"),
        ("/resources/memory_gb", json!(0), "resources.memory_gb"),
        ("/resources/memory_gb", json!(u64::MAX), "resources.memory_gb"),
        ("/resources/storage_gb", json!(u64::MAX), "resources.storage_gb"),
        ("/resources/storage_gb", json!(1 << 30), "resources.storage_gb"),
        ("/resources/memory_mb", json!(512), "resources.memory_mb"),
        ("/name", json!("../escape"), "name"),
        ("/name", json!(""), "name"),
        ("/host", json!("no-such"), "host"),
        ("/cmdline", json!("x".repeat(5000)), "cmdline"),
        ("/network", json!({ "address": "10.0.0.999/24" }), "network.address"),
        ("/network", json!({ "bridge": "much-too-long-for-linux" }), "network.bridge"),
        ("/cloud_init", json!({ "ssh_keys": ["nokey"] }), "cloud_init.ssh_keys[0]"),
    ] {
        refused(&cluster, "/api/v1/vms", &with(vm("a"), at, value)).await.problem(
            400,
            "invalid_request",
            field,
        );
    }
    let hungry = with(vm("a"), "/resources/memory_gb", json!(9));
    let problem = refused(&cluster, "/api/v1/vms", &hungry).await.problem(409, "no_placement", "host-1");
    assert!(problem.details[0].reason.contains("short of memory by 1.0 GiB"), "{problem:?}");

    let made: VmView = cluster.post("/api/v1/vms", vm("a")).await.ok();
    until(&cluster, "a", VmState::Running).await;
    refused(&cluster, "/api/v1/vms", &vm("a")).await.problem(409, "name_taken", "");
    cluster.post("/api/v1/vms", vm("b")).await.ok::<VmView>();
    until(&cluster, "b", VmState::Running).await;
    let body = json!({ "name": "b" }).to_string();
    let path = format!("/api/v1/vms/{}", made.id);
    harmless(&cluster, Method::PUT, &path, &body).await.problem(409, "name_taken", "");
    harmless(&cluster, Method::PUT, &path, r#"{"name":"a b"}"#).await.problem(400, "invalid_request", "name");
    let body = json!({ "grace_seconds": 100_000 }).to_string();
    harmless(&cluster, Method::POST, &format!("{path}/stop"), &body).await.problem(
        400,
        "invalid_request",
        "grace_seconds",
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_templates_are_refused() {
    let cluster = TestCluster::start().await;
    for (at, value, field) in [
        ("/boot/kernel/sha256", json!("abc"), "boot.kernel.sha256"),
        ("/boot/kernel/path", json!("relative"), "boot.kernel.path"),
        ("/boot/kernel/url", json!("http://x/y"), "boot.kernel"),
        ("/boot/kernel/format", json!("vmdk"), "boot.kernel.format"),
        ("/boot/cmdline", json!("a\nb"), "boot.cmdline"),
        ("/boot", json!(null), "disk"),
        ("/disk", json!({ "url": "ftp://x", "sha256": "ab".repeat(32), "format": "raw" }), "disk.url"),
    ] {
        let body = with(template(), at, value);
        refused(&cluster, "/api/v1/templates", &body).await.problem(400, "invalid_request", field);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_and_zones_that_cannot_be_parsed_are_refused() {
    let cluster = TestCluster::start().await;
    let job = json!({ "name": "a", "schedule": "@daily" });
    for (at, value, field) in [
        ("/schedule", json!("61 * * * *"), "schedule"),
        ("/schedule", json!("every day"), "schedule"),
        ("/schedule", json!("* ".repeat(300)), "schedule"),
        ("/timezone", json!("Mars/Base"), "timezone"),
        ("/timeout", json!("1 year"), "timeout"),
        ("/timeout", json!(0), "timeout"),
        ("/priority", json!(10), "priority"),
        ("/max_retries", json!(1000), "max_retries"),
        ("/name", json!("a b"), "name"),
        ("/target", json!({ "type": "command", "command": [] }), "target.command"),
        ("/target", json!({ "type": "command", "command": ["x"], "memory_mb": 1 }), "target.memory_mb"),
        ("/target", json!({ "type": "command", "command": ["x"], "image": "../etc" }), "target.image"),
        (
            "/target",
            json!({ "type": "command", "command": ["x"], "working_dir": "here" }),
            "target.working_dir",
        ),
        ("/target", json!({ "type": "shell" }), "target.type"),
    ] {
        let body = with(job.clone(), at, value);
        refused(&cluster, "/api/v1/jobs", &body).await.problem(400, "invalid_request", field);
    }
    let typo = with(job.clone(), "/timezone", json!("Europe/Berlni"));
    let problem = refused(&cluster, "/api/jobs", &typo).await.problem(400, "invalid_request", "timezone");
    assert!(problem.cause.contains("Europe/Berlin"), "{problem:?}");

    cluster.post("/api/v1/jobs", &job).await.ok::<JobView>();
    refused(&cluster, "/api/v1/jobs", &job).await.problem(409, "name_taken", "");
    harmless(&cluster, Method::PUT, "/api/v1/jobs/a", r#"{"schedule":"no"}"#).await.problem(
        400,
        "invalid_request",
        "schedule",
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_and_targets_of_jobs_that_make_no_sense_are_refused() {
    let cluster = TestCluster::start().await;
    let job = json!({ "name": "a", "schedule": "@daily" });
    let command = |more: Value| {
        let mut target = json!({ "type": "command", "command": ["x"] });
        target.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        target
    };
    let vm = |verb: &str| json!({ "type": "vm", "vm": "web-1", "verb": verb });
    let http = |url: &str| json!({ "type": "http", "url": url });
    for (at, value, field) in [
        ("/schedule", json!("0 0 30 2 *"), "schedule"),
        ("/concurrency", json!({ "queue": { "max": 0 } }), "concurrency.queue.max"),
        ("/concurrency", json!("serial"), "concurrency"),
        ("/misfire", json!({ "policy": "all", "max": 0 }), "misfire.max"),
        ("/misfire", json!({ "window": "soon" }), "misfire.window"),
        ("/start_deadline", json!("never"), "start_deadline"),
        ("/jitter", json!("2d"), "jitter"),
        ("/retry", json!({ "backoff": { "factor_percent": 50 } }), "retry.backoff.factor_percent"),
        ("/retry", json!({ "retry_on": { "exit_codes": [0] } }), "retry.retry_on.exit_codes"),
        ("/retry", json!({ "max_retries": 101 }), "retry.max_retries"),
        ("/retention", json!({ "fires": 0 }), "retention.fires"),
        ("/labels", json!({ "a b": "c" }), "labels.a b"),
        ("/dst", json!({ "gap": "never" }), "dst.gap"),
        ("/target", command(json!({ "env": { "A": "x".repeat(40_000) } })), "target.command"),
        ("/target", command(json!({ "env": { "NOVACRON_EPOCH": "1" } })), "target.env.NOVACRON_EPOCH"),
        ("/target", command(json!({ "stdin": "x".repeat(16 * 1024 + 1) })), "target.stdin"),
        ("/target", http("ftp://example.org"), "target.url"),
        ("/target", vm("explode"), "target.verb"),
    ] {
        let body = with(job.clone(), at, value);
        refused(&cluster, "/api/v1/jobs", &body).await.problem(400, "invalid_request", field);
    }
    for verb in ["clone", "snapshot", "backup", "delete"] {
        let body = with(job.clone(), "/target", vm(verb));
        let problem =
            refused(&cluster, "/api/v1/jobs", &body).await.problem(400, "invalid_request", "target.verb");
        assert!(problem.details[0].reason.contains(verb), "{problem:?}");
    }
    let twice = r#"{"name":"a","schedule":"@daily","labels":{"team":"db","team":"web"}}"#;
    let answer = harmless(&cluster, Method::POST, "/api/v1/jobs", twice).await;
    assert!(answer.problem(400, "invalid_request", "labels").details[0].reason.contains("twice"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_to_unknown_same_down_or_full_hosts_are_refused() {
    let cluster = TestCluster::start().await;
    let _one = FakeAgent::join(&cluster, "node-1").await;
    let two = FakeAgent::join(&cluster, "node-2").await;
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    let on = |name: &str, host: &str, gb: u64| {
        with(with(vm(name), "/host", json!(host)), "/resources/memory_gb", json!(gb))
    };
    cluster.post("/api/v1/vms", on("web-1", "node-1", 4)).await.ok::<VmView>();
    cluster.post("/api/v1/vms", on("big", "node-2", 6)).await.ok::<VmView>();
    cluster.post("/api/v1/vms", with(vm("off"), "/start", json!(false))).await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    until(&cluster, "big", VmState::Running).await;
    until(&cluster, "off", VmState::Stopped).await;

    let path = "/api/v1/vms/web-1/migrate";
    let to = |host: &str| json!({ "target_host": host });
    refused(&cluster, path, &to("no-such")).await.problem(400, "invalid_request", "target_host");
    refused(&cluster, path, &to("node-1")).await.problem(409, "conflict", "");
    let full = refused(&cluster, path, &to("node-2")).await.problem(409, "no_placement", "node-2");
    assert!(full.details[0].reason.contains("memory"), "{full:?}");
    refused(&cluster, path, &json!({})).await.problem(409, "no_placement", "node-2");
    refused(&cluster, "/api/v1/vms/no-such/migrate", &to("node-2")).await.problem(404, "not_found", "");
    let stopped =
        refused(&cluster, "/api/v1/vms/off/migrate", &json!({ "target_host": "node-2", "live": true })).await;
    assert_eq!(stopped.status.as_u16(), 409, "{stopped:?}");

    two.crash().await;
    let down = async || cluster.get("/api/v1/hosts/node-2").await.ok::<HostView>().state == HostState::Down;
    eventually("node-2 is down", down).await;
    let answer = refused(&cluster, path, &to("node-2")).await;
    assert_eq!(answer.status.as_u16(), 409, "{answer:?}");
    cluster.stop().await;
}
