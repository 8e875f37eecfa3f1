//! HTTPS to the API: one method a verb, and problems as errors.

use crate::{error::CtlError, retry, settings::Settings, tls};
use novacron_common::api::{Page, Problem};
use reqwest::{Method, Response, header};
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// How long an answer may take. Long work is asked for and then watched, not waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Longest time that output is followed: a week, the longest that an attempt may take, and a day.
const FOLLOW_MAX: Duration = Duration::from_secs(8 * 24 * 3600);

/// A client of one cluster.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The settings that it was made from.
    pub settings: Settings,
}

impl Client {
    /// Connects lazily.
    pub fn new(settings: Settings) -> Result<Self, CtlError> {
        let broken = |e: Box<dyn std::error::Error + Send + Sync>| CtlError::Unreachable {
            server: settings.server.clone(),
            cause: e,
        };
        let mut builder = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("novactl/", env!("CARGO_PKG_VERSION")));
        builder = match settings.ca {
            Some(ca) => builder.tls_backend_preconfigured(tls::pinned(ca).map_err(|e| broken(e.into()))?),
            // Plain HTTP on loopback: reqwest still wants a TLS configuration, and this one trusts nobody.
            None => {
                let nobody = novacron_common::spec::Sha256Digest([0; 32]);
                builder.tls_backend_preconfigured(tls::pinned(nobody).map_err(|e| broken(e.into()))?)
            }
        };
        let http = builder.build().map_err(|e| broken(e.into()))?;
        Ok(Self { http, settings })
    }

    /// `GET`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CtlError> {
        parse(&self.send(Method::GET, path, None::<&()>).await?)
    }

    /// `POST`, with or without a body.
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, CtlError> {
        parse(&self.send(Method::POST, path, body).await?)
    }

    /// `PUT`.
    pub async fn put<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, CtlError> {
        parse(&self.send(Method::PUT, path, Some(body)).await?)
    }

    /// `DELETE`, whatever it answers.
    pub async fn delete(&self, path: &str) -> Result<(), CtlError> {
        self.send(Method::DELETE, path, None::<&()>).await.map(|_| ())
    }

    /// `GET` of plain bytes.
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, CtlError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// `GET` of plain bytes that come as they are made, for as long as they come.
    pub async fn follow(
        &self,
        path: &str,
        mut show: impl FnMut(&[u8]) -> Result<(), CtlError>,
    ) -> Result<(), CtlError> {
        let request = self.request(Method::GET, path).timeout(FOLLOW_MAX);
        let mut response = request.send().await.map_err(|e| self.unreachable(e))?;
        if let Some(status) = problem_status(&response) {
            return Err(as_problem(status, &response.bytes().await.map_err(|e| self.unreachable(e))?));
        }
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            show(&chunk)?;
        }
        Ok(())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.settings.server))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.settings.token))
    }

    fn unreachable(&self, cause: reqwest::Error) -> CtlError {
        CtlError::Unreachable { server: self.settings.server.clone(), cause: cause.without_url().into() }
    }

    /// Every item of a list, page by page.
    pub async fn all<T: DeserializeOwned>(&self, path: &str, query: &str) -> Result<Vec<T>, CtlError> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page<T> = self.get(&format!("{path}?limit=1000{query}{cursor}")).await?;
            items.extend(page.items);
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// `GET` of what is too long for memory, as it comes.
    pub async fn stream(&self, path: &str) -> Result<Response, CtlError> {
        let response = self.request(Method::GET, path).timeout(FOLLOW_MAX).send().await;
        let response = response.map_err(|cause| self.unreachable(cause))?;
        match problem_status(&response) {
            None => Ok(response),
            Some(status) => {
                let bytes = response.bytes().await.map_err(|cause| self.unreachable(cause))?;
                Err(as_problem(status, &bytes))
            }
        }
    }

    /// A `POST` that may have been done although its answer was lost is sent again with the same key: the cluster
    /// does it once. What only looks is simply asked again.
    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<Vec<u8>, CtlError> {
        let key = (method == Method::POST).then(retry::key).flatten();
        let again = method == Method::GET || key.is_some();
        let mut pauses = retry::PAUSES.iter();
        loop {
            let error = match self.send_once(method.clone(), path, key.as_deref(), body).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match pauses.next() {
                Some(pause) if again && retry::may_pass(&error) => tokio::time::sleep(*pause).await,
                _ => return Err(error),
            }
        }
    }

    async fn send_once<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&B>,
    ) -> Result<Vec<u8>, CtlError> {
        let mut request = self.request(method, path);
        if let Some(key) = key {
            request = request.header(retry::HEADER, key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|cause| self.unreachable(cause))?;
        let failed = problem_status(&response);
        let bytes = response.bytes().await.map_err(|cause| self.unreachable(cause))?.to_vec();
        match failed {
            None => Ok(bytes),
            Some(status) => Err(as_problem(status, &bytes)),
        }
    }
}

fn problem_status(response: &Response) -> Option<u16> {
    (!response.status().is_success()).then(|| response.status().as_u16())
}

fn as_problem(status: u16, bytes: &[u8]) -> CtlError {
    match serde_json::from_slice::<Problem>(bytes) {
        Ok(problem) => CtlError::Problem(Box::new(problem)),
        Err(_) => CtlError::Outcome(format!("the server answered {status} without saying why")),
    }
}

/// An empty body reads as `null`.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CtlError> {
    let bytes = if bytes.is_empty() { b"null" } else { bytes };
    serde_json::from_slice(bytes).map_err(CtlError::Answer)
}
