//! HTTPS with the cluster's CA and a token, on one kept connection, as a real client has.

use anyhow::{Context, Result, bail};
use novacron_tests::lab::Node;
use novacron_transport::Identity;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// How long the coordinator may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// Trusts only the CA of the coordinator whose identity folder this is.
    pub fn new(url: &str, token: &str, identity: &Path) -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let identity = Identity::load(identity)?;
        let ca = reqwest::Certificate::from_der(identity.ca_der())?;
        let http = reqwest::Client::builder().tls_certs_only([ca]).build()?;
        Ok(Self { http, url: url.to_owned(), token: token.to_owned() })
    }

    /// Waits until the API says that it is ready.
    pub async fn until_ready(&self) -> Result<()> {
        let ready = async {
            loop {
                match self.http.get(format!("{}/health/ready", self.url)).send().await {
                    Ok(answer) if answer.status().is_success() => return,
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.context("the coordinator did not become ready")
    }

    /// The whole body that a `GET` is answered with.
    pub async fn get(&self, path: &str) -> Result<Vec<u8>> {
        let request = self.http.get(format!("{}{path}", self.url));
        self.send(request, &format!("GET {path}")).await
    }

    /// The same, as JSON.
    pub async fn show(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    /// The answer of a `POST`.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        Ok(serde_json::from_slice(&self.send(request, &format!("POST {path}")).await?)?)
    }

    async fn send(&self, request: reqwest::RequestBuilder, what: &str) -> Result<Vec<u8>> {
        let answer = request.bearer_auth(&self.token).send().await.with_context(|| what.to_owned())?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if !status.is_success() {
            bail!("{what}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body.to_vec())
    }

    /// Makes a machine that is not started.
    pub async fn create(&self, name: String) -> Result<()> {
        let resources = json!({"cpu": 1, "memory_mb": 16});
        let body = json!({"name": name, "template": "bench", "resources": resources, "start": false});
        self.post("/api/v1/vms", &body).await.map(drop)
    }
}

/// Runs `work` with its sockets on a node's network.
pub fn on_network_of<T: Send>(node: &Node, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    node.on_network(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}
