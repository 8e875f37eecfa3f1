//! WebSockets: the event stream and the console, with a header and with tickets.

use crate::{
    cluster::TestCluster,
    fake_agent::FakeAgent,
    machines::{template, until, vm},
};
use futures_util::{SinkExt, StreamExt};
use novacron_common::{
    api::{Event, EventKind, JobView, OverdueView, TemplateView, VmView, WsTicket},
    record::VmState,
};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest, http::StatusCode},
};

pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

pub async fn connect(cluster: &TestCluster, path: &str, token: Option<&str>) -> Result<Socket, StatusCode> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cluster.ca.clone().into()).unwrap();
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(cluster.api).await.unwrap();
    let name = rustls::pki_types::ServerName::from(cluster.api.ip());
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
    let mut request = format!("wss://{}{path}", cluster.api).into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    match client_async(request, tls).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status()),
        Err(other) => panic!("{other}"),
    }
}

pub async fn next(socket: &mut Socket) -> Event {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(60), socket.next()).await;
        match message.expect("an event in time").unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_changes_reach_clients_on_both_paths_in_order() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    let mut one = connect(&cluster, "/api/v1/ws", Some(&cluster.token)).await.unwrap();
    let mut two = connect(&cluster, "/ws/status", Some(&cluster.token)).await.unwrap();
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    let made: VmView = cluster.post("/api/v1/vms", vm("web-1")).await.ok();
    for socket in [&mut one, &mut two] {
        let mut last = 0;
        loop {
            let event = next(socket).await;
            assert!(event.index >= last, "events go forward");
            last = event.index;
            let running = event.object.as_ref().is_some_and(|vm| vm["state"] == "running");
            if event.kind == EventKind::Vm && event.id == made.id.to_string() && running {
                break;
            }
        }
    }
    cluster.delete("/api/v1/vms/web-1").await;
    while next(&mut one).await.object.is_some() {}
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_overdue_is_told_as_such_until_it_is_gone() {
    let cluster = TestCluster::start().await;
    let mut socket = connect(&cluster, "/api/v1/ws", Some(&cluster.token)).await.unwrap();
    // No host is there to run it.
    let body = json!({ "name": "late", "schedule": "0 0 1 1 *", "expected_by": "1s",
                       "target": { "type": "command", "command": ["/bin/true"] } });
    let made: JobView = cluster.post("/api/v1/jobs", body).await.ok();
    cluster.post_text("/api/v1/jobs/late/execute", "").await.ok::<serde_json::Value>();
    let alarm = overdue(&mut socket, &made).await.expect("an alarm");
    let view: JobView = cluster.get("/api/v1/jobs/late").await.ok();
    assert_eq!((alarm.job, alarm.name.as_str(), alarm.count), (made.id, "late", 1));
    assert_eq!((view.overdue, view.overdue_since), (1, Some(alarm.since)));
    cluster.delete("/api/v1/jobs/late").await;
    assert_eq!(overdue(&mut socket, &made).await, None, "it is over");
    cluster.stop().await;
}

/// The next event of an alarm of `job`.
async fn overdue(socket: &mut Socket, job: &JobView) -> Option<OverdueView> {
    loop {
        let event = next(socket).await;
        if event.kind == EventKind::Overdue {
            assert_eq!(event.id, job.id.to_string());
            return event.object.map(|alarm| serde_json::from_value(alarm).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_socket_and_a_token_in_the_url_none() {
    let cluster = TestCluster::start().await;
    let answer = cluster.post_text("/api/v1/ws/tickets", "").await;
    let WsTicket { ticket, expires_in } = answer.ok();
    assert_eq!(expires_in, 30);
    let path = format!("/api/v1/ws?ticket={ticket}");
    assert!(connect(&cluster, &path, None).await.is_ok());
    assert_eq!(connect(&cluster, &path, None).await.err(), Some(StatusCode::UNAUTHORIZED), "used");
    let in_url = format!("/api/v1/ws?token={}", cluster.token);
    assert_eq!(connect(&cluster, &in_url, None).await.err(), Some(StatusCode::UNAUTHORIZED));
    assert_eq!(connect(&cluster, "/api/v1/ws", None).await.err(), Some(StatusCode::UNAUTHORIZED));
    // A ticket is for sockets only.
    let WsTicket { ticket, .. } = cluster.post_text("/api/v1/ws/tickets", "").await.ok();
    let plain = format!("/api/v1/vms?ticket={ticket}");
    cluster.send_as(None, reqwest::Method::GET, &plain, None).await.problem(401, "unauthenticated", "");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_is_plain_bytes_both_ways() {
    let cluster = TestCluster::start().await;
    let _agent = FakeAgent::join(&cluster, "host-1").await;
    cluster.post("/api/v1/templates", template()).await.ok::<TemplateView>();
    cluster.post("/api/v1/vms", vm("web-1")).await.ok::<VmView>();
    until(&cluster, "web-1", VmState::Running).await;
    let mut socket = connect(&cluster, "/api/v1/vms/web-1/console", Some(&cluster.token)).await.unwrap();
    for text in ["root\n", "ls\n"] {
        socket.send(Message::text(text)).await.unwrap();
        let echoed =
            tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(echoed.into_data(), text.as_bytes());
    }
    socket.close(None).await.unwrap();
    assert_eq!(
        connect(&cluster, "/api/v1/vms/no-such/console", Some(&cluster.token)).await.err(),
        Some(StatusCode::NOT_FOUND)
    );
    cluster.stop().await;
}
