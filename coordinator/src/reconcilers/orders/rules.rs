//! What hosts are to be told, and what their refusals mean. No I/O and no clock.

use crate::agents::SessionNumber;
use novacron_common::{
    ids::{AttemptKey, HostId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    units::{Epoch, UnixMillis},
    wire::{AttemptStart, Denial, DenialCode, Lease},
};
use novacron_core::{CommandBody, State, attempts, command::AttemptSettled};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What is ordered, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Run it.
    Start,
    /// End it.
    Kill,
    /// End it, should it still run: it was declared over.
    KillOrphan,
}

/// What is ordered.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Run this.
    Start(Box<AttemptStart>),
    /// End it.
    Kill,
    /// End it, should it still run: it was declared over.
    KillOrphan,
}

impl Order {
    /// Without its content.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Start(_) => Kind::Start,
            Self::Kill => Kind::Kill,
            Self::KillOrphan => Kind::KillOrphan,
        }
    }
}

/// What one host is to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Errand {
    /// Of what.
    pub attempt: AttemptKey,
    /// Under which right.
    pub epoch: Epoch,
    /// What.
    pub order: Order,
    /// In which session.
    pub session: SessionNumber,
}

impl Errand {
    /// What is remembered once it is done.
    pub const fn mark(&self) -> Mark {
        Mark { attempt: self.attempt, kind: self.order.kind(), session: self.session }
    }
}

/// That an errand was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    attempt: AttemptKey,
    kind: Kind,
    session: SessionNumber,
}

/// What was told in which session; a new session is told everything again.
#[derive(Debug, Default)]
pub struct Told(HashMap<(AttemptKey, Kind), SessionNumber>);

impl Told {
    /// Of what is wanted, what has not been told. Forgets what is wanted no more.
    pub fn owed(&mut self, wanted: Vec<(HostId, Errand)>) -> BTreeMap<HostId, Vec<Errand>> {
        let live: HashSet<AttemptKey> = wanted.iter().map(|(_, errand)| errand.attempt).collect();
        self.0.retain(|(attempt, _), _| live.contains(attempt));
        let mut owed: BTreeMap<HostId, Vec<Errand>> = BTreeMap::new();
        for (host, errand) in wanted {
            let Mark { attempt, kind, session } = errand.mark();
            if self.0.get(&(attempt, kind)) != Some(&session) {
                owed.entry(host).or_default().push(errand);
            }
        }
        owed
    }

    /// The host has been told.
    pub fn note(&mut self, Mark { attempt, kind, session }: Mark) {
        self.0.insert((attempt, kind), session);
    }
}

/// What the hosts with a session are to know.
pub fn wanted(
    state: &State,
    session_of: impl Fn(HostId) -> Option<SessionNumber>,
    lease: Lease,
) -> Vec<(HostId, Errand)> {
    let index = state.index().fires();
    let current = index.running().filter_map(|(host, key)| {
        let session = session_of(host)?;
        let (fire, (_, start)) = state.fire(key).zip(attempts::start(state, key, lease))?;
        let (attempt, epoch) = (start.attempt, start.epoch);
        let kill = attempts::is_to_be_killed(fire);
        let order = if kill { Order::Kill } else { Order::Start(Box::new(start)) };
        Some((host, Errand { attempt, epoch, order, session }))
    });
    let orphans = index.orphans().filter_map(|(host, attempt)| {
        let session = session_of(host)?;
        let epoch = state.attempt(attempt)?.epoch;
        Some((host, Errand { attempt, epoch, order: Order::KillOrphan, session }))
    });
    current.chain(orphans).collect()
}

/// What a host's refusal means.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// The host will take the same order later.
    NotYet,
    /// Nothing to be committed: another report says more.
    Nothing,
    /// Something is known of the attempt now.
    News(CommandBody),
}

/// What it means that a host refused an order at `now`.
pub fn meaning(
    kind: Kind,
    (attempt, epoch): (AttemptKey, Epoch),
    denial: &Denial,
    now: UnixMillis,
) -> Meaning {
    let ended = |outcome| {
        let end = never_ran(outcome, now);
        Meaning::News(CommandBody::AttemptEnd(Box::new(AttemptReport { attempt, epoch, end })))
    };
    match (kind, denial.code) {
        // An earlier attempt of the fire, which was declared over while the host was out of sight, still lives there,
        // and ends by itself when its lease does.
        (Kind::Start, DenialCode::Conflict) => Meaning::NotYet,
        (Kind::Start, DenialCode::NoRoom) => ended(AttemptOutcome::Declined { reason: denial.text.clone() }),
        (Kind::Start, code) if is_final(code) => {
            ended(AttemptOutcome::FailedToStart { reason: denial.text.clone() })
        }
        // Orders go one after the other: a start that was sent before has arrived, or never will.
        (Kind::Kill, DenialCode::Unknown) => ended(AttemptOutcome::Killed),
        (Kind::Start | Kind::Kill, _) => Meaning::Nothing,
        (Kind::KillOrphan, _) => Meaning::News(CommandBody::AttemptSettled(AttemptSettled { attempt })),
    }
}

/// Whether the host will never run it. A stale epoch means that the host knows more than we: its own report says how
/// it ended.
const fn is_final(code: DenialCode) -> bool {
    match code {
        DenialCode::NoRoom
        | DenialCode::Unsupported
        | DenialCode::Invalid
        | DenialCode::Image
        | DenialCode::Failed => true,
        DenialCode::StaleEpoch | DenialCode::Unknown | DenialCode::Conflict => false,
    }
}

fn never_ran(outcome: AttemptOutcome, at: UnixMillis) -> AttemptEnd {
    AttemptEnd { outcome, started_at: None, ended_at: at, output: Output::default(), result: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        api::{FireState, JobCreate},
        ids::{FireCause, FireKey, JobId},
        spec::{JobSpec, JobTarget},
    };
    use novacron_core::{
        record::{AttemptRecord, FireRecord, JobRecord},
        table::{Row, RowKey, encode_row},
    };
    use std::slice::from_ref as only;

    const NOW: UnixMillis = UnixMillis(1_000_000);
    const LEASE: Lease = Lease { duration_ms: 30_000 };
    const JOB: JobId = JobId::from_u128(1);

    const fn host(number: u128) -> HostId {
        HostId::from_u128(number)
    }

    const fn key(second: i64) -> FireKey {
        FireKey { job: JOB, scheduled_at: UnixMillis(second * 1000), cause: FireCause::Schedule }
    }

    const fn attempt(second: i64, number: u32) -> AttemptKey {
        AttemptKey { fire: key(second), number }
    }

    /// A fire whose second attempt runs on `host`.
    fn running(second: i64, host: HostId) -> FireRecord {
        FireRecord {
            state: FireState::Running,
            attempts: 2,
            epoch: Epoch(7),
            host: Some(host),
            ..FireRecord::new(key(second), NOW)
        }
    }

    /// An attempt that was declared over while its host was out of sight.
    fn orphan(second: i64, host: HostId) -> AttemptRecord {
        AttemptRecord {
            key: attempt(second, 1),
            epoch: Epoch(6),
            host: Some(host),
            placed_at: NOW,
            end: Some(never_ran(AttemptOutcome::LeaseLost, NOW)),
            verb: None,
            orphaned: true,
        }
    }

    fn row<R: Row>(row: &R) -> (novacron_core::TableId, Vec<u8>, Vec<u8>) {
        (R::TABLE, row.key().to_bytes(), encode_row(row).unwrap())
    }

    fn ledger(fires: &[FireRecord], attempts: &[AttemptRecord]) -> State {
        let body = JobCreate { name: "a".into(), schedule: "@daily".into(), ..JobCreate::default() };
        let spec = JobSpec { target: JobTarget::Record, ..JobSpec::try_from(&body).unwrap() };
        let job = JobRecord { id: JOB, spec, revision: 1, paused_at: None, deleting: false, created_at: NOW };
        let rows = fires.iter().map(row).chain(attempts.iter().map(row)).chain([row(&job)]);
        State::load(rows.collect::<Vec<_>>().into_iter()).unwrap()
    }

    /// Host 1 is in its third session, host 2 in none.
    fn third_session(of: HostId) -> Option<SessionNumber> {
        (of == host(1)).then_some(SessionNumber::of_test(3))
    }

    /// Who is told what, of what, under which epoch.
    fn shown(wanted: &[(HostId, Errand)]) -> Vec<(HostId, Kind, AttemptKey, u64)> {
        wanted.iter().map(|(host, e)| (*host, e.order.kind(), e.attempt, e.epoch.0)).collect()
    }

    #[test]
    fn a_host_with_a_session_is_told_of_its_attempts_and_its_orphans() {
        let cancelled = FireRecord { cancel_requested: true, ..running(2, host(1)) };
        let waiting = FireRecord { state: FireState::Waiting, host: None, ..running(3, host(1)) };
        let state = ledger(
            &[running(1, host(1)), cancelled, waiting, running(4, host(2))],
            &[orphan(1, host(1)), orphan(4, host(2))],
        );
        let wanted = wanted(&state, third_session, LEASE);
        let expected = [
            (host(1), Kind::Start, attempt(1, 2), 7),
            (host(1), Kind::Kill, attempt(2, 2), 7),
            (host(1), Kind::KillOrphan, attempt(1, 1), 6),
        ];
        assert_eq!(shown(&wanted), expected);
        let Order::Start(start) = &wanted[0].1.order else { panic!("{wanted:?}") };
        assert_eq!(
            (start.attempt, start.epoch, start.scheduled_at),
            (attempt(1, 2), Epoch(7), UnixMillis(1000))
        );
    }

    fn errand(second: i64, order: Order, session: u64) -> (HostId, Errand) {
        let session = SessionNumber::of_test(session);
        (host(1), Errand { attempt: attempt(second, 1), epoch: Epoch(1), order, session })
    }

    fn owed(told: &mut Told, wanted: &[(HostId, Errand)]) -> Vec<(HostId, Kind, AttemptKey, u64)> {
        let owed = told.owed(wanted.to_vec());
        let all: Vec<_> = owed.into_iter().flat_map(|(h, es)| es.into_iter().map(move |e| (h, e))).collect();
        shown(&all)
    }

    #[test]
    fn what_was_told_is_told_again_in_a_new_session_only() {
        let mut told = Told::default();
        let (kill, later) = (errand(1, Order::Kill, 3), errand(1, Order::Kill, 4));
        assert_eq!(owed(&mut told, only(&kill)).len(), 1);
        assert_eq!(owed(&mut told, only(&kill)).len(), 1, "put off, or not sent: owed until it is noted");
        told.note(kill.1.mark());
        assert_eq!(owed(&mut told, only(&kill)), []);
        assert_eq!(owed(&mut told, only(&later)).len(), 1);
        told.note(later.1.mark());
        assert_eq!(owed(&mut told, &[later]), []);
        assert_eq!(owed(&mut told, &[kill]).len(), 1, "the session it was told in is another one");
    }

    #[test]
    fn another_order_for_the_same_attempt_is_another_errand() {
        let mut told = Told::default();
        let (kill, orphan) = (errand(1, Order::Kill, 3), errand(1, Order::KillOrphan, 3));
        told.note(kill.1.mark());
        assert_eq!(owed(&mut told, &[kill, orphan]), [(host(1), Kind::KillOrphan, attempt(1, 1), 1)]);
    }

    #[test]
    fn what_is_wanted_no_more_is_forgotten() {
        let mut told = Told::default();
        let (one, other) = (errand(1, Order::Kill, 3), errand(2, Order::Kill, 3));
        told.note(one.1.mark());
        told.note(other.1.mark());
        assert_eq!(owed(&mut told, &[other]), []);
        assert_eq!(told.0.len(), 1, "memory does not grow with the attempts that have ended");
    }

    const CODES: [DenialCode; 8] = [
        DenialCode::StaleEpoch,
        DenialCode::Unknown,
        DenialCode::Conflict,
        DenialCode::NoRoom,
        DenialCode::Unsupported,
        DenialCode::Invalid,
        DenialCode::Image,
        DenialCode::Failed,
    ];

    fn refused(kind: Kind, code: DenialCode) -> Meaning {
        meaning(kind, (attempt(1, 2), Epoch(7)), &Denial { code, text: "because".into() }, NOW)
    }

    /// The end that a refusal tells of.
    fn end_of(meaning: Meaning) -> AttemptOutcome {
        let Meaning::News(CommandBody::AttemptEnd(report)) = meaning else { panic!("{meaning:?}") };
        assert_eq!((report.attempt, report.epoch), (attempt(1, 2), Epoch(7)));
        assert_eq!((report.end.started_at, report.end.ended_at), (None, NOW), "it never ran");
        report.end.outcome
    }

    #[test]
    fn a_start_that_is_put_off_is_told_again() {
        assert_eq!(refused(Kind::Start, DenialCode::Conflict), Meaning::NotYet);
        for code in CODES {
            assert_ne!(refused(Kind::Kill, code), Meaning::NotYet, "{code:?}");
            assert_ne!(refused(Kind::KillOrphan, code), Meaning::NotYet, "{code:?}");
        }
    }

    #[test]
    fn a_start_that_the_host_can_never_make_is_the_attempts_end() {
        let failed = AttemptOutcome::FailedToStart { reason: "because".into() };
        for code in [DenialCode::Unsupported, DenialCode::Invalid, DenialCode::Image, DenialCode::Failed] {
            assert_eq!(end_of(refused(Kind::Start, code)), failed, "{code:?}");
        }
    }

    #[test]
    fn a_full_host_declines_which_is_no_failure() {
        let declined = AttemptOutcome::Declined { reason: "because".into() };
        assert_eq!(end_of(refused(Kind::Start, DenialCode::NoRoom)), declined);
    }

    #[test]
    fn a_host_that_knows_more_reports_the_end_itself() {
        for code in [DenialCode::StaleEpoch, DenialCode::Unknown] {
            assert_eq!(refused(Kind::Start, code), Meaning::Nothing, "{code:?}");
        }
    }

    #[test]
    fn an_attempt_to_be_killed_that_the_host_has_never_seen_is_over() {
        assert_eq!(end_of(refused(Kind::Kill, DenialCode::Unknown)), AttemptOutcome::Killed);
        for code in CODES.into_iter().filter(|code| *code != DenialCode::Unknown) {
            assert_eq!(refused(Kind::Kill, code), Meaning::Nothing, "{code:?}: it may live");
        }
    }

    #[test]
    fn an_orphan_is_settled_whatever_its_host_says() {
        let settled = CommandBody::AttemptSettled(AttemptSettled { attempt: attempt(1, 2) });
        for code in CODES {
            assert_eq!(refused(Kind::KillOrphan, code), Meaning::News(settled.clone()), "{code:?}");
        }
    }
}
