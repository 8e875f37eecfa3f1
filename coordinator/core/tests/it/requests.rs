//! Requests: idempotency keys, WebSocket tickets, clock alarms, and a coordinator that comes in another's place.

use crate::world::{World, job_spec, name, refusal};
use novacron_common::{
    api::{JoinTokenRole, ProblemCode, TokenRole},
    ids::{HostId, JobId, TokenId},
    spec::Sha256Digest,
    units::UnixMillis,
    wire::JoinPurpose,
};
use novacron_core::{
    ANSWER_MAX, Applied, CommandBody, REQUESTS_BYTES_MAX, REQUESTS_MAX, REQUESTS_REMEMBERED,
    command::{ClockAlarm, JobPut, JoinTokenPut, JoinTokenUse, Keyed, RequestAnswered, TicketPut},
    record::{Answer, CoordinatorRecord, RequestKey},
};

fn keyed(key: u32, fingerprint: u8, body: CommandBody) -> CommandBody {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&key.to_be_bytes());
    let (key, fingerprint) = (RequestKey(bytes), Sha256Digest([fingerprint; 32]));
    CommandBody::Keyed(Box::new(Keyed { key, fingerprint, body }))
}

fn answered(key: u32, sealed: Vec<u8>) -> CommandBody {
    let CommandBody::Keyed(keyed) = keyed(key, 0, CommandBody::Batch(Vec::new())) else { unreachable!() };
    let answer = Answer { status: 201, sealed };
    CommandBody::RequestAnswered(Box::new(RequestAnswered { key: keyed.key, answer }))
}

fn put(world: &World, id: u128, job: &str) -> CommandBody {
    let spec = job_spec(job, "0 2 * * *");
    CommandBody::JobPut(Box::new(JobPut::new(JobId::from_u128(id), spec, world.now)))
}

fn small() -> CommandBody {
    CommandBody::ClockAlarm(ClockAlarm { node: 1, median_ahead_ms: None })
}

#[test]
fn a_repeated_request_changes_nothing_and_gets_the_first_outcome() {
    let mut world = World::new();
    let first = put(&world, 1, "report");
    let second = put(&world, 2, "report");
    assert_eq!(world.ok(keyed(1, 1, first)), Applied::JobStored(JobId::from_u128(1)));
    // The repetition brings another id: a coordinator makes one for each request.
    let repeated = world.ok(keyed(1, 1, second.clone()));
    assert_eq!(repeated, Applied::Repeated(Box::new(Applied::JobStored(JobId::from_u128(1)))));
    assert_eq!(world.state.jobs().len(), 1);
    let reused = world.refused(keyed(1, 2, second.clone()));
    assert_eq!(reused.code, ProblemCode::IdempotencyKeyReused);
    assert_eq!(world.reloaded().index(), world.state.index());
    assert_eq!(
        world.refused(keyed(2, 1, second)).code,
        ProblemCode::NameTaken,
        "without the key it is refused"
    );
}

#[test]
fn a_refused_request_keeps_no_key() {
    let mut world = World::new();
    let first = put(&world, 1, "report");
    world.ok(first);
    let twice = put(&world, 2, "report");
    world.refused(keyed(1, 1, twice.clone()));
    world.ok(CommandBody::JobRemove { id: JobId::from_u128(1) });
    assert_eq!(world.ok(keyed(1, 1, twice)), Applied::JobStored(JobId::from_u128(2)));
}

#[test]
fn an_answer_is_kept_once_and_only_if_it_is_short() {
    let mut world = World::new();
    world.ok(keyed(1, 1, small()));
    assert_eq!(world.ok(answered(1, vec![1; ANSWER_MAX + 1])), Applied::AlreadySo);
    assert_eq!(world.ok(answered(1, vec![1])), Applied::Done);
    assert_eq!(world.ok(answered(1, vec![2])), Applied::AlreadySo);
    assert_eq!(world.ok(answered(2, vec![2])), Applied::AlreadySo, "nobody asked");
    let kept = world.state.requests().iter().next().unwrap().answer.clone().unwrap();
    assert_eq!((kept.status, kept.sealed), (201, vec![1]));
}

#[test]
fn keys_are_forgotten_after_a_day() {
    let mut world = World::new();
    let first = put(&world, 1, "report");
    world.ok(keyed(1, 1, first));
    world.now = world.now.plus(REQUESTS_REMEMBERED).plus(std::time::Duration::from_millis(1));
    world.ok(keyed(2, 1, small()));
    assert_eq!(world.state.requests().len(), 1);
    let later = put(&world, 2, "report");
    assert_eq!(refusal(world.apply(keyed(1, 1, later))).code, ProblemCode::NameTaken);
}

#[test]
fn keys_are_bounded_in_number_and_bytes() {
    let mut world = World::new();
    for key in 0..u32::try_from(REQUESTS_MAX).unwrap() + 7 {
        world.ok(keyed(key, 1, small()));
    }
    assert_eq!(world.state.requests().len(), REQUESTS_MAX);
    let mut world = World::new();
    for key in 0..u32::try_from(REQUESTS_BYTES_MAX / ANSWER_MAX).unwrap() + 7 {
        world.ok(keyed(key, 1, small()));
        world.ok(answered(key, vec![0; ANSWER_MAX]));
        assert!(world.state.index().request_bytes() <= REQUESTS_BYTES_MAX);
    }
    assert_eq!(world.reloaded().index(), world.state.index());
}

#[test]
fn keyed_commands_do_not_nest() {
    let mut world = World::new();
    world.refused(keyed(1, 1, keyed(2, 1, small())));
    let in_batch = world.ok(CommandBody::Batch(vec![keyed(1, 1, small())]));
    assert!(matches!(in_batch, Applied::Batch(of) if matches!(of[..], [Applied::Refused(_)])));
}

#[test]
fn a_ticket_works_once_and_for_a_while() {
    let mut world = World::new();
    let digest = Sha256Digest([3; 32]);
    let expires_at = world.now.plus(std::time::Duration::from_secs(30));
    let ticket = CommandBody::TicketPut(TicketPut { digest, role: TokenRole::Reader, expires_at });
    world.ok(ticket.clone());
    assert_eq!(world.ok(CommandBody::TicketUse { digest }), Applied::TicketSpent(TokenRole::Reader));
    let again = world.refused(CommandBody::TicketUse { digest });
    assert_eq!(again.code, ProblemCode::Unauthenticated);
    world.ok(ticket);
    world.now = expires_at;
    assert_eq!(refusal(world.apply(CommandBody::TicketUse { digest })), again);
}

fn coordinator(node: u64) -> CommandBody {
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], 8091));
    CommandBody::CoordinatorPut(CoordinatorRecord {
        node,
        name: name(&format!("c{node}")),
        quic: at,
        http: at,
    })
}

#[test]
fn a_clock_alarm_is_raised_kept_and_taken_back() {
    let mut world = World::new();
    let alarm = |by| CommandBody::ClockAlarm(ClockAlarm { node: 1, median_ahead_ms: by });
    world.refused(alarm(Some(900)));
    world.ok(coordinator(1));
    world.ok(alarm(Some(900)));
    let since = world.state.alarms().get(&1).unwrap().since;
    world.now = world.now.plus(std::time::Duration::from_secs(5));
    world.ok(alarm(Some(-800)));
    let kept = world.state.alarms().get(&1).unwrap();
    assert_eq!((kept.since, kept.median_ahead_ms), (since, -800));
    world.ok(alarm(None));
    assert!(world.state.alarms().is_empty());
    assert_eq!(world.ok(alarm(None)), Applied::AlreadySo);
}

#[test]
fn a_coordinator_comes_in_anothers_place_and_may_take_its_name() {
    let mut world = World::new();
    for node in 1..=3 {
        world.ok(coordinator(node));
    }
    let (id, secret_sha256) = (TokenId::from_u128(9), Sha256Digest([1; 32]));
    let token = |replaces| {
        let (role, expires_at) = (JoinTokenRole::Coordinator, UnixMillis(i64::MAX));
        CommandBody::JoinTokenPut(JoinTokenPut { id, secret_sha256, role, expires_at, replaces })
    };
    world.refused(token(Some(7)));
    world.ok(token(Some(3)));
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], 8095));
    let purpose = JoinPurpose::Coordinator { name: name("c3"), quic: at, http: at };
    let joined = JoinTokenUse { id, secret_sha256, purpose, new_host: HostId::from_u128(1) };
    let applied = world.ok(CommandBody::JoinTokenUse(joined));
    assert_eq!(applied, Applied::Enrolled { host: None, node: Some(4) });
    let nodes: Vec<u64> = world.state.coordinators().iter().map(|c| c.node).collect();
    assert_eq!(nodes, [1, 2, 4]);
}
