//! What three coordinators promise together: reads as new as asked, requests that may be repeated anywhere, tickets
//! that open a socket anywhere, and an event stream that goes on anywhere.

use crate::{
    cluster::TestCluster,
    events::{Socket, connect, next},
    replicas::three,
};
use novacron_common::api::{ClusterView, Event, EventKind, JobView, Page, WsTicket};
use serde_json::json;
use std::time::Duration;

fn job(name: &str) -> serde_json::Value {
    json!({ "name": name, "schedule": "@daily" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_stale_reads_only_and_names_who_is_missing() {
    let mut all = three().await;
    all[0].post("/api/v1/jobs", job("a")).await.ok::<JobView>();
    let fresh = all[1].get("/api/v1/jobs?stale=1m").await;
    assert!(fresh.headers["novacron-stale-age-ms"].to_str().unwrap().parse::<u64>().unwrap() < 60_000);
    let plain = all[1].get("/api/v1/jobs").await;
    assert!(!plain.headers.contains_key("novacron-stale-age-ms"));
    assert_eq!(plain.ok::<Page<JobView>>().items.len(), 1, "what was acknowledged elsewhere is read here");

    let last = all.remove(0);
    for other in all {
        other.stop().await;
    }
    let problem = last.get("/api/v1/jobs").await.problem(503, "unavailable", "");
    let missing: Vec<&str> = problem.details.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(missing.len(), 2, "{problem:?}");
    assert!(problem.cause.contains("has not answered for"), "{problem:?}");
    last.post("/api/v1/jobs", job("b")).await.problem(503, "unavailable", "");

    let stale = last.get("/api/v1/jobs?stale=true&limit=5").await;
    assert_eq!(stale.ok::<Page<JobView>>().items.len(), 1);
    let age = |answer: &crate::cluster::Answer| -> u64 {
        answer.headers["novacron-stale-age-ms"].to_str().unwrap().parse().unwrap()
    };
    let first = age(&stale);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let later = age(&last.get("/api/v1/jobs/a?stale=true").await);
    assert!(later >= first + 50, "nobody confirms it any more: {first} ms, then {later} ms");
    last.get("/api/v1/jobs?stale=1ms").await.problem(503, "unavailable", "");
    last.get("/api/v1/jobs?stale=soon").await.problem(400, "invalid_request", "stale");
    last.post("/api/v1/jobs?stale=true", job("b")).await.problem(400, "invalid_request", "stale");
    let view: ClusterView = last.get("/api/v1/cluster").await.ok();
    assert!(view.stale_age_ms > Some(later));
    let silent = view.coordinators.iter().filter(|c| c.silent_ms.is_none_or(|ms| ms > 1000)).count();
    assert_eq!(silent, 2, "{view:?}");
    last.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_tickets_and_events_go_on_at_another_coordinator_after_the_leader_is_lost() {
    let mut all = three().await;
    let leader = all.pop().unwrap();
    let mut socket = connect(&leader, "/api/v1/ws", Some(&leader.token)).await.unwrap();
    let first = leader.post_keyed("k", "/api/v1/jobs", job("a")).await;
    let made: JobView = first.ok();
    let seen = next(&mut socket).await;
    assert_eq!((seen.kind, seen.id.as_str()), (EventKind::Job, made.id.to_string().as_str()));
    let WsTicket { ticket, .. } = leader.post_text("/api/v1/ws/tickets", "").await.ok();
    leader.post("/api/v1/jobs", job("b")).await.ok::<JobView>();
    leader.stop().await;
    drop(socket);

    let again = all[0].post_keyed("k", "/api/v1/jobs", job("a")).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));
    all[1].post("/api/v1/jobs", job("c")).await.ok::<JobView>();
    let path = format!("/api/v1/ws?ticket={ticket}&resume={}", seen.token);
    let mut socket = connect(&all[0], &path, None).await.expect("a ticket of the lost leader");
    assert!(connect(&all[1], &path, None).await.is_err(), "it worked already");
    let names = [job_name(&next(&mut socket).await), job_name(&next(&mut socket).await)];
    assert_eq!(names, ["b", "c"], "nothing is missed and nothing comes twice");
    for other in all {
        other.stop().await;
    }
}

fn job_name(event: &Event) -> String {
    event.object.as_ref().unwrap()["name"].as_str().unwrap().to_owned()
}

/// The events until `last`, from several streams, one after the other, each cut off after `each` events.
async fn resumed(all: &[TestCluster], from: &str, last: u64, each: usize) -> Vec<Event> {
    let (mut token, mut events) = (from.to_owned(), Vec::<Event>::new());
    for replica in all.iter().cycle() {
        let path = format!("/api/v1/ws?resume={token}");
        let mut socket: Socket = connect(replica, &path, Some(&replica.token)).await.unwrap();
        for _ in 0..each {
            let event = next(&mut socket).await;
            token.clone_from(&event.token);
            let ends = event.index >= last;
            events.push(event);
            if ends {
                return events;
            }
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_cut_off_again_and_again_sees_every_event_once() {
    let all = three().await;
    let mut socket = connect(&all[2], "/api/v1/ws", Some(&all[2].token)).await.unwrap();
    for number in 0..20 {
        all[number % 3].post("/api/v1/jobs", job(&format!("job-{number}"))).await.ok::<JobView>();
    }
    let mut whole = Vec::new();
    while whole.len() < 20 {
        whole.push(next(&mut socket).await);
    }
    let last = whole.last().unwrap().index;
    for each in [1, 3] {
        let pieces = resumed(&all, &whole[0].token, last, each).await;
        assert_eq!(pieces, whole[1..], "the same events, whoever sends them");
    }
    // The founder was initialised by another process: it does not have that entry's events.
    let mut socket = connect(&all[2], "/api/v1/ws?resume=1.0", Some(&all[2].token)).await.unwrap();
    let event = next(&mut socket).await;
    assert_eq!((event.kind, event.object.unwrap()["fix"].is_string()), (EventKind::Gap, true));
    assert_eq!(
        connect(&all[0], "/api/v1/ws?resume=soon", Some(&all[0].token)).await.err().map(|s| s.as_u16()),
        Some(400)
    );
    // The stream goes on behind the gap.
    all[1].post("/api/v1/jobs", job("later")).await.ok::<JobView>();
    let goes_on = async { while job_name(&next(&mut socket).await) != "later" {} };
    tokio::time::timeout(Duration::from_secs(60), goes_on).await.unwrap();
    for replica in all {
        replica.stop().await;
    }
}
