//! Idempotency keys, tickets and clock alarms.
//!
//! A keyed command and its key are one command: there is no moment at which the one is committed and the other is
//! not. A refused command changed nothing and keeps no key, so that it may be tried again.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::{ClockAlarm, Keyed, RequestAnswered, TicketPut},
    record::{AlarmRecord, RequestRecord, TicketRecord},
    state::State,
};
use novacron_common::{api::ProblemCode, spec::Sha256Digest};
use std::time::Duration;

/// A key is remembered for so long.
pub const REQUESTS_REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Most keys; beyond it the oldest are forgotten early.
pub const REQUESTS_MAX: usize = 50_000;
/// Most bytes of keys and answers; beyond it the oldest are forgotten early.
pub const REQUESTS_BYTES_MAX: usize = 64 << 20;
/// Longest sealed answer that is kept.
pub const ANSWER_MAX: usize = 16 * 1024;
/// Most unused tickets; beyond it the one that ends first is forgotten.
const TICKETS_MAX: usize = 4096;

pub(super) fn keyed(state: &mut State, c: Keyed) -> Applied {
    match state.request(&c.key) {
        Some(known) if known.fingerprint != c.fingerprint => return Applied::Refused(Refusal::key_reused()),
        Some(known) => return Applied::Repeated(Box::new(known.outcome.clone())),
        None => (),
    }
    if matches!(c.body, crate::CommandBody::Keyed(_)) {
        return Applied::Refused(Refusal::new(ProblemCode::InvalidRequest, "a keyed command inside another"));
    }
    let outcome = super::apply(state, c.body);
    if !matches!(outcome, Applied::Refused(_) | Applied::JoinDenied(_)) {
        let (at, outcome) = (state.now(), outcome.clone());
        let record = RequestRecord { key: c.key, fingerprint: c.fingerprint, outcome, answer: None, at };
        // An outcome that fills a row is longer than any that a request can have.
        if super::fits(&record, "body").is_ok() {
            forget_old(state);
            state.write(record);
        }
    }
    outcome
}

/// The oldest go first, by age, by number and by bytes.
fn forget_old(state: &mut State) {
    let now = state.now();
    while let Some((at, key)) = state.index().oldest_request() {
        let crowded = state.requests().len() >= REQUESTS_MAX
            || state.index().request_bytes() + 2 * ANSWER_MAX > REQUESTS_BYTES_MAX;
        if !crowded && now.since(at) <= REQUESTS_REMEMBERED {
            return;
        }
        state.erase::<RequestRecord>(&key);
    }
}

/// Too long an answer is not kept: a repetition then gets one made anew from the same outcome.
pub(super) fn answered(state: &mut State, c: RequestAnswered) -> Outcome {
    // Many requests may have got their keys before the first of them got its answer.
    forget_old(state);
    let Some(record) = state.request(&c.key).cloned() else { return Ok(Applied::AlreadySo) };
    if record.answer.is_some() || c.answer.sealed.len() > ANSWER_MAX {
        return Ok(Applied::AlreadySo);
    }
    state.write(RequestRecord { answer: Some(c.answer), ..record });
    Ok(Applied::Done)
}

pub(super) fn ticket_put(state: &mut State, c: TicketPut) -> Outcome {
    let now = state.now();
    let tickets = state.table::<TicketRecord>();
    let mut gone: Vec<_> = tickets.iter().filter(|t| t.expires_at <= now).map(|t| t.digest).collect();
    if tickets.len() - gone.len() >= TICKETS_MAX {
        gone.extend(tickets.iter().min_by_key(|t| (t.expires_at, t.digest)).map(|t| t.digest));
    }
    for digest in gone {
        state.erase::<TicketRecord>(&digest);
    }
    state.write(TicketRecord { digest: c.digest, role: c.role, expires_at: c.expires_at });
    Ok(Applied::Done)
}

/// An unknown ticket, a used one and one that ran out are answered alike: nothing can be probed.
pub(super) fn ticket_use(state: &mut State, digest: Sha256Digest) -> Outcome {
    let ticket = state.table::<TicketRecord>().get(&digest);
    match ticket.filter(|t| t.expires_at > state.now()).map(|t| t.role) {
        Some(role) => {
            state.erase::<TicketRecord>(&digest);
            Ok(Applied::TicketSpent(role))
        }
        None => Err(Refusal::new(ProblemCode::Unauthenticated, "the ticket is not valid (any more)")
            .fix("get a new one: it works once, for 30 seconds")),
    }
}

pub(super) fn clock_alarm(state: &mut State, c: ClockAlarm) -> Outcome {
    let known = state.alarms().get(&c.node).cloned();
    match (c.median_ahead_ms, known) {
        (None, None) => return Ok(Applied::AlreadySo),
        (None, Some(_)) => state.erase::<AlarmRecord>(&c.node),
        (Some(_), _) if !state.coordinators().has(&c.node) => {
            return Err(Refusal::not_found("coordinator", c.node));
        }
        (Some(median_ahead_ms), known) => {
            let since = known.map_or(state.now(), |known| known.since);
            state.write(AlarmRecord { node: c.node, median_ahead_ms, since });
        }
    }
    Ok(Applied::Done)
}
