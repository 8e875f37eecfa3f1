//! Whether a lane may be opened: its ticket, what is expected now, and whether it goes on with one that is known.

use super::{Door, Onward};
use crate::migrate::{
    lane::{connection::Halves, source::name},
    link::{lane::Lane, window},
};
use novacron_common::{
    ids::HostId,
    record::Ticket,
    units::UnixMillis,
    wire::{Denial, DenialCode, LaneId, LaneKind, LaneOpen},
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub prepared: bool,
    /// Every lane that there has been.
    pub lanes: BTreeMap<LaneId, Arc<Lane>>,
}

/// What becomes of an opening.
pub(super) enum Entry {
    /// A new lane, with this side's halves.
    New(Arc<Lane>, Halves),
    /// One whose link was cut; the target has everything up to this offset.
    Again(Arc<Lane>, u64),
    /// One that has ended well.
    Over,
}

fn invalid<T>(text: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { code: DenialCode::Invalid, text: text.into() })
}

impl Door {
    /// Whether this lane may be opened or taken up, and if so, notes it.
    ///
    /// # Errors
    /// The denial that the source is sent.
    pub(super) fn admit(&self, open: &LaneOpen, peer: HostId, now: UnixMillis) -> Result<Entry, Denial> {
        if !is_same(&self.ticket, &open.ticket) || peer != self.ticket.source {
            return invalid("the ticket is not the one that was agreed upon");
        }
        if self.stop.is_cancelled() {
            return invalid("the migration is over here");
        }
        let mut seen = self.seen();
        if let Some(lane) = seen.lanes.get(&open.lane) {
            return take_up(lane.clone(), open);
        }
        // What began in time may go on.
        let begins = seen.lanes.is_empty() && !matches!(self.onward, Onward::Rest { .. });
        if begins && now > self.ticket.expires_at {
            return invalid("the ticket has expired");
        }
        let LaneId { kind, number } = open.lane;
        let expected = match (kind, &self.onward) {
            (LaneKind::Control | LaneKind::Held, Onward::Live { .. }) => true,
            (LaneKind::Memory | LaneKind::Disk, Onward::Live { .. }) => seen.prepared,
            (LaneKind::Disk, Onward::Cold(_)) => number == 0,
            (LaneKind::Memory, Onward::Rest { .. }) => true,
            (_, Onward::Cold(_) | Onward::Rest { .. }) => false,
        };
        let Some(window) = window::of(open.lane).filter(|_| expected) else {
            return invalid(format!("no {} lane is expected now", name(kind)));
        };
        // A lane of the way that broke is none of the way for the rest, though its source may still hope for it.
        let of_another_way = matches!(self.onward, Onward::Rest { .. }) && open.turn > 1;
        if open.turn == 0 || open.received != 0 || of_another_way {
            return invalid(format!("there is no {} lane that could be taken up", name(kind)));
        }
        let (lane, reader, writer) = Lane::new(open.lane, window);
        seen.lanes.insert(open.lane, lane.clone());
        lane.take_turn(open.turn, 0)
            .map_err(|lie| Denial { code: DenialCode::Invalid, text: lie.to_string() })?;
        Ok(Entry::New(lane, (reader, writer)))
    }
}

/// Goes on with a lane that is known: newest wins, and only forwards.
fn take_up(lane: Arc<Lane>, open: &LaneOpen) -> Result<Entry, Denial> {
    let kind = name(open.lane.kind);
    if lane.is_complete() {
        return Ok(Entry::Over);
    }
    if let Some(reason) = lane.broken() {
        return invalid(format!("the {kind} lane is broken: {reason}"));
    }
    match lane.take_turn(open.turn, open.received) {
        Ok(Some(received)) => Ok(Entry::Again(lane, received)),
        Ok(None) => invalid(format!("the ticket is spent: the {kind} lane is open already")),
        Err(lie) => invalid(format!("the {kind} lane is refused: {lie}")),
    }
}

/// All of both tickets; the secret without telling by the time how much of it was right.
fn is_same(ours: &Ticket, theirs: &Ticket) -> bool {
    let secret = aws_lc_rs::constant_time::verify_slices_are_equal(&ours.secret, &theirs.secret).is_ok();
    let rest = Ticket { secret: ours.secret, ..theirs.clone() } == *ours;
    secret && rest
}
