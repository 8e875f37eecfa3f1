//! What the code above the transport relies on, asked of QUIC and of the simulated network.

use novacron_common::wire::StreamKind;
use novacron_sim::{
    executor::Executor,
    identities::{MACHINES_MAX, identity, role},
    net::{Net, address},
    os,
};
use novacron_transport::{Endpoint, LinkError};
use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Two coordinators and an agent.
#[derive(Clone)]
struct Three {
    client: Endpoint,
    server: Endpoint,
    agent: Endpoint,
    at: SocketAddr,
}

/// Asks `promise` of both.
fn ask<F: Future<Output = ()> + Send + 'static>(promise: impl Fn(Three) -> F + Send + Copy + 'static) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let bind =
            |machine| Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), identity(machine)).unwrap();
        let (client, server, agent) = (bind(0), bind(1), bind(3));
        let at = server.local_addr().unwrap();
        promise(Three { client, server, agent, at }).await;
    });
    let _made = identity(0);
    let simulated = std::thread::spawn(move || {
        let _os = os::simulate(1);
        let executor = Executor::new(1, MACHINES_MAX);
        let _world = novacron_runtime::enter(executor.clone());
        let net = Net::new(executor.clone());
        let place = |machine| Endpoint::simulated(net.attach(machine), identity(machine));
        let (client, server, agent, at) = (place(0), place(1), place(3), address(1));
        let kept = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&kept);
        executor.spawn_on(
            0,
            Box::pin(async move {
                promise(Three { client, server, agent, at }).await;
                done.store(true, Ordering::SeqCst);
            }),
        );
        executor.run_for(Duration::from_secs(60));
        assert!(kept.load(Ordering::SeqCst), "the simulated network did not get there within a minute");
        executor.end();
    });
    simulated.join().unwrap();
}

/// Answers each stream of each link with what it was sent, until it ends.
async fn echo(server: Endpoint) {
    while let Some(link) = server.accept().await {
        novacron_runtime::spawn(async move {
            while let Ok((_, mut stream)) = link.accept().await {
                novacron_runtime::spawn(async move {
                    while let Ok(Some(text)) = stream.recv_opt::<String>().await {
                        if stream.send(&text).await.is_err() {
                            return;
                        }
                    }
                    stream.finish();
                });
            }
        });
    }
}

#[test]
fn frames_come_in_order_and_a_clean_end_is_one() {
    ask(|three| async move {
        novacron_runtime::spawn(echo(three.server.clone()));
        let link = three.client.connect(three.at, &role(1)).await.unwrap();
        assert_eq!(link.peer(), Some(&role(1)));
        let mut stream = link.open(StreamKind::Raft).await.unwrap();
        for number in 0..20 {
            stream.send(&format!("frame {number}")).await.unwrap();
        }
        stream.finish();
        for number in 0..20 {
            assert_eq!(stream.recv::<String>().await.unwrap(), format!("frame {number}"));
        }
        assert_eq!(stream.recv_opt::<String>().await.unwrap(), None);
    });
}

#[test]
fn a_stream_that_is_dropped_unfinished_is_broken_for_the_other_side() {
    ask(|three| async move {
        let (server, at) = (three.server.clone(), three.at);
        let (sender, broken) = tokio::sync::oneshot::channel();
        novacron_runtime::spawn(async move {
            let link = server.accept().await.unwrap();
            let (_, mut stream) = link.accept().await.unwrap();
            let first = stream.recv::<String>().await.map(drop);
            let second = stream.recv_opt::<String>().await.map(drop);
            let _ = sender.send((first.is_ok(), second.is_err()));
            link.closed().await;
        });
        let link = three.client.connect(at, &role(1)).await.unwrap();
        let mut stream = link.open(StreamKind::Forward).await.unwrap();
        stream.send("whole").await.unwrap();
        novacron_runtime::time::sleep(Duration::from_millis(300)).await;
        drop(stream);
        assert_eq!(broken.await.unwrap(), (true, true));
    });
}

#[test]
fn a_stream_that_the_peer_may_not_open_never_arrives() {
    ask(|three| async move {
        novacron_runtime::spawn(echo(three.server.clone()));
        let link = three.agent.connect(three.at, &role(1)).await.unwrap();
        let mut refused = link.open(StreamKind::Raft).await.unwrap();
        let _ = refused.send("let me lead").await;
        assert!(refused.recv::<String>().await.is_err());
        let mut allowed = link.open(StreamKind::Control).await.unwrap();
        allowed.send("a report").await.unwrap();
        assert_eq!(allowed.recv::<String>().await.unwrap(), "a report");
    });
}

#[test]
fn a_closed_link_says_so_on_both_sides_and_opens_nothing() {
    ask(|three| async move {
        let (server, at) = (three.server.clone(), three.at);
        let (sender, told) = tokio::sync::oneshot::channel();
        novacron_runtime::spawn(async move {
            let link = server.accept().await.unwrap();
            let _ = sender.send(link.closed().await);
        });
        let link = three.client.connect(at, &role(1)).await.unwrap();
        assert!(link.is_usable());
        link.close("enough");
        assert!(!link.is_usable());
        assert!(matches!(link.open(StreamKind::Raft).await, Err(LinkError::Closed { .. })));
        assert!(told.await.unwrap().contains("enough"));
    });
}

#[test]
fn links_are_shared_and_somebody_else_is_not_taken_for_the_peer() {
    ask(|three| async move {
        novacron_runtime::spawn(echo(three.server.clone()));
        let first = three.client.reach(three.at, &role(1)).await.unwrap();
        first.close("the shared one");
        let second = three.client.reach(three.at, &role(1)).await.unwrap();
        assert!(second.is_usable(), "one that is over is dialled anew");
        let wrong = three.client.connect(three.at, &role(2)).await;
        assert!(matches!(wrong, Err(LinkError::WrongPeer { .. })));
    });
}

#[test]
fn who_is_no_member_is_refused() {
    ask(|three| async move {
        novacron_runtime::spawn(echo(three.server.clone()));
        three.client.set_gate(Arc::new(|peer| *peer != role(1)));
        let refused = three.client.connect(three.at, &role(1)).await;
        assert!(matches!(refused, Err(LinkError::NotAMember(_))), "{refused:?}");
    });
}
