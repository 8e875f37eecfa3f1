//! Gangs: machines that move together take turns over the same way, so that each finds at the target what those before it
//! brought there.

use super::migrations::TICKET_LIFE;
use crate::{record::MigrationRecord, state::State};

/// Whether others of the gang go first.
pub(super) fn is_taken(state: &State, record: &MigrationRecord) -> bool {
    comrades(state, record).next().is_some()
}

/// A migration has ended: the one of its gang that has waited for longest goes next. One that never had its turn (it was
/// cancelled while it waited) has none to pass on.
pub(super) fn pass_on(state: &mut State, ended: &MigrationRecord) {
    if ended.awaits_turn {
        return;
    }
    let next = comrades(state, ended).min_by_key(|record| (record.started_at, record.id)).cloned();
    if let Some(next) = next {
        let ticket_expires_at = state.now().plus(TICKET_LIFE);
        // A new step: whoever drives the saga looks again at once.
        let step = next.step + 1;
        state.write(MigrationRecord { awaits_turn: false, ticket_expires_at, step, ..next });
    }
}

/// The others of the gang that have not ended.
fn comrades<'a>(state: &'a State, record: &MigrationRecord) -> impl Iterator<Item = &'a MigrationRecord> {
    let open = state.index().migrating().filter_map(|id| state.migration(id));
    open.filter(move |other| other.id != record.id && other.shares_turns_with(record))
}
