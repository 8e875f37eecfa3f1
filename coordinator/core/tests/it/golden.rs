//! Rows as the first version wrote them: they have to be readable for ever. If one of these fails, do not change the
//! bytes: raise the row's version and keep a reader for the old one.

use crate::world::{NOON, hello, job_spec, name, seen, template_spec, vm_spec};
use novacron_common::{
    api::{FireState, HostState, JoinTokenRole, MigrationState, TokenRole, VmDesired},
    ids::{
        AttemptKey, ClusterId, FireCause, FireKey, GangId, HostId, JobId, MigrationId, NetworkId, NodeRef,
        RunId, TemplateId, TokenId, VmId,
    },
    record::{
        AttemptEnd, AttemptOutcome, Basis, Climb, Forecast, InboundState, Interval, Limit, MemoryTraffic,
        MigrationProgress, MigrationReport, MoveLimits, OutboundState, Output, Rung, SentPages, Strategy,
        TransferCounts, VmState,
    },
    spec::{Sha256Digest, StopTerms, TenantNetwork},
    units::{ByteCount, Epoch, Generation, UnixMillis},
    wire::codec,
};
use novacron_core::{
    Applied, CommandBody,
    command::{
        AttemptPlace, ClockAlarm, Handover, HostCordon, HostDown, HostRemove, JobExecute, VmDesire,
        VmObserve, VmRestart,
    },
    placement::{Placement, Rejected, Shortfall},
    record::{
        AlarmRecord, Answer, ApiTokenRecord, AttemptRecord, Claim, ClockRecord, ClusterRecord,
        CoordinatorRecord, FireRecord, HistoryRecord, HostRecord, JobPulse, JobRecord, JoinTokenRecord,
        MigrationRecord, NetworkRecord, Observed, OverdueRecord, RequestKey, RequestRecord, TemplateRecord,
        TickFate, TickReason, TickRun, TickTotals, TicketRecord, VerbWatch, VmRecord,
    },
    table::{DecodeError, Row, decode_row, encode_row},
};
use std::num::NonZeroU32;

pub fn check<R: Row>(row: &R, golden: &str) {
    let bytes = hex::decode(golden).unwrap();
    let written = hex::encode(encode_row(row).unwrap());
    assert_eq!(written, golden, "{} is written in another way than before", R::TABLE.name());
    assert_eq!(&decode_row::<R>(&bytes).unwrap(), row);
}

fn placement() -> Placement {
    Placement {
        host: HostId::from_u128(1),
        name: name("a"),
        free_memory_after: ByteCount::gib(12),
        machines: 3,
        candidates: 2,
        rejected: vec![Rejected {
            host: HostId::from_u128(2),
            name: name("b"),
            lacks: vec![Shortfall::Cordoned, Shortfall::Memory(ByteCount::mib(5)), Shortfall::Cpus(2)],
        }],
        more_rejected: 1,
    }
}

fn forecast() -> Forecast {
    let interval = |n| Interval { low: n, expected: n + 1, high: n + 2 };
    Forecast {
        total_ms: interval(30),
        blackout_ms: interval(40),
        wire_bytes: interval(50),
        rung: Rung::Throttle,
        limit: Some(Limit::Deadline),
        at_risk: None,
        may_split: true,
        basis: Basis {
            memory_bytes: 60,
            disk_bytes: 61,
            dirty_rate: 62,
            working_set_bytes: 63,
            rate: 64,
            round_trip_us: 65,
            guest_measured: true,
            measured: true,
            moves: 66,
            model_bytes: 67,
        },
    }
}

fn fire_key() -> FireKey {
    FireKey { job: JobId::from_u128(5), scheduled_at: NOON, cause: FireCause::Manual }
}

#[test]
fn clock_and_cluster() {
    check(&ClockRecord { stamp: NOON }, GOLDEN_CLOCK);
    let cluster = ClusterRecord {
        id: ClusterId::from_u128(7),
        ca_cert: vec![1, 2],
        sealed_ca_key: vec![3],
        next_node: 4,
        created_at: NOON,
    };
    check(&cluster, GOLDEN_CLUSTER);
}

#[test]
fn members_and_tokens() {
    let quic = "10.0.0.1:8091".parse().unwrap();
    let http = "[::1]:8090".parse().unwrap();
    check(&CoordinatorRecord { node: 3, name: name("c"), quic, http }, GOLDEN_COORDINATOR);
    let join = JoinTokenRecord {
        id: TokenId::from_u128(8),
        secret_sha256: Sha256Digest([1; 32]),
        role: JoinTokenRole::Coordinator,
        expires_at: NOON,
        replaces: None,
        used_at: Some(UnixMillis(5)),
    };
    check(&join, GOLDEN_JOIN_TOKEN);
    let token = ApiTokenRecord {
        id: TokenId::from_u128(9),
        name: name("ci"),
        role: TokenRole::Reader,
        secret_sha256: Sha256Digest([2; 32]),
        created_at: NOON,
    };
    check(&token, GOLDEN_API_TOKEN);
}

#[test]
fn hosts_and_templates() {
    let id = HostId::from_u128(1);
    let host = HostRecord {
        id,
        name: name("a"),
        state: HostState::Up,
        cordoned: true,
        hello: Some(hello(id, "a")),
        capacity: crate::world::capacity(),
        load_millis: 1500,
        memory_available: ByteCount::gib(3),
        foreign_domains: vec!["theirs".into()],
        last_seen: Some(NOON),
        joined_at: NOON,
    };
    check(&host, GOLDEN_HOST);
    let template =
        TemplateRecord { id: TemplateId::from_u128(2), spec: template_spec("debian"), created_at: NOON };
    check(&template, GOLDEN_TEMPLATE);
}

#[test]
fn networks() {
    let spec = TenantNetwork {
        name: name("blue"),
        subnet: "10.1.2.0/24".parse().unwrap(),
        dns: vec!["10.9.9.9".parse().unwrap()],
    };
    let last = "10.1.2.7".parse().unwrap();
    check(&NetworkRecord { id: NetworkId::from_u128(2), spec, last, created_at: NOON }, GOLDEN_NETWORK);
}

#[test]
fn machines() {
    let id = VmId::from_u128(3);
    let vm = VmRecord {
        id,
        spec: vm_spec("web-1"),
        desired: VmDesired::Stopped,
        stop: StopTerms::within_ms(30_000),
        placed_on: Some(HostId::from_u128(1)),
        epoch: Epoch(2),
        generation: Generation(5),
        state: VmState::Unknown,
        observed: Some(Observed { host: HostId::from_u128(1), observation: seen(id, 2, VmState::Running) }),
        restart_requests: 2,
        restarts_done: 1,
        migration: Some(MigrationId::from_u128(4)),
        hold_stopped: true,
        placement: Some(placement()),
        created_at: NOON,
    };
    check(&vm, GOLDEN_VM);
}

#[test]
fn jobs_and_fires() {
    let job = JobRecord {
        id: JobId::from_u128(5),
        spec: job_spec("report", "0 2 * * *"),
        revision: 3,
        paused_at: Some(NOON),
        deleting: false,
        created_at: NOON,
    };
    check(&job, GOLDEN_JOB);
    let pulse = JobPulse {
        last_tick: Some(UnixMillis(1)),
        fires: 4,
        succeeded: 3,
        failed: 1,
        skipped: 9,
        missed: 2,
        overdue: 1,
        ..JobPulse::new(JobId::from_u128(5), Some(NOON))
    };
    check(&pulse, GOLDEN_PULSE);
    let overdue =
        OverdueRecord { job: JobId::from_u128(5), since: NOON, latest: UnixMillis(NOON.0 + 1), count: 2 };
    check(&overdue, GOLDEN_OVERDUE);
    let run = |fate| TickRun { fate, from: UnixMillis(1), until: UnixMillis(2), count: 2, late_ms_max: 7 };
    let history = HistoryRecord {
        job: JobId::from_u128(5),
        runs: vec![run(TickFate::Succeeded), run(TickFate::None(TickReason::Paused))],
        older: TickTotals {
            from: Some(UnixMillis(0)),
            until: Some(UnixMillis(1)),
            succeeded: 3,
            ..TickTotals::default()
        },
    };
    check(&history, GOLDEN_HISTORY);
    let fire = FireRecord {
        key: fire_key(),
        committed_at: NOON,
        state: FireState::Running,
        epoch: Epoch(2),
        attempts: 2,
        not_before: NOON,
        host: Some(HostId::from_u128(1)),
        cancel_requested: true,
        ended_at: None,
        node: Some(NodeRef { run: RunId::from_u128(8), node: 1, item: 2 }),
        last_host: Some(HostId::from_u128(1)),
        priority: 5,
        queued: false,
        start_by: Some(NOON),
        expected_at: Some(NOON),
        overdue: true,
        unknown_since: None,
        declined: 1,
    };
    check(&fire, GOLDEN_FIRE);
    let end = AttemptEnd {
        outcome: AttemptOutcome::Exited(-1),
        started_at: Some(NOON),
        ended_at: NOON,
        output: Output { head: b"out".to_vec(), tail: b"end".to_vec(), total: 1000 },
        result: Some("{}".into()),
    };
    let attempt = AttemptRecord {
        key: AttemptKey { fire: fire_key(), number: 2 },
        epoch: Epoch(2),
        host: Some(HostId::from_u128(1)),
        placed_at: NOON,
        end: Some(end),
        verb: Some(VerbWatch::Runs(VmId::from_u128(3))),
        orphaned: true,
    };
    check(&attempt, GOLDEN_ATTEMPT);
}

#[test]
fn migrations() {
    let memory = MemoryTraffic {
        written_bytes: 1,
        wire_bytes: 2,
        raw: SentPages { pages: 3, bytes: 4 },
        zero: SentPages { pages: 5, bytes: 6 },
        reference: SentPages { pages: 7, bytes: 8 },
        delta: SentPages { pages: 9, bytes: 10 },
        held: SentPages { pages: 20, bytes: 21 },
        offer_bytes: 22,
        other_bytes: 11,
        compressed_from_bytes: 12,
        compressed_to_bytes: 13,
    };
    let counts = TransferCounts { memory_bytes: 14, memory, disk_bytes: 15, control_bytes: 16 };
    let migration = MigrationRecord {
        id: MigrationId::from_u128(4),
        vm: VmId::from_u128(3),
        source: HostId::from_u128(1),
        target: HostId::from_u128(2),
        live: true,
        limits: MoveLimits {
            strategy: Strategy::StopAndCopy,
            max_downtime_ms: Some(17),
            max_slowdown_pct: 18,
            deadline_ms: Some(19),
            bandwidth_mbit: NonZeroU32::new(23),
            verify_disk: true,
        },
        gang: Some(GangId::from_u128(7)),
        epoch: Epoch(2),
        generation: Generation(5),
        secret: [9; 32],
        ticket_expires_at: NOON,
        claim: Claim { cpus: 2, memory: ByteCount::gib(4), storage: ByteCount::gib(10) },
        state: MigrationState::Finishing,
        step: 4,
        awaits_stop: false,
        awaits_turn: true,
        outbound: OutboundState::Gone(MigrationReport::default()),
        outbound_unknown_at: Some(1),
        inbound: InboundState::Discarded { reason: "lost".into() },
        inbound_unknown_at: None,
        started: true,
        handed_over: true,
        cancel_requested: false,
        abandoned: true,
        message: "why".into(),
        progress: MigrationProgress {
            permille: 500,
            remaining_ms: Some(3),
            link_lost: true,
            cuts: 3,
            climb: Climb {
                rung: Rung::LongerPause,
                throttle_pct: 20,
                pause_ms: 21,
                limit: Some(Limit::MaxDowntime),
            },
            ..MigrationProgress::default()
        },
        report: Some(MigrationReport { counts, copy_ms: 12, cuts: 4, ..MigrationReport::default() }),
        placement: Some(placement()),
        forecast: Some(forecast()),
        started_at: NOON,
        ended_at: Some(NOON),
    };
    check(&migration, GOLDEN_MIGRATION);
}

#[test]
fn requests_tickets_and_alarms() {
    let request = RequestRecord {
        key: RequestKey([4; 32]),
        fingerprint: Sha256Digest([5; 32]),
        outcome: Applied::TokenStored(TokenId::from_u128(9)),
        answer: Some(Answer { status: 201, sealed: vec![1, 2, 3] }),
        at: NOON,
    };
    check(&request, GOLDEN_REQUEST);
    let ticket = TicketRecord { digest: Sha256Digest([6; 32]), role: TokenRole::Reader, expires_at: NOON };
    check(&ticket, GOLDEN_TICKET);
    check(&AlarmRecord { node: 2, median_ahead_ms: -700, since: NOON }, GOLDEN_ALARM);
}

/// The number under which the log holds each kind of command. Append; never renumber.
#[test]
fn commands_keep_their_numbers() {
    let (job, host, fire) = (JobId::from_u128(5), HostId::from_u128(1), fire_key());
    let (vm, migration) = (VmId::from_u128(3), MigrationId::from_u128(4));
    let none = Vec::new();
    let numbered = [
        (2, CommandBody::CoordinatorRemove { node: 1 }),
        (6, CommandBody::TokenRemove { id: TokenId::from_u128(1) }),
        (7, CommandBody::HostHello(Box::new(hello(host, "a")))),
        (9, CommandBody::HostDown(HostDown { host, silent_since: NOON })),
        (10, CommandBody::HostCordon(HostCordon { host, cordoned: true })),
        (11, CommandBody::HostRemove(HostRemove { host, force: false })),
        (13, CommandBody::TemplateRemove { id: TemplateId::from_u128(1) }),
        (14, crate::world::vm_create(3, vm_spec("web-1"))),
        (16, CommandBody::VmDesire(VmDesire { vm, desired: VmDesired::Running, stop: StopTerms::AT_ONCE })),
        (17, CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE })),
        (19, CommandBody::VmObserve(VmObserve { host, observations: none })),
        (20, CommandBody::VmForget { vm }),
        (23, CommandBody::JobRemove { id: job }),
        (24, CommandBody::JobExecute(JobExecute { id: job, at: NOON, node: None })),
        (26, CommandBody::AttemptPlace(AttemptPlace { fire, host })),
        (28, CommandBody::FireCancel { fire }),
        (32, CommandBody::Handover(Handover { migration, vm, to: host, expect_epoch: Epoch(1) })),
        (33, CommandBody::MigrationCancel { id: migration }),
        (34, CommandBody::Batch(Vec::new())),
        (38, CommandBody::TicketUse { digest: Sha256Digest([7; 32]) }),
        (39, CommandBody::ClockAlarm(ClockAlarm { node: 2, median_ahead_ms: Some(-700) })),
    ];
    for (number, body) in numbered {
        let bytes = codec::encode(&body).unwrap();
        assert_eq!(bytes[0], number, "{body:?}");
        assert_eq!(codec::decode::<CommandBody>(&bytes).unwrap(), body);
    }
}

#[test]
fn damaged_newer_and_empty_rows_are_told_apart() {
    let mut bytes = encode_row(&ClockRecord { stamp: NOON }).unwrap();
    bytes[0] = 2;
    assert!(matches!(
        decode_row::<ClockRecord>(&bytes),
        Err(DecodeError::Version { version: 2, known: 1, .. })
    ));
    assert!(matches!(decode_row::<ClockRecord>(&[]), Err(DecodeError::Empty { .. })));
    assert!(matches!(decode_row::<ClockRecord>(&[1]), Err(DecodeError::Value { .. })));
}

const GOLDEN_CLOCK: &str = "01fd00d8a08841030000";
const GOLDEN_CLUSTER: &str = "0107020102010304fd00d8a08841030000";
const GOLDEN_COORDINATOR: &str = "01030163000a000001fb9b1f0100000000000000000000000000000001fb9a1f";
const GOLDEN_JOIN_TOKEN: &str =
    "0108010101010101010101010101010101010101010101010101010101010101010101fd00d8a0884103000000010a";
const GOLDEN_API_TOKEN: &str =
    "0109026369010202020202020202020202020202020202020202020202020202020202020202fd00d8a08841030000";
const GOLDEN_HOST: &str = "010101610001010101610105302e312e30000a000001fb9c1f08fd0000000004000000fd00000000190000000101010008fd0000000004000000fd0000000019000000fbdc05fc000000c0010674686569727301fd00d8a08841030000fd00d8a08841030000";
const GOLDEN_TEMPLATE: &str = "01020664656269616e0000fd00d8a08841030000";
const GOLDEN_VM: &str = "0103057765622d310002fd0000000001000000fd00000080020000000664656269616e0000000000000000000000000000000000000100fb307501010205080101030201020000000000010000fd00d8a08841030000020101040101010161fd0000000003000000030201020162030106fc00005000080201fd00d8a08841030000";
const GOLDEN_JOB: &str = "0105067265706f727409302032202a202a202a0355544301000105fb30750000fbe803fce0930400c80a000101010100016400000000000000fbe803fc00840c240301fd00d8a0884103000000fd00d8a08841030000";
const GOLDEN_NETWORK: &str = "010204626c75650a0102001801000a0909090a010207fd00d8a08841030000";
const GOLDEN_PULSE: &str = "010501fd00d8a08841030000010200040301090201";
const GOLDEN_OVERDUE: &str = "0105fd00d8a08841030000fd02d8a0884103000002";
const GOLDEN_HISTORY: &str = "01050200020402070407020402070100010203000000";
const GOLDEN_FIRE: &str = "0105fd00d8a0884103000001fd00d8a08841030000010202fd00d8a0884103000001010101010001080102050001fd00d8a0884103000001fd00d8a08841030000010001";
const GOLDEN_ATTEMPT: &str = "0105fd00d8a088410300000102020101fd00d8a0884103000001000101fd00d8a08841030000fd00d8a08841030000036f757403656e64fbe80301027b7d01000301";
const GOLDEN_MIGRATION: &str = "010403010201020111120113011701010702050909090909090909090909090909090909090909090909090909090909090909fd00d8a0884103000002fd0000000001000000fd000000800200000004040001070000000000000000000000000000000000000000000000000000000000010109046c6f7374000101000103776879fbf4010000000000000000000000000000000000000000000000010301030214150101010e0102030405060708090a1415160b0c0d0f100c00000400000000000001010161fd0000000003000000030201020162030106fc00005000080201011e1f2028292a32333401010000013c3d3e3f404101014243fd00d8a0884103000001fd00d8a08841030000";
const GOLDEN_REQUEST: &str = "0104040404040404040404040404040404040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505050901c903010203fd00d8a08841030000";
const GOLDEN_TICKET: &str =
    "01060606060606060606060606060606060606060606060606060606060606060601fd00d8a08841030000";
const GOLDEN_ALARM: &str = "0102fb7705fd00d8a08841030000";
