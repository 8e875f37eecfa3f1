//! The judge of one cell: from what was seen afterwards, how it ended, and whether that may be. Pure.

use novacron_common::api::MigrationState;

use super::cell::Cell;
use super::expect::{Outcome, allowed};
use crate::serial::Verdict;

/// One of the two hosts of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// From where.
    Source,
    /// To where.
    Target,
}

/// What was seen after a fault was healed and the migration had ended. Counts are of (source, target).
#[derive(Debug, Clone)]
pub struct Seen {
    /// The migration's last state.
    pub migration: MigrationState,
    /// Where the ledger places the machine.
    pub placed: Place,
    /// What the ledger says that it does, such as `running`.
    pub state: String,
    /// QEMU processes.
    pub qemus: (usize, usize),
    /// Domains that run, as libvirt says.
    pub running: (usize, usize),
    /// The guest's continuity from before the move on.
    pub ticks: Verdict,
    /// What was left where nothing should be.
    pub left: Vec<String>,
    /// What the disk holds, by the guest and by the host; `None` where the guest was lost.
    pub disk: Option<(u64, u64)>,
}

/// How the cell ended.
///
/// # Errors
/// All that is wrong.
pub fn judge(cell: Cell, seen: &Seen) -> Result<Outcome, Vec<String>> {
    let mut wrong = Vec::new();
    let outcome = outcome(seen);
    match outcome {
        None => wrong.push(format!(
            "the migration says {:?}, the ledger has the machine {} on the {:?}",
            seen.migration, seen.state, seen.placed
        )),
        Some(outcome) => {
            if !allowed(cell).contains(&outcome) {
                wrong.push(format!("it ended {outcome:?}, which is none of {:?}", allowed(cell)));
            }
            wrong.extend(copies(outcome, seen));
            wrong.extend(continuity(outcome, &seen.ticks));
        }
    }
    wrong.extend(seen.left.iter().map(|left| format!("left over: {left}")));
    match (seen.disk, outcome) {
        (Some((guest, host)), _) if guest != host => {
            wrong.push(format!("the guest read {guest:016x} from its disk, the host holds {host:016x}"));
        }
        (None, Some(Outcome::There | Outcome::Back)) => wrong.push("the disk was not compared".to_owned()),
        _ => {}
    }
    if wrong.is_empty() { outcome.ok_or(wrong) } else { Err(wrong) }
}

/// `None` if what the migration and the ledger say does not fit together.
fn outcome(seen: &Seen) -> Option<Outcome> {
    match (seen.migration, seen.placed, seen.state.as_str()) {
        (MigrationState::Completed, Place::Target, "running") => Some(Outcome::There),
        (MigrationState::Failed, Place::Source, "running") => Some(Outcome::Back),
        (MigrationState::Completed, Place::Target, "stopped")
        | (MigrationState::Failed, Place::Source, "stopped") => Some(Outcome::Lost),
        _ => None,
    }
}

fn copies(outcome: Outcome, seen: &Seen) -> Option<String> {
    let wanted = match outcome {
        Outcome::There => (0, 1),
        Outcome::Back => (1, 0),
        Outcome::Lost => (0, 0),
    };
    let as_wanted = seen.qemus == wanted && seen.running == wanted;
    (!as_wanted).then(|| {
        format!("on (source, target) {:?} QEMUs, of which {:?} run, not {wanted:?}", seen.qemus, seen.running)
    })
}

/// A guest that was lost may have been in the middle of a line; it went back or forked in no case.
fn continuity(outcome: Outcome, ticks: &Verdict) -> Option<String> {
    let damage = ticks.repeated + ticks.bad_pages + ticks.disk_bad + ticks.boots;
    let sound = match outcome {
        Outcome::There | Outcome::Back => ticks.is_continuous() && damage == 0,
        Outcome::Lost => damage == 0,
    };
    (!sound).then(|| format!("the guest's ticks are not continuous: {ticks:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::cell::{Blow, Edge, Victim};
    use super::*;

    const CELL: Cell = Cell { victim: Victim::SourceAgent, blow: Blow::Kill, edge: Edge::Complete };

    fn there() -> Seen {
        Seen {
            migration: MigrationState::Completed,
            placed: Place::Target,
            state: "running".to_owned(),
            qemus: (0, 1),
            running: (0, 1),
            ticks: Verdict { ticks: 100, ..Verdict::default() },
            left: Vec::new(),
            disk: Some((7, 7)),
        }
    }

    fn back() -> Seen {
        Seen {
            migration: MigrationState::Failed,
            placed: Place::Source,
            qemus: (1, 0),
            running: (1, 0),
            ..there()
        }
    }

    fn lost() -> Seen {
        Seen { state: "stopped".to_owned(), qemus: (0, 0), running: (0, 0), disk: None, ..back() }
    }

    #[test]
    fn fully_there_fully_back_and_lost_are_told_apart() {
        assert_eq!(judge(CELL, &there()), Ok(Outcome::There));
        assert_eq!(judge(CELL, &back()), Ok(Outcome::Back));
        let killed = Cell { victim: Victim::SourceQemu, edge: Edge::Memory, ..CELL };
        assert_eq!(judge(killed, &lost()), Ok(Outcome::Lost));
    }

    #[test]
    fn an_end_that_the_cell_does_not_allow_is_wrong() {
        assert!(judge(Cell { edge: Edge::Gone, ..CELL }, &back()).is_err());
        assert!(judge(Cell { edge: Edge::Memory, ..CELL }, &there()).is_err());
        assert!(judge(CELL, &lost()).is_err());
    }

    #[test]
    fn each_single_thing_that_is_wrong_is_found() {
        type Spoil = fn(&mut Seen);
        let spoilt: [Spoil; 13] = [
            |seen| seen.qemus = (1, 1),
            |seen| seen.running = (1, 1),
            |seen| seen.qemus = (0, 0),
            |seen| seen.running = (0, 0),
            |seen| seen.migration = MigrationState::Finishing,
            |seen| seen.placed = Place::Source,
            |seen| seen.state = "paused".to_owned(),
            |seen| seen.ticks.lost = 1,
            |seen| seen.ticks.repeated = 1,
            |seen| seen.ticks.bad_pages = 1,
            |seen| seen.ticks.boots = 1,
            |seen| seen.left.push("h1: domain".to_owned()),
            |seen| seen.disk = Some((7, 8)),
        ];
        for (n, spoil) in spoilt.iter().enumerate() {
            let mut seen = there();
            spoil(&mut seen);
            assert!(judge(CELL, &seen).is_err(), "spoilt as {n}: {seen:?}");
        }
        assert!(judge(CELL, &Seen { disk: None, ..there() }).is_err());
    }

    #[test]
    fn a_lost_guest_that_went_on_somewhere_is_wrong() {
        let killed = Cell { victim: Victim::SourceQemu, edge: Edge::Memory, ..CELL };
        assert!(judge(killed, &Seen { qemus: (0, 1), ..lost() }).is_err());
        let mut forked = lost();
        forked.ticks.repeated = 3;
        assert!(judge(killed, &forked).is_err());
    }
}
