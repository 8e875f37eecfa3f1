//! Join tokens, roles, renewal and removal, against a running coordinator.

use crate::support::{
    A_WHILE, Node, agent, eventually, free_port, join_as, join_as_agent, must_write, three, write,
};
use novacron_common::{
    api::JoinTokenRole,
    wire::{Enrolled, JoinDenied, JoinPurpose, JoinToken, RenewRequest, StreamKind},
};
use novacron_coordinator::join::join;
use novacron_core::{Applied, CommandBody};
use novacron_transport::{Endpoint, Identity, IdentityCell, Role, RoleKind, certificate_request};
use std::{sync::Arc, time::Duration};

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn denied(token: &JoinToken, name: &str) -> JoinDenied {
    join_as_agent(token, name, None).await.unwrap().map(|_| ()).unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_works_once_in_time_and_for_its_role() {
    let node = Node::found(DAY).await;
    let token = node.join_token(JoinTokenRole::Agent, A_WHILE).await;

    let guessed = JoinToken { secret: [9; 32], ..token.clone() };
    assert_eq!(denied(&guessed, "h1").await, JoinDenied::UnknownToken);
    let garbage = join_as_agent(&token, "h1", Some(vec![1, 2, 3])).await.unwrap().map(|_| ());
    assert_eq!(garbage, Err(JoinDenied::BadRequest));
    // None of that used the token up.
    let (enrolled, key) = join_as_agent(&token, "h1", None).await.unwrap().unwrap();
    let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key).unwrap();
    assert_eq!(identity.role, Role::Agent { host: enrolled.host.unwrap() });
    assert_eq!(identity.ca_fingerprint(), token.ca);
    assert!(enrolled.seal_key.is_none(), "an agent must never see the seal key");
    assert_eq!(denied(&token, "h2").await, JoinDenied::Used);

    let other_role = node.join_token(JoinTokenRole::Coordinator, A_WHILE).await;
    assert_eq!(denied(&other_role, "h2").await, JoinDenied::WrongRole);
    let short = node.join_token(JoinTokenRole::Agent, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // The ledger's clock moves with commands.
    must_write(node.ledger()).await;
    assert_eq!(denied(&short, "h2").await, JoinDenied::Expired);
    let fresh = node.join_token(JoinTokenRole::Agent, A_WHILE).await;
    assert!(matches!(denied(&fresh, "h1").await, JoinDenied::NameTaken(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_away_too_long_comes_back_under_its_old_id_with_a_token() {
    let validity = Duration::from_secs(5);
    let node = Node::found(validity).await;
    let first = node.join_token(JoinTokenRole::Agent, A_WHILE).await;
    let (enrolled, key) = join_as_agent(&first, "h1", None).await.unwrap().unwrap();
    let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key).unwrap();
    let endpoint = Endpoint::bind(free_port(), Arc::new(IdentityCell::new(identity))).unwrap();
    // Certificates end at whole seconds.
    tokio::time::sleep(validity + Duration::from_secs(1)).await;
    let late = endpoint.connect_any(node.member().quic, RoleKind::Coordinator).await;
    let served = match &late {
        Ok(link) => renew(link).await.is_ok_and(|verdict| verdict.is_ok()),
        Err(_) => false,
    };
    assert!(!served, "an expired certificate must not renew itself");

    let second = node.join_token(JoinTokenRole::Agent, A_WHILE).await;
    let purpose = JoinPurpose::Agent { name: "h1".parse().unwrap(), rejoin: enrolled.host };
    let (again, _) = join_as(&second, purpose, None).await.unwrap().unwrap();
    assert_eq!(again.host, enrolled.host);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_cluster_finds_no_trust() {
    let (ours, theirs) = (Node::found(DAY).await, Node::found(DAY).await);
    let token = ours.join_token(JoinTokenRole::Agent, A_WHILE).await;
    let misled = JoinToken { coordinators: vec![theirs.member().quic], ..token };
    assert!(join_as_agent(&misled, "h1", None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_does_not_join_twice_nor_over_another_ones_files() {
    let node = Node::found(DAY).await;
    let token = node.join_token(JoinTokenRole::Coordinator, A_WHILE).await.to_string();
    let error = join(&node.config, &token).await.unwrap_err().to_string();
    assert!(error.contains("has belonged to a cluster"), "{error}");
    let error = novacron_coordinator::init::init(&node.config).await.unwrap_err().to_string();
    assert!(error.contains("belongs to a cluster already"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_certificate_on_a_raft_or_forward_stream_is_refused() {
    let node = Node::found(DAY).await;
    let (endpoint, _) = agent(&node, "h1").await;
    let link = endpoint.connect(node.member().quic, &Role::Coordinator { node: 1 }).await.unwrap();
    for kind in [StreamKind::Raft, StreamKind::Forward, StreamKind::Command, StreamKind::Lane] {
        let mut stream = link.open(kind).await.unwrap();
        let _ = stream.send(&0u8).await;
        stream.finish();
        assert!(stream.recv_opt::<u8>().await.is_err(), "a {kind} stream of an agent was served");
    }
    // The link itself is good: what an agent may do works on it.
    assert!(renew(&link).await.is_ok());
}

async fn renew(link: &novacron_transport::Link) -> anyhow::Result<Result<Enrolled, JoinDenied>> {
    let (_, csr) = certificate_request()?;
    let mut stream = link.open(StreamKind::Renew).await?;
    stream.send(&RenewRequest { csr }).await?;
    stream.finish();
    Ok(stream.recv().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nothing_but_joining_is_served() {
    let node = Node::found(DAY).await;
    let ca = node.parts().authority.ca_fingerprint();
    let link = Endpoint::enroll(node.member().quic, ca).await.unwrap();
    assert!(renew(&link).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_is_cut_off_at_once() {
    let node = Node::found(DAY).await;
    let (endpoint, role) = agent(&node, "h1").await;
    let Role::Agent { host } = role else { panic!("{role}") };
    let link = endpoint.connect(node.member().quic, &Role::Coordinator { node: 1 }).await.unwrap();
    assert!(renew(&link).await.unwrap().is_ok());
    let removed = node
        .ledger()
        .propose(CommandBody::HostRemove(novacron_core::command::HostRemove { host, force: false }))
        .await;
    assert_eq!(removed, Ok(Applied::Done));
    let reason = tokio::time::timeout(A_WHILE, link.closed()).await.expect("the link stayed open");
    assert!(reason.contains("removed"), "{reason}");
    let again = endpoint.connect(node.member().quic, &Role::Coordinator { node: 1 }).await;
    if let Ok(link) = again {
        assert!(renew(&link).await.is_err(), "a removed host renewed its certificate");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn short_certificates_are_renewed_at_half_life_and_the_cluster_goes_on() {
    let validity = Duration::from_secs(6);
    let nodes = three(validity).await;
    let not_after = |node: &Node| node.parts().endpoint.identity().get().not_after();
    let first: Vec<_> = nodes.iter().map(not_after).collect();
    // Long enough for every first certificate, and every link made with one, to be over.
    let until = tokio::time::Instant::now() + validity * 2;
    while tokio::time::Instant::now() < until {
        let writes = nodes.iter().map(|node| node.ledger().propose(write()));
        for write in futures_util::future::join_all(writes).await {
            assert!(!matches!(write, Ok(Applied::Refused(_))));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (node, first) in nodes.iter().zip(first) {
        assert!(not_after(node) > first, "coordinator {} did not renew", node.number());
        eventually("it commits", async || node.ledger().propose(write()).await.is_ok()).await;
        eventually("HTTPS has a certificate", async || node.parts().https.is_issued()).await;
    }
    // What is on disk is the renewed one: a restart finds it.
    for node in &nodes {
        let kept = async || Identity::load(&node.config.identity_dir()).unwrap().not_after();
        eventually("a good one is on disk", async || kept().await > novacron_coordinator::identity::now())
            .await;
    }
}
