//! Three coordinators: joining, replication, the loss of a leader, catching up, removal.

use crate::support::{A_WHILE, Node, eventually, free_port, must_write, three, write};
use novacron_coordinator::{config::Listen, raft::LedgerError};
use novacron_core::Applied;
use novacron_transport::{LinkError, Role};
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn leader(nodes: &[Node]) -> Option<usize> {
    nodes.iter().position(|n| n.running.is_some() && n.ledger().leadership().borrow().is_leader())
}

async fn wait_for_leader(nodes: &[Node]) -> usize {
    eventually("somebody leads", async || leader(nodes).is_some()).await;
    leader(nodes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicate_and_survive_the_loss_of_their_leader() {
    let mut nodes = three(DAY).await;
    for node in &nodes {
        must_write(node.ledger()).await;
    }
    // One token each, and the one that `init` made.
    for node in &nodes {
        node.ledger().linearizable().await.unwrap();
        assert_eq!(node.tokens(), 4);
    }
    let lost = wait_for_leader(&nodes).await;
    nodes[lost].stop().await;
    let began = Instant::now();
    let survivor = (lost + 1) % 3;
    eventually("the survivors commit", async || nodes[survivor].ledger().propose(write()).await.is_ok())
        .await;
    println!("first write after the leader's loss: {:?}", began.elapsed());
    nodes[survivor].ledger().linearizable().await.unwrap();
    let written = nodes[survivor].tokens();
    nodes[lost].start().await;
    eventually("the restarted one has caught up", async || nodes[lost].tokens() >= written).await;
    eventually("it votes", async || nodes[lost].voters() == [1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_reads_say_so() {
    let mut nodes = three(DAY).await;
    nodes[1].stop().await;
    nodes[2].stop().await;
    let alone = nodes[0].ledger().clone();
    let began = Instant::now();
    assert!(matches!(alone.propose(write()).await, Err(LedgerError::NoLeader(_) | LedgerError::Unknown)));
    eventually("leadership is given up", async || !alone.leadership().borrow().is_leader()).await;
    let refused = alone.linearizable().await;
    let Err(LedgerError::NoLeader(silent)) = refused else { panic!("{refused:?}") };
    assert_eq!(silent.iter().map(|s| s.node).collect::<Vec<_>>(), [2, 3], "who is missing is named");
    assert!(began.elapsed() < A_WHILE);
    nodes[1].start().await;
    eventually("a majority commits again", async || alone.propose(write()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_too_long_for_the_log_gets_a_snapshot() {
    let mut nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    let away = (lead + 1) % 3;
    nodes[away].stop().await;
    for _ in 0..300 {
        must_write(nodes[lead].ledger()).await;
    }
    for node in nodes.iter().filter(|n| n.running.is_some()) {
        node.ledger().linearizable().await.unwrap();
        node.ledger().compact().await.unwrap();
    }
    nodes[away].start().await;
    let mut committed = nodes[away].ledger().committed();
    eventually("it has caught up", async || nodes[away].tokens() == nodes[lead].tokens()).await;
    let mut resets = 0;
    while let Ok(entry) = committed.try_recv() {
        resets += usize::from(entry.reset);
    }
    assert_eq!(resets, 1, "it caught up without a snapshot: the log was not purged");
    must_write(nodes[away].ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_coordinator_is_cut_off() {
    let nodes = three(DAY).await;
    let removed = (wait_for_leader(&nodes).await + 1) % 3;
    let number = nodes[removed].number();
    let stays: Vec<&Node> = nodes.iter().filter(|n| n.number() != number).collect();
    let before = nodes[removed].parts().endpoint.clone();
    before.connect(stays[0].member().quic, &Role::Coordinator { node: stays[0].number() }).await.unwrap();

    assert_eq!(stays[0].ledger().remove_coordinator(number).await, Ok(Applied::Done));
    for node in &stays {
        eventually("it does not vote any more", async || !node.voters().contains(&number)).await;
    }
    let role = Role::Coordinator { node: stays[0].number() };
    let refused = async || match before.connect(stays[0].member().quic, &role).await {
        Err(_) => true,
        // TLS lets it in, the gate does not: the link closes before a stream is answered.
        Ok(link) => tokio::time::timeout(Duration::from_secs(2), link.closed()).await.is_ok(),
    };
    assert!(refused().await, "its certificate is still good, and it was let in");
    assert!(nodes[removed].ledger().propose(write()).await.is_err());
    must_write(stays[1].ledger()).await;
    let again = stays[0].ledger().remove_coordinator(number).await;
    assert!(matches!(again, Ok(Applied::Refused(_))), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_dials_only_the_one_it_means() {
    let nodes = three(DAY).await;
    let wrong = Role::Coordinator { node: 3 };
    let dialled = nodes[0].parts().endpoint.connect(nodes[1].member().quic, &wrong).await;
    assert!(matches!(dialled, Err(LinkError::WrongPeer { .. })), "{dialled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shrink_to_one_though_the_leaving_one_is_needed_to_commit_that() {
    let first = Node::found(DAY).await;
    let second = Node::join("c2", &first).await;
    eventually("both vote", async || first.voters() == [1, 2]).await;
    must_write(second.ledger()).await;
    assert_eq!(first.ledger().remove_coordinator(second.number()).await, Ok(Applied::Done));
    eventually("one votes", async || first.voters() == [1]).await;
    must_write(first.ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_itself_can_be_removed() {
    let nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    let stays = &nodes[(lead + 1) % 3];
    assert_eq!(stays.ledger().remove_coordinator(nodes[lead].number()).await, Ok(Applied::Done));
    eventually("two vote", async || stays.voters().len() == 2).await;
    eventually("another leads and commits", async || stays.ledger().propose(write()).await.is_ok()).await;
    assert!(!stays.voters().contains(&nodes[lead].number()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_moved_to_other_addresses_is_found_there() {
    let mut nodes = three(DAY).await;
    let moved = (wait_for_leader(&nodes).await + 1) % 3;
    nodes[moved].stop().await;
    let (quic, http) = (free_port(), free_port());
    nodes[moved].config.quic = Listen { listen: quic, advertise: quic };
    nodes[moved].config.http.listen = http;
    nodes[moved].config.http.advertise = http;
    nodes[moved].start().await;
    let number = nodes[moved].number();
    for node in &nodes {
        let told =
            async || node.ledger().members().iter().any(|m| m.node == number && m.quic == quic && m.voter);
        eventually("everybody knows the new address", told).await;
    }
    must_write(nodes[moved].ledger()).await;
    eventually("it receives the log", async || nodes[moved].tokens() == nodes[(moved + 1) % 3].tokens())
        .await;
}
