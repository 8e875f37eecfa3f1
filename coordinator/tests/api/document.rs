//! The OpenAPI document: it is served, it names every route, and its page is there.

use crate::cluster::TestCluster;
use novacron_common::{
    ids::{FireCause, FireKey, JobId, MigrationId},
    units::UnixMillis,
};
use reqwest::Method;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_operation_is_served() {
    let cluster = TestCluster::start().await;
    let document: Value = cluster.get("/api/v1/openapi.json").await.ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let (mut operations, mut untrue) = (0, Vec::new());
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path.split('/').map(concrete).collect::<Vec<_>>();
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            untrue.extend(untrue_of(&cluster, &method, &concrete.join("/"), operation).await);
            // A body that no request takes: it must be the handler that says so, or that nothing is named `x`.
            let answer = cluster
                .send_as(Some(&cluster.token), method.clone(), &concrete.join("/"), Some("[]".into()))
                .await;
            let text = &answer.body;
            assert!(!text.contains("does not serve"), "{method} {path}: {text}");
            assert!(!text.contains("there is no /"), "{method} {path} is not routed: {text}");
            operations += 1;
        }
    }
    assert!(untrue.is_empty(), "{untrue:#?}");
    assert!(operations >= 35, "only {operations} operations are documented");
    cluster.stop().await;
}

/// A segment of a path with something in its place that a handler can read; there is nothing of the name.
fn concrete(segment: &str) -> String {
    let (job, scheduled_at) = (JobId::from_u128(1), UnixMillis(0));
    match segment {
        "{migration}" => MigrationId::from_u128(1).to_string(),
        "{fire}" => FireKey { job, scheduled_at, cause: FireCause::Schedule }.to_string(),
        "{number}" => "1".to_owned(),
        one if one.starts_with('{') => "x".to_owned(),
        literal => literal.to_owned(),
    }
}

/// An operation has the parameter `stale` if it answers how old its answer is, `Idempotency-Key` if it minds a bad one.
/// Says which of them it has and does not take, or takes and does not have.
async fn untrue_of(cluster: &TestCluster, method: &Method, path: &str, operation: &Value) -> Vec<String> {
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    let has = |name: &str, place: &str| parameters.iter().any(|p| p["name"] == name && p["in"] == place);
    let is_stale = async || {
        let answer = cluster.get(&format!("{path}?stale=true")).await;
        answer.headers.contains_key("novacron-stale-age-ms")
    };
    let minds_its_key =
        async || cluster.post_keyed("a b", path, Value::Null).await.body.contains("Idempotency-Key");
    let stale = *method == Method::GET && is_stale().await;
    let keyed = *method == Method::POST && minds_its_key().await;
    let untrue = [
        ("stale", has("stale", "query") != stale),
        ("Idempotency-Key", has("Idempotency-Key", "header") != keyed),
    ];
    untrue.iter().filter(|(_, untrue)| *untrue).map(|(name, _)| format!("{method} {path}: {name}")).collect()
}

#[test]
fn the_endpoints_of_the_feature_list_are_in_the_document() {
    let document = serde_json::to_value(novacron_coordinator::http::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    for (method, path) in [
        ("get", "/api/v1/vms"),
        ("post", "/api/v1/vms"),
        ("get", "/api/v1/vms/{vm}"),
        ("put", "/api/v1/vms/{vm}"),
        ("delete", "/api/v1/vms/{vm}"),
        ("post", "/api/v1/vms/{vm}/start"),
        ("post", "/api/v1/vms/{vm}/stop"),
        ("post", "/api/v1/vms/{vm}/restart"),
        ("post", "/api/v1/vms/{vm}/migrate"),
        ("get", "/api/v1/vms/{vm}/console-log"),
        ("get", "/api/v1/vms/{vm}/console"),
        ("post", "/api/v1/jobs"),
        ("get", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/{job}"),
        ("put", "/api/v1/jobs/{job}"),
        ("delete", "/api/v1/jobs/{job}"),
        ("post", "/api/v1/jobs/{job}/execute"),
        ("get", "/api/v1/jobs/{job}/fires"),
        ("post", "/api/v1/workflows"),
        ("get", "/api/v1/workflows"),
        ("get", "/api/v1/workflows/{workflow}"),
        ("put", "/api/v1/workflows/{workflow}"),
        ("delete", "/api/v1/workflows/{workflow}"),
        ("post", "/api/v1/workflows/{workflow}/execute"),
        ("get", "/api/v1/workflows/{workflow}/runs/{run}"),
        ("post", "/api/v1/workflows/{workflow}/runs/{run}/nodes/{node}/approve"),
        ("get", "/api/v1/metrics"),
        ("get", "/metrics"),
        ("get", "/api/v1/ws"),
        ("get", "/health"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
    ] {
        assert!(paths.get(path).is_some_and(|item| item.get(method).is_some()), "{method} {path}");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["VmCreate", "VmView", "JobCreate", "MigrateRequest", "MigrationView", "Problem"] {
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    let text = document.to_string();
    for reference in text.split("#/components/schemas/").skip(1).map(|t| t.split('"').next().unwrap()) {
        assert!(schemas.contains_key(reference), "{reference} is referred to and not described");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_served_with_a_token_also_as_a_browsers_password_and_loads_nothing_from_elsewhere() {
    let cluster = TestCluster::start().await;
    assert!(cluster.get("/docs/").await.body.contains("swagger-ui"));
    let mut pages = vec!["/docs/".to_owned(), "/api/v1/openapi.json".to_owned()];
    while let Some(path) = pages.pop() {
        let answer = cluster.browse(Method::GET, &path, Some(&cluster.token)).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}: {answer:?}");
        if path != "/docs/" {
            continue;
        }
        for part in ["src=\"", "href=\""].iter().flat_map(|mark| answer.body.split(mark).skip(1)) {
            let link = part.split('"').next().unwrap();
            assert!(!link.contains("//"), "the page loads {link}");
            pages.push(format!("/docs/{}", link.trim_start_matches("./")));
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_asked_for_a_password_on_the_documentation_and_nowhere_else() {
    let cluster = TestCluster::start().await;
    let asks = |answer: &crate::cluster::Answer| {
        answer.problem(401, "unauthenticated", "");
        assert!(answer.challenges.iter().any(|c| c == "Bearer"), "{answer:?}");
        answer.challenges.iter().any(|c| c.starts_with("Basic realm=\"NovaCron\""))
    };
    let wrong = format!("{}x", cluster.token);
    for password in [None, Some(wrong.as_str()), Some("")] {
        assert!(asks(&cluster.browse(Method::GET, "/docs/", password).await));
        assert!(asks(&cluster.browse(Method::GET, "/api/v1/openapi.json", password).await));
    }
    // Even with the right password: a browser would send it along with what another site asks for.
    for (method, path) in [
        (Method::GET, "/api/v1/vms"),
        (Method::POST, "/api/v1/vms"),
        (Method::POST, "/docs/"),
        (Method::GET, "/"),
    ] {
        assert!(!asks(&cluster.browse(method, path, Some(&cluster.token)).await), "{path}");
    }
    cluster.stop().await;
}
