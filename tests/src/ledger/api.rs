//! The HTTPS API as a client sees it whose servers die under it: an answer, or none at all.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Longer than a coordinator's own deadline, so that its answer is heard.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a request that may be repeated is.
const AGAIN: Duration = Duration::from_millis(50);

/// What a server said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` if there is none.
    pub body: Value,
}

impl Answer {
    /// The body, if the answer is good.
    ///
    /// # Errors
    /// When the status is not 2xx, or the body is something else.
    pub fn into<T: DeserializeOwned>(self) -> Result<T> {
        ensure!((200..300).contains(&self.status), "{}: {}", self.status, self.body);
        let said = self.body.to_string();
        serde_json::from_value(self.body).with_context(|| format!("unexpected answer {said}"))
    }
}

/// A client of all coordinators. Belongs to the runtime that it was made in.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    servers: Vec<String>,
    token: String,
}

impl Api {
    /// For these servers (`https://address:port`), whose certificates come from this CA (DER).
    ///
    /// # Errors
    /// When the CA is no certificate.
    pub fn new(servers: Vec<String>, token: &str, ca: &[u8]) -> Result<Self> {
        // Another client of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = reqwest::Certificate::from_der(ca).context("reading the CA's certificate")?;
        let http = reqwest::Client::builder()
            .tls_certs_only([ca])
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .build()?;
        Ok(Self { http, servers, token: token.to_owned() })
    }

    /// How many servers it knows.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Asks one server, once.
    ///
    /// # Errors
    /// When it does not answer: whether it did what was asked is then not known.
    pub async fn send(
        &self,
        server: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let url = format!("{}{path}", self.servers[server % self.servers.len()]);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await?;
        Ok(Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) })
    }

    /// Reads from one server, once.
    ///
    /// # Errors
    /// When it does not answer well.
    pub async fn get<T: DeserializeOwned>(&self, server: usize, path: &str) -> Result<T> {
        let answer = self.send(server, Method::GET, path, None).await;
        answer.and_then(Answer::into).with_context(|| format!("GET {path}"))
    }

    /// Reads a text from one server, once.
    ///
    /// # Errors
    /// When it does not answer well.
    pub async fn text(&self, server: usize, path: &str) -> Result<String> {
        let url = format!("{}{path}", self.servers[server % self.servers.len()]);
        let answer = self.http.get(url).bearer_auth(&self.token).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Asks one server after the other until one answers well or with a refusal, at most `limit`. Only for what may be
    /// done twice.
    ///
    /// # Errors
    /// When none does.
    pub async fn insist(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer> {
        let deadline = tokio::time::Instant::now() + limit;
        for server in 0.. {
            let answer = self.send(server, method.clone(), path, body).await;
            match answer {
                Ok(answer) if answer.status < 500 => return Ok(answer),
                said if tokio::time::Instant::now() > deadline => {
                    bail!("{method} {path} within {limit:?}: {said:?}")
                }
                _ => tokio::time::sleep(AGAIN).await,
            }
        }
        bail!("no server to ask")
    }
}
