//! What may be true after a cell. The narrower, the more the matrix can find.

use super::cell::{Blow, Cell, Edge, Victim};

/// How a move through a fault ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest runs on the target and never noticed.
    There,
    /// The guest runs on the source and never noticed.
    Back,
    /// The guest's process was killed: nobody runs it, the ledger says that it is stopped, its disk starts again.
    Lost,
}

impl Outcome {
    /// Its name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::There => "there",
            Self::Back => "back",
            Self::Lost => "lost",
        }
    }
}

const THERE: &[Outcome] = &[Outcome::There];
const BACK: &[Outcome] = &[Outcome::Back];
/// Which it is depends on which of two messages was first.
const EITHER: &[Outcome] = &[Outcome::There, Outcome::Back];
const LOST: &[Outcome] = &[Outcome::Lost];
/// The process was killed at the moment at which it stopped being the guest.
const LOST_OR_NOT: &[Outcome] = &[Outcome::Lost, Outcome::There, Outcome::Back];

/// What may come of a cell.
#[must_use]
pub fn allowed(cell: Cell) -> &'static [Outcome] {
    match cell.blow {
        // Nothing of ours gives up within ten seconds.
        Blow::Stop | Blow::Cut => THERE,
        Blow::Kill => after_kill(cell.victim, cell.edge),
        Blow::CutForGood => after_cut(cell.victim, cell.edge),
    }
}

fn after_kill(victim: Victim, edge: Edge) -> &'static [Outcome] {
    match (victim, edge) {
        (Victim::SourceQemu, Edge::Complete) => LOST_OR_NOT,
        (Victim::SourceQemu, _) => LOST,
        (Victim::TargetQemu, Edge::Copying | Edge::Memory) => BACK,
        (Victim::TargetQemu, Edge::Complete) => LOST_OR_NOT,
        (Victim::TargetQemu, _) => LOST,
        // What it has committed it goes on with, and both agents do without it meanwhile.
        (Victim::Coordinator, _) => THERE,
        (_, Edge::Gone | Edge::Running) => THERE,
        (_, Edge::Copying | Edge::Memory) => BACK,
        // It has written down what it was about, and begins nothing anew.
        (Victim::SourceAgent | Victim::TargetAgent, Edge::Connecting) => BACK,
        (Victim::TargetAgent, Edge::Preparing) => BACK,
        // Struck while the next step is on its way to it.
        _ => EITHER,
    }
}

fn after_cut(victim: Victim, edge: Edge) -> &'static [Outcome] {
    match (victim, edge) {
        // The agents do not need it until the copy is complete, and nothing is given up for want of it.
        (Victim::Coordinator, _) => THERE,
        (_, Edge::Gone | Edge::Running) => THERE,
        (_, Edge::Connecting | Edge::Copying | Edge::Memory) => BACK,
        (Victim::Link, Edge::Preparing) => BACK,
        // A host that is cut off before it was told anything is told when it is back.
        _ => EITHER,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cell::all;
    use super::*;

    #[test]
    fn only_a_killed_qemu_may_lose_a_guest_and_before_its_copy_is_complete_it_does() {
        for cell in all() {
            let may_lose = allowed(cell).contains(&Outcome::Lost);
            let qemu = matches!(cell.victim, Victim::SourceQemu | Victim::TargetQemu);
            assert!(!may_lose || qemu && cell.blow == Blow::Kill, "{cell}");
            if cell.victim == Victim::SourceQemu && cell.blow == Blow::Kill && cell.edge < Edge::Complete {
                assert_eq!(allowed(cell), LOST, "{cell}");
            }
        }
    }

    #[test]
    fn what_has_left_the_source_never_comes_back() {
        for cell in all().into_iter().filter(|cell| cell.edge >= Edge::Gone) {
            assert!(!allowed(cell).contains(&Outcome::Back), "{cell}");
        }
    }

    #[test]
    fn pauses_and_short_cuts_end_no_migration() {
        let short = all().into_iter().filter(|cell| matches!(cell.blow, Blow::Stop | Blow::Cut));
        assert!(short.into_iter().all(|cell| allowed(cell) == THERE));
    }

    #[test]
    fn no_cell_allows_everything_but_where_a_qemu_dies_in_its_last_moment() {
        let wide: Vec<String> =
            all().into_iter().filter(|&cell| allowed(cell).len() > 2).map(|cell| cell.to_string()).collect();
        assert_eq!(wide, ["source-qemu.kill.complete", "target-qemu.kill.complete"]);
    }
}
