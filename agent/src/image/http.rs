//! Fetching over http(s) by the rules of [`super::url`].
//!
//! Names are looked up here, every address is checked, and the connection is pinned to the checked addresses, so
//! that a second answer of the name server cannot lead elsewhere. Redirects are followed by hand, each one
//! checked like the first address.

use super::{
    ImageError,
    url::{self, Allowed, Checked, Host, UrlFault},
};
use futures_util::TryStreamExt;
use novacron_common::units::ByteCount;
use reqwest::{Client, Response, StatusCode, header::LOCATION, redirect::Policy};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    time::Duration,
};
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A server that sends nothing for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An image on its way.
pub struct Body {
    /// Its length, if the server says.
    pub length: Option<ByteCount>,
    /// Its bytes.
    pub bytes: Pin<Box<dyn AsyncRead + Send>>,
}

/// Asks for `address`, following redirects.
///
/// # Errors
/// [`ImageError::Url`] if an address is refused, [`ImageError::Http`] or [`ImageError::Status`] if the transfer
/// cannot begin.
pub async fn open(address: &str, allowed: &[Allowed]) -> Result<Body, ImageError> {
    let refused = |url: &str| {
        let url = url.to_owned();
        move |cause| ImageError::Url { url, cause }
    };
    let mut next = url::check(address).map_err(refused(address))?;
    for _ in 0..=REDIRECTS_MAX {
        let response = ask(&next, allowed).await?;
        if !response.status().is_redirection() {
            return body(response);
        }
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or(UrlFault::NoLocation).map_err(refused(next.url.as_str()))?;
        next = url::check_redirect(&next.url, location).map_err(refused(location))?;
    }
    Err(refused(address)(UrlFault::Redirects(REDIRECTS_MAX)))
}

fn body(response: Response) -> Result<Body, ImageError> {
    if response.status() != StatusCode::OK {
        let url = response.url().to_string();
        return Err(ImageError::Status { url, status: response.status().as_u16() });
    }
    let length = response.content_length().map(ByteCount);
    let bytes = Box::pin(StreamReader::new(response.bytes_stream().map_err(io::Error::other)));
    Ok(Body { length, bytes })
}

/// One request, to none but the checked addresses.
async fn ask(to: &Checked, allowed: &[Allowed]) -> Result<Response, ImageError> {
    let addresses = resolve(to).await;
    let bare: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).collect();
    url::check_addresses(&to.host, &bare, allowed)
        .map_err(|cause| ImageError::Url { url: to.url.to_string(), cause })?;
    let failed = |cause| ImageError::Http { url: to.url.to_string(), cause };
    let client = client(to, &addresses).map_err(failed)?;
    client.get(to.url.clone()).send().await.map_err(failed)
}

/// A client for requests to this address alone, over connections to these addresses alone.
///
/// # Errors
/// reqwest's, if there are no root certificates.
pub fn client(to: &Checked, addresses: &[SocketAddr]) -> Result<Client, reqwest::Error> {
    install_crypto();
    let builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy() // a proxy would look names up for itself
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .user_agent(concat!("novacron-agent/", env!("CARGO_PKG_VERSION")));
    match to.url.host_str() {
        Some(name) if matches!(to.host, Host::Name(_)) => builder.resolve_to_addrs(name, addresses).build(),
        _ => builder.build(),
    }
}

/// The tree has one cryptographic library; reqwest takes the process's default.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may have been faster: then theirs is the default, and it is the same.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

/// The host's addresses; none if it cannot be looked up.
pub async fn resolve(to: &Checked) -> Vec<SocketAddr> {
    match &to.host {
        Host::Address(address) => vec![SocketAddr::new(*address, to.port)],
        Host::Name(name) => match tokio::net::lookup_host((name.as_str(), to.port)).await {
            Ok(found) => found.collect(),
            Err(error) => {
                tracing::debug!(name, %error, "name lookup");
                Vec::new()
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::TcpListener,
    };

    /// Serves canned answers by path on loopback, for this test process only.
    async fn server(answers: &'static [(&'static str, &'static str)]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers: HashMap<_, _> = answers.iter().copied().collect();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let path = line.split(' ').nth(1).unwrap_or("/");
                let answer =
                    answers.get(path).copied().unwrap_or("404 Not Found\r\ncontent-length: 0\r\n\r\n");
                let answer = answer.replace("PORT", &address.port().to_string());
                stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).await.unwrap();
            }
        });
        address
    }

    const ANSWERS: &[(&str, &str)] = &[
        ("/image", "200 OK\r\ncontent-length: 5\r\n\r\nhello"),
        ("/moved", "302 Found\r\nlocation: /image\r\ncontent-length: 0\r\n\r\n"),
        ("/inward", "302 Found\r\nlocation: http://127.0.0.2:PORT/image\r\ncontent-length: 0\r\n\r\n"),
        (
            "/metadata",
            "307 Temporary Redirect\r\nlocation: http://169.254.169.254/x\r\ncontent-length: 0\r\n\r\n",
        ),
        ("/file", "302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n"),
        ("/round", "301 Moved\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n"),
    ];

    async fn get(path: &str, allowed: &[&str]) -> Result<String, ImageError> {
        let allowed: Vec<Allowed> = allowed.iter().map(|entry| entry.parse().unwrap()).collect();
        let address = server(ANSWERS).await;
        let mut body = open(&format!("http://{address}{path}"), &allowed).await?;
        let mut text = String::new();
        body.bytes.read_to_string(&mut text).await.unwrap();
        assert_eq!(body.length, Some(ByteCount(text.len() as u64)));
        Ok(text)
    }

    #[tokio::test]
    async fn loopback_is_refused_unless_it_is_listed() {
        assert!(matches!(get("/image", &[]).await, Err(ImageError::Url { .. })));
        assert_eq!(get("/image", &["127.0.0.1"]).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_checked_like_a_first_address() {
        assert_eq!(get("/moved", &["127.0.0.1"]).await.unwrap(), "hello");
        for inward in ["/inward", "/metadata", "/file", "/round"] {
            let error = get(inward, &["127.0.0.1"]).await.unwrap_err();
            assert!(matches!(error, ImageError::Url { .. }), "{inward}: {error}");
        }
    }

    #[tokio::test]
    async fn a_name_is_checked_by_its_addresses() {
        let address = server(ANSWERS).await;
        let url = format!("http://localhost:{}/image", address.port());
        assert!(matches!(open(&url, &[]).await, Err(ImageError::Url { .. })));
        assert!(open(&url, &["localhost".parse().unwrap()]).await.is_ok());
    }

    #[tokio::test]
    async fn an_answer_other_than_ok_is_no_image() {
        let error = get("/absent", &["127.0.0.1"]).await.unwrap_err();
        assert!(matches!(error, ImageError::Status { status: 404, .. }), "{error}");
    }
}
