//! Attempts that call a server, on loopback.

use crate::world::{World, exe, shell, start};
use novacron_agent::{attempt::Settings, hypervisor::namespace::lease::BootTime};
use novacron_common::{
    record::{AttemptEnd, AttemptOutcome, Output},
    spec::{HttpMethod, HttpTarget, JobTarget, OnLeaseLost, StatusRange},
    units::Epoch,
    wire::{AttemptStart, Denial, DenialCode, Lease, LeasesGranted},
};
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What the server was asked: the head and the body.
type Asked = mpsc::Receiver<(String, String)>;

/// More than any test asks.
const ASKED_MAX: usize = 64;

/// Answers by path, and tells what it was asked.
async fn server() -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = mpsc::channel(ASKED_MAX);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move { serve(stream, address, &tell).await });
        }
    });
    (address, asked)
}

async fn serve(stream: TcpStream, address: SocketAddr, tell: &mpsc::Sender<(String, String)>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut body) = (String::new(), Vec::new());
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.unwrap() == 0 {
            return;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.resize(length.map_or(0, |length| length.parse().unwrap()), 0);
    stream.read_exact(&mut body).await.unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let _over = tell.try_send((head, String::from_utf8(body).unwrap()));
    let text = match path.as_str() {
        "/ok" => "200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        "/busy" => "503 Busy\r\ncontent-length: 5\r\n\r\nlater".to_owned(),
        "/moved" => "302 Found\r\nlocation: /ok\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/away" => format!(
            "302 Found\r\nlocation: http://127.0.0.1:{}/ok\r\ncontent-length: 0\r\n\r\n",
            address.port() ^ 1
        ),
        "/inward" => "307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/torn" => "200 OK\r\ncontent-length: 500\r\n\r\nonly this".to_owned(),
        "/flood" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
            return;
        }
        // Never answers.
        _ => return std::future::pending().await,
    };
    stream.write_all(format!("HTTP/1.1 {text}").as_bytes()).await.unwrap();
}

async fn world() -> World {
    let settings = Settings { url_allow: vec!["127.0.0.1".into()], ..Settings::new(exe()) };
    World::with(TempDir::new().unwrap(), settings).await
}

fn call(url: String) -> AttemptStart {
    let target = HttpTarget {
        method: HttpMethod::Get,
        url,
        headers: Vec::new(),
        body: None,
        expect: vec![StatusRange::SUCCESS],
    };
    AttemptStart { target: JobTarget::Http(target), ..start(shell("")) }
}

async fn get(world: &mut World, server: SocketAddr, path: &str) -> AttemptEnd {
    world.run(call(format!("http://{server}{path}"))).await
}

#[tokio::test]
async fn a_call_says_who_it_is_and_its_answer_is_output_and_result() {
    novacron_tests::require!(root);
    let ((server, mut asked), mut world) = (server().await, world().await);
    let mut start = call(format!("http://{server}/ok"));
    let JobTarget::Http(target) = &mut start.target else { unreachable!() };
    target.method = HttpMethod::Post;
    target.headers = vec![("X-Token".into(), "abc".into())];
    target.body = Some("{}".into());
    let fire = start.attempt.fire;
    let end = world.run(start).await;
    assert_eq!((end.outcome, end.result.as_deref()), (AttemptOutcome::Exited(0), Some("hello")));
    assert_eq!(end.output.to_text(), "HTTP/1.1 200 OK\n\nhello");
    let (head, body) = asked.recv().await.unwrap();
    assert!(head.starts_with("POST /ok ") && body == "{}", "{head} {body}");
    for line in ["x-token: abc".to_owned(), format!("novacron-fire-id: {fire}"), "novacron-epoch: 1".into()] {
        assert!(head.contains(&line), "{head}");
    }
    world.leave_no_trace().await;
}

#[tokio::test]
async fn another_status_a_torn_answer_and_no_server_are_told_apart() {
    novacron_tests::require!(root);
    let ((server, _asked), mut world) = (server().await, world().await);
    let busy = get(&mut world, server, "/busy").await;
    assert_eq!((busy.outcome, busy.result.as_deref()), (AttemptOutcome::Exited(503), Some("later")));
    let torn = get(&mut world, server, "/torn").await;
    assert_eq!((&torn.outcome, &torn.result), (&AttemptOutcome::Exited(1), &None));
    assert!(torn.output.to_text().contains("only this\n[could not call"), "{}", torn.output.to_text());
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let end = get(&mut world, nobody, "/").await;
    assert!(matches!(end.outcome, AttemptOutcome::FailedToStart { .. }), "{end:?}");
    world.leave_no_trace().await;
}

#[tokio::test]
async fn redirects_stay_within_the_origin_and_addresses_within_the_list() {
    novacron_tests::require!(root);
    let ((server, mut asked), mut world) = (server().await, world().await);
    assert_eq!(get(&mut world, server, "/moved").await.outcome, AttemptOutcome::Exited(0));
    for path in ["/away", "/inward"] {
        let end = get(&mut world, server, path).await;
        let AttemptOutcome::FailedToStart { reason } = &end.outcome else { panic!("{path}: {end:?}") };
        assert!(reason.contains("another scheme, host or port"), "{reason}");
    }
    let heard = std::iter::from_fn(|| asked.try_recv().ok()).count();
    assert_eq!(heard, 4, "the server was asked more often than it should");

    let mut strict = World::new().await;
    for url in [format!("http://{server}/ok"), "http://169.254.169.254/latest/".into()] {
        let end = strict.run(call(url)).await;
        let AttemptOutcome::FailedToStart { reason } = &end.outcome else { panic!("{end:?}") };
        assert!(reason.contains("url_allow"), "{reason}");
    }
    let refused = strict.runner.start(call("file:///etc/passwd".into())).await.unwrap_err();
    assert_eq!(Denial::from(&refused).code, DenialCode::Invalid);
    assert!(asked.try_recv().is_err());
    strict.leave_no_trace().await;
    world.leave_no_trace().await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_by_time_by_request_and_by_lease() {
    novacron_tests::require!(root);
    let ((server, mut asked), mut world) = (server().await, world().await);
    let never = || call(format!("http://{server}/never"));
    let end = world.run(AttemptStart { timeout_ms: 700, ..never() }).await;
    assert_eq!(end.outcome, AttemptOutcome::TimedOut);

    asked.recv().await.unwrap();
    let start = never();
    let attempt = start.attempt;
    world.runner.start(start).await.unwrap();
    asked.recv().await.unwrap();
    world.runner.kill(attempt, Epoch(1)).await.unwrap();
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::Killed);

    let (lease, on_lease_lost) = (Some(Lease { duration_ms: 1500 }), OnLeaseLost::Kill);
    let start = AttemptStart { lease, on_lease_lost, ..never() };
    let attempt = start.attempt;
    world.runner.start(start).await.unwrap();
    world.runner.renewed(LeasesGranted(vec![attempt]), BootTime::now()).await;
    asked.recv().await.unwrap();
    assert_eq!(world.report().await.end.outcome, AttemptOutcome::LeaseLost);
    world.leave_no_trace().await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_and_kept_in_bounds() {
    novacron_tests::require!(root);
    let ((server, _asked), mut world) = (server().await, world().await);
    let end = get(&mut world, server, "/flood").await;
    assert_eq!(end.outcome, AttemptOutcome::Exited(0));
    let Output { head, tail, total } = &end.output;
    assert_eq!((head.len(), tail.len()), (Output::PART_MAX, Output::PART_MAX));
    assert!(*total > 64 << 20 && *total < 80 << 20, "{total}");
    assert!(end.output.to_text().contains("goes on beyond"));
    assert_eq!(end.result.map(|text| text.len()), Some(AttemptEnd::RESULT_MAX));
    world.leave_no_trace().await;
}
