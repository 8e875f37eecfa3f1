//! A real single-node coordinator in this process, on loopback, with TLS and a token.

use novacron_common::{
    api::{JoinTokenCreate, JoinTokenCreated, JoinTokenRole, Problem},
    ids::HostId,
    wire::{Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, StreamKind},
};
use novacron_coordinator::{
    config::{Config, HttpConfig, Listen, LogConfig, LogFormat},
    init::init,
    join::join,
    run::Coordinator,
    service,
};
use novacron_transport::{Endpoint, Identity, certificate_request};
use reqwest::{Client, Method, Response, StatusCode, header::HeaderMap};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A coordinator and a client that pins its CA.
pub struct TestCluster {
    pub coordinator: Coordinator,
    pub token: String,
    pub ca: Vec<u8>,
    pub api: SocketAddr,
    pub quic: SocketAddr,
    client: Client,
    _folder: TempDir,
}

/// The answer to a request, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: String,
    /// The schemes that a 401 offers.
    pub challenges: Vec<String>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body, if the request succeeded.
    pub fn ok<T: DeserializeOwned>(&self) -> T {
        assert!(self.status.is_success(), "{self:?}");
        self.json()
    }

    /// The problem, which must have this code, name this field (unless empty) and be a complete problem.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str, field: &str) -> Problem {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem: Problem = self.json();
        assert_eq!(serde_json::to_value(problem.code).unwrap(), code, "{self:?}");
        assert_eq!(problem.status, status, "{self:?}");
        let named = field.is_empty() || problem.details.iter().any(|fault| fault.field == field);
        assert!(named, "{field:?} is not named: {problem:?}");
        assert!(!problem.cause.is_empty(), "{problem:?}");
        problem
    }
}

/// A loopback address that nobody has now, below the ports that the kernel gives out by itself (32768 and up):
/// another test must not be given it before it is bound. Each process of tests begins its search elsewhere.
fn free(is_free: impl Fn(SocketAddr) -> bool) -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let step = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(12_000 + step % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if is_free(address) {
            return address;
        }
    }
}

fn config(folder: &TempDir, name: &str) -> Config {
    let quic = free(|address| UdpSocket::bind(address).is_ok());
    let https = free(|address| TcpListener::bind(address).is_ok());
    Config {
        name: name.parse().unwrap(),
        data_dir: folder.path().join("data"),
        seal_key: folder.path().join("seal.key"),
        quic: Listen { listen: quic, advertise: quic },
        http: HttpConfig { listen: https, advertise: https, plain_loopback: None },
        certificate_validity: Duration::from_secs(3600),
        jobs: novacron_coordinator::config::JobsConfig::default(),
        log: LogConfig { level: "info".into(), format: LogFormat::Text },
    }
}

/// With `RUST_LOG`, what happens is shown.
fn log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.install_default().expect("nobody else installs a provider");
        if let Ok(filter) = std::env::var("RUST_LOG") {
            let filter: tracing_subscriber::EnvFilter = filter.parse().expect("RUST_LOG");
            tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
        }
    });
}

/// The founder's ledger was open in this same process a moment ago, and openraft's tasks let go of it a little
/// later. A coordinator that is started too early would fail with its port bound.
async fn until_closed(config: &Config) {
    let folder = config.ledger_dir();
    eventually("the founder's ledger is closed", async || novacron_store::Store::open(&folder).is_ok()).await;
}

impl TestCluster {
    /// A new cluster with one coordinator.
    pub async fn start() -> Self {
        log();
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, "c1");
        let token = init(&config).await.unwrap().token.to_string();
        until_closed(&config).await;
        Self::run(config, folder, token).await
    }

    /// One more coordinator for `founder`'s cluster.
    pub async fn join(founder: &Self) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(2);
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder, &format!("c{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let asked = JoinTokenCreate { role: JoinTokenRole::Coordinator, ..JoinTokenCreate::default() };
        let token: JoinTokenCreated = founder.post("/api/v1/hosts/join-tokens", asked).await.ok();
        join(&config, &token.token).await.unwrap();
        Self::run(config, folder, founder.token.clone()).await
    }

    async fn run(config: Config, folder: TempDir, token: String) -> Self {
        let (api, quic) = (config.http.listen, config.quic.listen);
        let ca = Identity::load(&config.identity_dir()).unwrap().ca_der().to_vec();
        let coordinator = Coordinator::start(config, service::start).await.unwrap();
        let client =
            Client::builder().tls_certs_only([reqwest::Certificate::from_der(&ca).unwrap()]).build().unwrap();
        let cluster = Self { coordinator, token, ca, api, quic, client, _folder: folder };
        cluster.until_ready().await;
        cluster
    }

    async fn until_ready(&self) {
        eventually("the API is ready", async || {
            let url = format!("https://{}/health/ready", self.api);
            self.client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.api)
    }

    async fn read(response: Response) -> Answer {
        let status = response.status();
        let headers = response.headers().clone();
        let content_type = headers.get("content-type");
        let content_type = content_type.map_or("", |v| v.to_str().unwrap()).to_owned();
        let challenges = response.headers().get_all("www-authenticate").iter();
        let challenges = challenges.map(|scheme| scheme.to_str().unwrap().to_owned()).collect();
        Answer { status, content_type, challenges, headers, body: response.text().await.unwrap() }
    }

    /// A request with this token (or none).
    pub async fn send_as(
        &self,
        token: Option<&str>,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Answer {
        let mut request = self.client.request(method, self.url(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        Self::read(request.send().await.unwrap()).await
    }

    /// As a browser asks: with a password, once it was asked for one.
    pub async fn browse(&self, method: Method, path: &str, password: Option<&str>) -> Answer {
        let request = self.client.request(method, self.url(path));
        let request = match password {
            Some(password) => request.basic_auth("me", Some(password)),
            None => request,
        };
        Self::read(request.send().await.unwrap()).await
    }

    /// A POST with an `Idempotency-Key`.
    pub async fn post_keyed(&self, key: &str, path: &str, body: impl Serialize) -> Answer {
        let request = self.client.post(self.url(path)).bearer_auth(&self.token);
        Self::read(request.header("idempotency-key", key).json(&body).send().await.unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send_as(Some(&self.token), Method::GET, path, None).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send_as(Some(&self.token), Method::DELETE, path, None).await
    }

    pub async fn post(&self, path: &str, body: impl Serialize) -> Answer {
        self.post_text(path, &serde_json::to_string(&body).unwrap()).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        self.send_as(Some(&self.token), Method::POST, path, Some(body.to_owned())).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send_as(Some(&self.token), Method::PUT, path, Some(body.to_string())).await
    }

    /// Everything that a request could have changed, to be compared before and after.
    pub fn snapshot(&self) -> Vec<(novacron_core::TableId, Vec<u8>, Vec<u8>)> {
        self.coordinator.parts.ledger.read(|state| {
            let rows = state.rows().filter(|(table, ..)| *table != novacron_core::TableId::Clock);
            rows.collect()
        })
    }

    /// Shows a join token as a new agent would.
    pub async fn enrol(&self, token: &JoinToken, name: &str) -> Result<(Identity, HostId), JoinDenied> {
        let (key, csr) = certificate_request().unwrap();
        let purpose = JoinPurpose::Agent { name: name.parse().unwrap(), rejoin: None };
        let request = JoinRequest { token: token.id, secret: token.secret, purpose, csr };
        let link = Endpoint::enroll(self.quic, token.ca).await.unwrap();
        let mut stream = link.open(StreamKind::Join).await.unwrap();
        stream.send(&request).await.unwrap();
        stream.finish();
        let enrolled = stream.recv::<Result<Enrolled, JoinDenied>>().await.unwrap()?;
        let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key).unwrap();
        Ok((identity, enrolled.host.unwrap()))
    }

    pub async fn join_token(&self) -> JoinToken {
        let made: JoinTokenCreated =
            self.post("/api/v1/hosts/join-tokens", JoinTokenCreate::default()).await.ok();
        made.token.parse().unwrap()
    }

    pub async fn stop(self) {
        self.coordinator.stop().await;
    }

    /// Stops it and starts it again on its files.
    pub async fn restart(self) -> Self {
        let config = Config::clone(&self.coordinator.parts.config);
        self.coordinator.stop().await;
        until_closed(&config).await;
        Self::run(config, self._folder, self.token).await
    }
}

/// Waits until `holds`, for at most a minute.
pub async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < Duration::from_secs(60), "it did not come to pass that {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
