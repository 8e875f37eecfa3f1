//! The bytes of each row, and the numbers of each command: as in `golden.rs`.

use crate::golden::check;
use crate::world::{NOON, name};
use novacron_common::{
    api::{NodeRunState, RunCause, RunState},
    ids::{FireCause, FireKey, JobId, NodeRef, RunId, WorkflowId},
    spec::{
        Concurrency, Dst, JobTarget, Misfire, RetryPolicy, TimeZone,
        workflow::{NodeKind, NodeSpec, OnFailure, Trigger, Wait, WorkflowHead},
    },
    units::UnixMillis,
    wire::codec,
};
use novacron_core::{
    CommandBody,
    command::{NodeDecide, RunAdvance, RunRetry, RunTick},
    record::{
        MapProgress, Next, NodeKey, NodeRecord, NodeRunRecord, RunInputRecord, RunRecord, RunSkip,
        TaskRecord, WorkflowRecord,
    },
};

fn key() -> NodeRef {
    NodeRef { run: RunId::from_u128(9), node: 300, item: 2 }
}

#[test]
fn workflows_and_their_nodes() {
    let workflow = WorkflowRecord {
        id: WorkflowId::from_u128(8),
        head: WorkflowHead {
            name: name("etl"),
            description: "d".into(),
            enabled: true,
            trigger: Some(Trigger {
                schedule: "0 2 * * *".parse().unwrap(),
                timezone: TimeZone::UTC,
                dst: Dst::default(),
                misfire: Misfire::default(),
            }),
            concurrency: Concurrency::Queue { max: 3 },
            max_parallel: 256,
            runs_kept: 100,
        },
        version: 2,
        nodes: 5,
        revision: 3,
        next_at: Some(NOON),
        last_tick: None,
        runs: 6,
        succeeded: 3,
        failed: 2,
        cancelled: 1,
        skipped: 4,
        last_skip: Some(RunSkip { at: UnixMillis(1), reason: "why".into() }),
        removed: false,
        created_at: NOON,
    };
    check(&workflow, GOLDEN_WORKFLOW);
    let node = NodeRecord {
        key: NodeKey { workflow: WorkflowId::from_u128(8), version: 2, node: 1 },
        spec: NodeSpec {
            id: "a".parse().unwrap(),
            name: "A".into(),
            kind: NodeKind::Wait(Wait::For(500)),
            timeout_ms: None,
            retry: RetryPolicy::default(),
            on_failure: OnFailure::Compensate(4),
        },
        after: vec![Next { node: 2, when: false }],
        before: 1,
        undoes: false,
        refers_to: vec![("b".parse().unwrap(), 0)],
    };
    check(&node, GOLDEN_NODE);
}

#[test]
fn runs_and_their_nodes() {
    let run = RunRecord {
        id: RunId::from_u128(9),
        workflow: WorkflowId::from_u128(8),
        version: 2,
        nodes: 5,
        max_parallel: 256,
        cause: RunCause::Schedule,
        scheduled_at: NOON,
        state: RunState::Cancelling,
        reason: Some("cancelled".into()),
        retries: 1,
        started_at: Some(NOON),
        ended_at: None,
        cancel_by: Some(NOON),
        forgotten: false,
    };
    check(&run, GOLDEN_RUN);
    check(&RunInputRecord { run: RunId::from_u128(9), input: "{}".into() }, GOLDEN_INPUT);
    let fire = FireKey { job: JobId::from_u128(5), scheduled_at: NOON, cause: FireCause::Node };
    let row = NodeRunRecord {
        state: NodeRunState::Waiting,
        resolved: 2,
        live: true,
        tries: 1,
        fire: Some(fire),
        ready_at: Some(NOON),
        started_at: Some(NOON),
        until: Some(NOON),
        reason: Some("r".into()),
        output: Some("1".into()),
        item: Some("2".into()),
        map: Some(MapProgress { items: 4, begun: 3, open: 2, failed: 1 }),
        ..NodeRunRecord::new(key())
    };
    check(&row, GOLDEN_NODE_RUN);
    let task = TaskRecord {
        id: JobId::from_u128(5),
        node: key(),
        target: JobTarget::Record,
        timeout_ms: 1000,
        retry: RetryPolicy::default(),
    };
    check(&task, GOLDEN_TASK);
}

/// The number under which the log holds each kind of command. Append; never renumber.
#[test]
fn commands_keep_their_numbers() {
    let (run, id) = (RunId::from_u128(9), WorkflowId::from_u128(8));
    let tick = RunTick {
        workflow: id,
        run,
        scheduled_at: NOON,
        revision: 1,
        next_at: None,
        missed: false,
        passed_over: 0,
    };
    let decide = NodeDecide { run, node: 1, approved: true, by: "x".into(), comment: String::new() };
    let first = FIRST;
    let numbered = [
        (first + 2, CommandBody::WorkflowRemove { id }),
        (first + 4, CommandBody::RunTick(tick)),
        (first + 5, CommandBody::RunCancel { run }),
        (first + 6, CommandBody::RunRetry(RunRetry { run, from: None })),
        (first + 7, CommandBody::NodeDecide(decide)),
        (first + 8, CommandBody::RunAdvance(RunAdvance { run, timers: vec![(1, 0)] })),
        (first + 9, CommandBody::RunForget { run }),
    ];
    for (number, body) in numbered {
        let bytes = codec::encode(&body).unwrap();
        assert_eq!(bytes[0], number, "{body:?}");
        assert_eq!(codec::decode::<CommandBody>(&bytes).unwrap(), body);
    }
}

/// The number of `WorkflowPut`, the first of the commands about workflows.
const FIRST: u8 = 40;
const GOLDEN_WORKFLOW: &str = "01080365746c0164010109302032202a202a202a0355544301000164000303fb00016402050301fd00d8a0884103000000060302010401020377687900fd00d8a08841030000";
const GOLDEN_NODE: &str =
    "01080201016101410200fbf4010000fbe803fce0930400c80a0001010101000204010200010001016200";
const GOLDEN_RUN: &str = "0109080205fb000100fd00d8a0884103000003010963616e63656c6c65640101fd00d8a088410300000001fd00d8a0884103000000";
const GOLDEN_INPUT: &str = "0109027b7d";
const GOLDEN_NODE_RUN: &str = "0109fb2c0102030201010105fd00d8a088410300000201fd00d8a0884103000001fd00d8a088410300000001fd00d8a088410300000101720101310101320104030201";
const GOLDEN_TASK: &str = "010509fb2c010201fbe80300fbe803fce0930400c80a000101010100";
