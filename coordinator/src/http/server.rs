//! Listening: HTTPS always, plain HTTP only on a loopback address and only when configured.

use axum::Router;
use axum_server::{
    Handle,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hyper_util::rt::TokioTimer;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests under way are given when the coordinator stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The API could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or not ours.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
    /// Plain HTTP would carry tokens over a network.
    #[error("http.plain_loopback is {0}, which is no loopback address: use 127.0.0.1 or [::1]")]
    NotLoopback(SocketAddr),
    /// The listener broke.
    #[error("serving {address} ended")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        cause: io::Error,
    },
}

/// A bound address: binding comes first, so that a taken port ends the start and not the service.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds `address`.
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |cause| ServeError::Listen { address, cause };
        let tcp = TcpListener::bind(address).map_err(failed)?;
        tcp.set_nonblocking(true).map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        Ok(Self { tcp, address })
    }

    /// Binds `address` for plain HTTP.
    ///
    /// # Errors
    /// [`ServeError::NotLoopback`], [`ServeError::Listen`].
    pub fn bind_loopback(address: SocketAddr) -> Result<Self, ServeError> {
        if address.ip().is_loopback() { Self::bind(address) } else { Err(ServeError::NotLoopback(address)) }
    }

    /// Where it listens; the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves HTTPS until `stop`, then lets requests under way finish.
    ///
    /// # Errors
    /// [`ServeError::Serve`].
    pub async fn serve_tls(
        self,
        router: Router,
        tls: RustlsConfig,
        stop: CancellationToken,
    ) -> Result<(), ServeError> {
        let address = self.address;
        let failed = |cause| ServeError::Serve { address, cause };
        let handle = stopped_by(stop);
        // Without it an answer of more than one segment waits for the client's delayed acknowledgement: 40 ms a page.
        let acceptor =
            RustlsAcceptor::new(tls).handshake_timeout(HANDSHAKE_TIMEOUT).acceptor(NoDelayAcceptor::new());
        let mut server = axum_server::from_tcp(self.tcp).map_err(failed)?.handle(handle).acceptor(acceptor);
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        server.http_builder().http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT);
        server.serve(router.into_make_service()).await.map_err(failed)
    }

    /// Serves plain HTTP until `stop`, then lets requests under way finish.
    ///
    /// # Errors
    /// [`ServeError::Serve`].
    pub async fn serve_plain(self, router: Router, stop: CancellationToken) -> Result<(), ServeError> {
        let address = self.address;
        let failed = |cause| ServeError::Serve { address, cause };
        let server = axum_server::from_tcp(self.tcp).map_err(failed)?.handle(stopped_by(stop));
        let mut server = server.acceptor(NoDelayAcceptor::new());
        server.http_builder().http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        server.serve(router.into_make_service()).await.map_err(failed)
    }
}

fn stopped_by(stop: CancellationToken) -> Handle<SocketAddr> {
    let handle = Handle::new();
    let stopped = handle.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        stopped.graceful_shutdown(Some(SHUTDOWN_TIMEOUT));
    });
    handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_refused_off_loopback() {
        let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(matches!(Listener::bind_loopback(everywhere), Err(ServeError::NotLoopback(_))));
        assert!(Listener::bind_loopback(SocketAddr::from(([127, 0, 0, 1], 0))).is_ok());
    }
}
