//! Real QUIC on loopback: who is let in, what each may open, and what happens to links over time.

use super::*;
use novacron_common::{
    ids::{ClusterId, HostId},
    units::UnixMillis,
    wire::StreamKind,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

const CLUSTER: ClusterId = ClusterId::from_u128(1);
const A_WHILE: Duration = Duration::from_secs(60);

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate(CLUSTER, link::now()).unwrap()
}

fn identity(ca: &CertificateAuthority, role: Role, validity: Duration) -> Identity {
    let (key, csr) = certificate_request().unwrap();
    let certificate = ca.issue(&csr, &role, validity, link::now()).unwrap();
    Identity::new(CLUSTER, ca.certificate_der(), &certificate, &key).unwrap()
}

fn endpoint(ca: &CertificateAuthority, role: Role) -> (Endpoint, SocketAddr) {
    let cell = Arc::new(IdentityCell::new(identity(ca, role, A_WHILE)));
    let endpoint = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), cell).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

const COORDINATOR: Role = Role::Coordinator { node: 1 };
const AGENT: Role = Role::Agent { host: HostId::from_u128(7) };

#[tokio::test]
async fn frames_cross_a_link_and_both_sides_know_each_other() {
    let ca = authority();
    let (server, address) = endpoint(&ca, COORDINATOR);
    let (client, _) = endpoint(&ca, AGENT);
    let echo = tokio::spawn(async move {
        let link = server.accept().await.unwrap();
        assert_eq!(link.peer(), Some(&AGENT));
        let (kind, mut stream) = link.accept().await.unwrap();
        let text: String = stream.recv().await.unwrap();
        stream.send(&format!("{kind}:{text}")).await.unwrap();
        stream.finish();
        link.closed().await
    });
    let link = client.connect(address, &COORDINATOR).await.unwrap();
    let mut stream = link.open(StreamKind::Control).await.unwrap();
    stream.send("hello").await.unwrap();
    assert_eq!(stream.recv::<String>().await.unwrap(), "control:hello");
    assert_eq!(stream.recv_opt::<String>().await.unwrap(), None);
    link.close("done");
    assert!(echo.await.unwrap().contains("done"));
}

#[tokio::test]
async fn an_agents_raft_stream_never_reaches_a_handler() {
    let ca = authority();
    let (server, address) = endpoint(&ca, COORDINATOR);
    let (client, _) = endpoint(&ca, AGENT);
    let link = client.connect(address, &COORDINATOR).await.unwrap();
    let mut raft = link.open(StreamKind::Raft).await.unwrap();
    raft.send("vote for me").await.unwrap();
    let mut control = link.open(StreamKind::Control).await.unwrap();
    control.send("status").await.unwrap();

    let accepted = server.accept().await.unwrap();
    let (kind, _stream) = accepted.accept().await.unwrap();
    assert_eq!(kind, StreamKind::Control, "the raft stream must be skipped");
    assert!(raft.recv::<String>().await.is_err());
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let (_server, address) = endpoint(&ours, COORDINATOR);
    let (client, _) = endpoint(&theirs, AGENT);
    assert!(matches!(client.connect(address, &COORDINATOR).await, Err(LinkError::Connect { .. })));
}

#[tokio::test]
async fn a_peer_other_than_the_expected_one_is_refused() {
    let ca = authority();
    let (_server, address) = endpoint(&ca, COORDINATOR);
    let (client, _) = endpoint(&ca, AGENT);
    let expected = Role::Coordinator { node: 2 };
    assert!(matches!(client.connect(address, &expected).await, Err(LinkError::WrongPeer { .. })));
}

#[tokio::test]
async fn joining_needs_the_right_fingerprint_and_opens_nothing_else() {
    let ca = authority();
    let (server, address) = endpoint(&ca, COORDINATOR);
    assert!(Endpoint::enroll(address, authority().fingerprint()).await.is_err());

    let link = Endpoint::enroll(address, ca.fingerprint()).await.unwrap();
    let mut control = link.open(StreamKind::Control).await.unwrap();
    control.send("let me in").await.unwrap();
    let mut join = link.open(StreamKind::Join).await.unwrap();
    join.send("token").await.unwrap();
    let accepted = server.accept().await.unwrap();
    assert_eq!(accepted.peer(), None);
    assert_eq!(accepted.accept().await.unwrap().0, StreamKind::Join);
}

#[tokio::test]
async fn a_removed_member_is_cut_off_at_once_and_stays_out() {
    let ca = authority();
    let (server, address) = endpoint(&ca, COORDINATOR);
    let (client, _) = endpoint(&ca, AGENT);
    let link = client.connect(address, &COORDINATOR).await.unwrap();
    server.accept().await.unwrap();
    server.set_gate(Arc::new(|role| *role != AGENT));
    server.disconnect(&AGENT);
    assert!(link.closed().await.contains("removed"));
    let again = client.connect(address, &COORDINATOR).await;
    if let Ok(link) = again {
        assert!(link.closed().await.contains("removed"));
    }
}

/// Lives in a runtime of its own, whose end is as sudden for its peers as SIGKILL.
fn endpoint_to_be_killed(identity: Identity, at: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cell = Arc::new(IdentityCell::new(identity));
    let address = runtime.block_on(async move {
        let endpoint = Endpoint::bind(at, cell).unwrap();
        let address = endpoint.local_addr().unwrap();
        tokio::spawn(async move {
            let mut links = Vec::new();
            while let Some(link) = endpoint.accept().await {
                links.push(link);
            }
        });
        address
    });
    (runtime, address)
}

#[test]
fn a_process_that_was_killed_and_runs_again_says_that_its_links_are_gone() {
    let ca = authority();
    let (key, csr) = certificate_request().unwrap();
    let certificate = ca.issue(&csr, &COORDINATOR, A_WHILE, link::now()).unwrap();
    let same = || Identity::new(CLUSTER, ca.certificate_der(), &certificate, &key).unwrap();
    let (first, address) = endpoint_to_be_killed(same(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let ours = tokio::runtime::Runtime::new().unwrap();
    let link = ours.block_on(async {
        let (client, _) = endpoint(&ca, AGENT);
        client.connect(address, &COORDINATOR).await.unwrap()
    });
    drop(first);

    let (_second, _) = endpoint_to_be_killed(same(), address);
    let reason = ours.block_on(async {
        let mut stream = link.open(StreamKind::Control).await.unwrap();
        // The header may have been answered already.
        let _ = stream.send("anybody there?").await;
        link.closed().await
    });
    assert!(reason.contains("reset"), "the link ended otherwise: {reason}");
}

#[tokio::test]
async fn an_expired_certificate_opens_no_more_streams_and_a_new_one_does() {
    let ca = authority();
    let (server, address) = endpoint(&ca, COORDINATOR);
    tokio::spawn(async move { while server.accept().await.is_some() {} });
    let cell = Arc::new(IdentityCell::new(identity(&ca, AGENT, Duration::from_secs(5))));
    let client = Endpoint::bind(SocketAddr::from(([127, 0, 0, 1], 0)), cell.clone()).unwrap();
    let link = client.reach(address, &COORDINATOR).await.unwrap();
    assert!(link.open(StreamKind::Control).await.is_ok());
    // Certificates end at whole seconds.
    tokio::time::sleep(Duration::from_millis(6100)).await;
    assert!(matches!(link.open(StreamKind::Control).await, Err(LinkError::Expired)));
    cell.replace(identity(&ca, AGENT, A_WHILE));
    let link = client.reach(address, &COORDINATOR).await.unwrap();
    assert!(link.open(StreamKind::Control).await.is_ok());
}

#[test]
fn an_identity_survives_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    let ca = authority();
    for _ in 0..2 {
        identity(&ca, AGENT, A_WHILE).save(&path).unwrap();
        let loaded = Identity::load(&path).unwrap();
        assert_eq!((loaded.role, loaded.ca_fingerprint()), (AGENT, ca.fingerprint()));
        assert!(loaded.half_life() < loaded.not_after() && loaded.half_life() > UnixMillis(0));
    }
}

#[test]
fn a_short_certificate_is_not_due_for_renewal_when_it_is_issued() {
    let short = identity(&authority(), AGENT, Duration::from_secs(200));
    let until = short.half_life().since(link::now());
    assert!((Duration::from_secs(60)..=Duration::from_secs(101)).contains(&until), "due in {until:?}");
    assert_eq!(short.validity().as_secs(), 200);
}

#[test]
fn a_kept_ca_issues_certificates_that_the_first_one_trusts() {
    let ca = authority();
    let kept = CertificateAuthority::from_der(CLUSTER, ca.certificate_der(), &ca.key_der()).unwrap();
    assert_eq!(kept.fingerprint(), ca.fingerprint());
    assert!(ca.issue(b"not a request", &AGENT, A_WHILE, link::now()).is_err());
    identity(&kept, AGENT, A_WHILE);
}

#[tokio::test]
async fn two_members_hear_of_each_other_by_gossip() {
    let ca = authority();
    let other = Role::Agent { host: HostId::from_u128(8) };
    let (one, two) = (member(&ca, AGENT, "one").await, member(&ca, other, "two").await);
    one.0.say("load", "0.5").await;
    one.0.greet(two.1);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let heard = two.0.live().await;
        if heard.iter().any(|p| p.id == "one" && p.values.get("load").is_some_and(|v| v == "0.5")) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing was heard: {heard:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn member(ca: &CertificateAuthority, role: Role, id: &str) -> (Arc<Gossip>, SocketAddr) {
    let (endpoint, advertise) = endpoint(ca, role);
    let settings = GossipSettings {
        cluster: CLUSTER,
        id: id.into(),
        incarnation: novacron_common::units::Incarnation(1),
        advertise,
        interval: Duration::from_millis(50),
    };
    let gossip = Arc::new(Gossip::start(endpoint.clone(), settings).await.unwrap());
    let listening = gossip.clone();
    tokio::spawn(async move {
        while let Some(link) = endpoint.accept().await {
            let gossip = listening.clone();
            tokio::spawn(async move {
                while let Ok((_, stream)) = link.accept().await {
                    gossip.receive(&link, stream).await;
                }
            });
        }
    });
    (gossip, advertise)
}
