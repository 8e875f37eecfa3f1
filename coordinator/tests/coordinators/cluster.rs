//! Three coordinators: joining, replication, the loss of a leader, catching up, removal.

use crate::support::{A_WHILE, Node, eventually, free_port, must_write, three, write};
use novacron_common::api::JoinTokenRole;
use novacron_coordinator::{
    config::Listen,
    raft::{ClockVerdict, Ledger, LedgerError, TransferError, Transferred},
};
use novacron_core::{Applied, CommandBody, command::ClockAlarm};
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
    assert!(matches!(alone.propose(write()).await, Err(LedgerError::NoLeader(_) | LedgerError::Unknown)));
    eventually("leadership is given up", async || !alone.leadership().borrow().is_leader()).await;
    // A little later than leadership goes, both count as silent.
    eventually("who is missing is named", async || {
        let refused = alone.linearizable().await;
        let Err(LedgerError::NoLeader(silent)) = refused else { panic!("{refused:?}") };
        silent.iter().map(|s| s.node).eq([2, 3])
    })
    .await;
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
        Ok(link) => tokio::time::timeout(A_WHILE, link.closed()).await.is_ok(),
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

/// Asks until leadership was handed to `to`: on a machine that stands still for a second an election may come between,
/// and then it stays where it is.
async fn transferred(asked: &Ledger, to: u64) -> Transferred {
    let deadline = tokio::time::Instant::now() + A_WHILE;
    loop {
        match asked.transfer(Some(to)).await {
            Ok(done) => return done,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "no transfer to {to}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_where_it_is_sent_and_no_write_is_lost_meanwhile() {
    let nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    let (to, asked) = (nodes[(lead + 1) % 3].number(), &nodes[(lead + 2) % 3]);
    eventually("everybody is heard", async || nodes.iter().all(|n| n.ledger().silent().is_empty())).await;
    let writer = {
        let ledger = asked.ledger().clone();
        tokio::spawn(async move {
            for _ in 0..60 {
                must_write(&ledger).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let before = asked.tokens();
    let done = transferred(asked.ledger(), to).await;
    println!("leadership transfer: nothing was committed for {:?}", done.gap);
    assert_eq!(done.to, to);
    writer.await.unwrap();
    asked.ledger().linearizable().await.unwrap();
    assert!(asked.tokens() >= before + 59, "{} then {}", before, asked.tokens());
    let new = nodes.iter().find(|n| n.number() == to).unwrap();
    eventually("it leads", async || new.ledger().leadership().borrow().is_leader()).await;
    assert_eq!(asked.ledger().transfer(Some(to)).await, Err(TransferError::LeadsAlready(to)));
    assert_eq!(asked.ledger().transfer(Some(77)).await, Err(TransferError::NoVoter(77)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_hands_over_first() {
    let mut nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    eventually("everybody is heard", async || nodes[lead].ledger().silent().is_empty()).await;
    let (term, number) = (nodes[lead].ledger().status().term, nodes[lead].number());
    nodes[lead].stop().await;
    // Already: nobody had to find out that it is gone.
    let next = leader(&nodes).map(|next| nodes[next].ledger().status());
    assert!(next.as_ref().is_some_and(|status| status.term > term && status.node != number), "{next:?}");
    must_write(nodes[(lead + 1) % 3].ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_coordinator_is_replaced_in_one_step() {
    let mut nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    let dead = (lead + 1) % 3;
    let number = nodes[dead].number();
    nodes[dead].stop().await;
    let asked = &nodes[lead];
    let token =
        asked.parts().authority.join_token(JoinTokenRole::Coordinator, A_WHILE, Some(number)).await.unwrap();
    let new = Node::join_with("c9", &token.token, DAY).await;
    let expected: Vec<u64> = (1..=4).filter(|node| *node != number).collect();
    for node in [asked, &nodes[(lead + 2) % 3], &new] {
        eventually("it votes in the other's place", async || node.voters() == expected).await;
        must_write(node.ledger()).await;
    }
    assert_eq!(asked.ledger().members().len(), 3, "the dead one is no learner either");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_removed_whom_the_rest_could_not_do_without() {
    let mut nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    let (dead, other) = ((lead + 1) % 3, (lead + 2) % 3);
    let number = nodes[dead].number();
    nodes[dead].stop().await;
    let asked = nodes[lead].ledger();
    eventually("the dead one is missed", async || asked.silent().len() == 1).await;
    let refused = asked.remove_coordinator(nodes[other].number()).await;
    let Ok(Applied::Refused(refusal)) = refused else { panic!("{refused:?}") };
    assert!(refusal.details[0].field.contains(&number.to_string()), "{refusal:?}");
    assert_eq!(asked.remove_coordinator(number).await, Ok(Applied::Done));
    eventually("two vote", async || nodes[lead].voters().len() == 2).await;
    must_write(nodes[other].ledger()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_compared_and_a_bad_one_raises_an_alarm_that_everybody_sees() {
    let nodes = three(DAY).await;
    let lead = wait_for_leader(&nodes).await;
    for node in &nodes {
        let near = |ms: Option<i64>| ms.is_some_and(|ms| ms.abs() < 500);
        let all = async || node.ledger().members().iter().all(|m| near(m.clock_ahead_ms));
        eventually("all clocks are compared, and near", all).await;
        assert_eq!(node.ledger().clock(), ClockVerdict::Agrees);
    }
    let number = nodes[lead].number();
    let alarm = |by| CommandBody::ClockAlarm(ClockAlarm { node: number, median_ahead_ms: by });
    let other = nodes[(lead + 1) % 3].ledger();
    // Again and again, because its owner takes it back within a second.
    eventually("another sees the alarm", async || {
        let raised = nodes[lead].ledger().propose(alarm(Some(900))).await;
        raised == Ok(Applied::Done)
            && other.linearizable().await.is_ok()
            && other.read(|state| state.alarms().has(&number))
    })
    .await;
    // Its clock is right, so it takes that back by itself.
    eventually("the alarm ends", async || other.read(|state| state.alarms().is_empty())).await;
}
