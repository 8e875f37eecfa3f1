//! WebSockets with the same pin and token as the rest.

use crate::{error::CtlError, settings::Settings, tls};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

/// A byte stream under a WebSocket.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// A WebSocket to the API.
pub type Socket = WebSocketStream<Box<dyn Transport>>;

/// Opens the WebSocket at `path`.
pub async fn open(settings: &Settings, path: &str) -> Result<Socket, CtlError> {
    let unreachable = |cause: Box<dyn std::error::Error + Send + Sync>| CtlError::Unreachable {
        server: settings.server.clone(),
        cause,
    };
    let url = format!("{}{path}", settings.server.replacen("http", "ws", 1));
    let mut request = url.into_client_request().map_err(|e| unreachable(e.into()))?;
    let bearer = format!("Bearer {}", settings.token);
    let bearer = HeaderValue::from_str(&bearer).map_err(|e| unreachable(e.into()))?;
    request.headers_mut().insert("authorization", bearer);
    let transport = connect(settings, request.uri()).await.map_err(unreachable)?;
    let (socket, _) =
        tokio_tungstenite::client_async(request, transport).await.map_err(|e| refused(settings, e))?;
    Ok(socket)
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connect(
    settings: &Settings,
    uri: &tokio_tungstenite::tungstenite::http::Uri,
) -> Result<Box<dyn Transport>, BoxError> {
    let host = uri.host().ok_or("the server's address names no host")?.trim_matches(['[', ']']).to_owned();
    let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(8090))).await?;
    tcp.set_nodelay(true)?;
    match settings.ca {
        None => Ok(Box::new(tcp)),
        Some(ca) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(tls::pinned(ca)?));
            let name = rustls_pki_types::ServerName::try_from(host)?;
            Ok(Box::new(connector.connect(name, tcp).await?))
        }
    }
}

/// The server's problem, where its refusal carries one.
fn refused(settings: &Settings, error: tokio_tungstenite::tungstenite::Error) -> CtlError {
    use tokio_tungstenite::tungstenite::Error;
    let problem = match &error {
        Error::Http(response) => response.body().as_ref().and_then(|b| serde_json::from_slice(b).ok()),
        _ => None,
    };
    match problem {
        Some(problem) => CtlError::Problem(Box::new(problem)),
        None => CtlError::Unreachable { server: settings.server.clone(), cause: error.into() },
    }
}
