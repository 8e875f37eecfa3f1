//! Whether an assignment is taken. Pure: three answers make repeats harmless.

use super::record::{Entry, VmRecord};
use novacron_common::{
    planted::{self, Mistake},
    record::{VmAction, VmAssignment},
    wire::{Denial, DenialCode},
};

/// The answer to an assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written down, and its task will see to it.
    Queue,
    /// It is what this host holds already.
    AlreadySo,
    /// No.
    Deny(Denial),
}

pub(super) fn judge(held: Option<&Entry>, ask: &VmAssignment) -> Verdict {
    match held {
        None => Verdict::Queue,
        Some(_) if planted::is(Mistake::OldEpochObeyed) => Verdict::Queue,
        Some(entry) if ask.epoch < entry.epoch() => stale(entry, ask),
        Some(Entry::Left { .. }) if ask.action == VmAction::Delete => Verdict::Queue,
        Some(entry @ Entry::Left { epoch }) if ask.epoch <= *epoch => stale(entry, ask),
        Some(Entry::Left { .. }) => Verdict::Queue,
        Some(Entry::Held(record)) if is_overtaken(record, ask) => overtaken(record, ask),
        Some(Entry::Held(record)) if record.assignment == *ask => Verdict::AlreadySo,
        Some(Entry::Held(record)) => match record.lent {
            // A higher epoch means that the ledger has settled the migration, whatever is remembered of it here.
            Some(migration) if ask.epoch == record.assignment.epoch => {
                deny(DenialCode::Conflict, format!("{} is in the hands of {migration}", ask.vm))
            }
            _ => Verdict::Queue,
        },
    }
}

fn stale(entry: &Entry, ask: &VmAssignment) -> Verdict {
    let text =
        format!("{} was asked for under {}, but this host has seen {}", ask.vm, ask.epoch, entry.epoch());
    deny(DenialCode::StaleEpoch, text)
}

fn is_overtaken(record: &VmRecord, ask: &VmAssignment) -> bool {
    ask.is_older_than(&record.assignment) && !planted::is(Mistake::OldWishObeyed)
}

/// What was wanted before, and comes late: not even a machine that is deleted since is made anew by it.
fn overtaken(record: &VmRecord, ask: &VmAssignment) -> Verdict {
    let (vm, asked, seen) = (ask.vm, ask.generation, record.assignment.generation);
    deny(DenialCode::StaleEpoch, format!("{vm} was asked for by {asked}, but this host has heard {seen}"))
}

fn deny(code: DenialCode, text: String) -> Verdict {
    Verdict::Deny(Denial { code, text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::MigrationId,
        spec::StopTerms,
        units::{Epoch, Generation},
    };

    fn ask(epoch: u64, action: VmAction) -> VmAssignment {
        VmAssignment { epoch: Epoch(epoch), action, ..crate::vm::decide::tests::assignment(VmAction::Run) }
    }

    fn code(verdict: Verdict) -> Option<DenialCode> {
        match verdict {
            Verdict::Deny(denial) => Some(denial.code),
            _ => None,
        }
    }

    #[test]
    fn an_older_epoch_is_refused() {
        let held = Entry::Held(VmRecord::new(ask(3, VmAction::Run)));
        assert_eq!(code(judge(Some(&held), &ask(2, VmAction::Run))), Some(DenialCode::StaleEpoch));
        assert_eq!(judge(Some(&held), &ask(3, VmAction::Run)), Verdict::AlreadySo);
        assert_eq!(judge(Some(&held), &ask(4, VmAction::Run)), Verdict::Queue);
    }

    #[test]
    fn a_wish_that_was_overtaken_is_refused() {
        let wish = |generation, action| VmAssignment { generation: Generation(generation), ..ask(3, action) };
        let held = Entry::Held(VmRecord::new(wish(5, VmAction::Delete)));
        for late in [VmAction::Run, VmAction::Stop(StopTerms::AT_ONCE)] {
            assert_eq!(code(judge(Some(&held), &wish(4, late))), Some(DenialCode::StaleEpoch), "{late:?}");
        }
        assert_eq!(judge(Some(&held), &wish(5, VmAction::Delete)), Verdict::AlreadySo);
        assert_eq!(judge(Some(&held), &wish(6, VmAction::Run)), Verdict::Queue);
        let superseded = VmAssignment { epoch: Epoch(4), ..wish(5, VmAction::Run) };
        assert_eq!(
            judge(Some(&held), &superseded),
            Verdict::Queue,
            "an epoch supersedes what was wished before"
        );
    }

    #[test]
    fn a_machine_that_left_comes_back_only_under_a_newer_epoch() {
        let left = Entry::Left { epoch: Epoch(5) };
        assert_eq!(code(judge(Some(&left), &ask(5, VmAction::Run))), Some(DenialCode::StaleEpoch));
        assert_eq!(judge(Some(&left), &ask(6, VmAction::Run)), Verdict::Queue);
        assert_eq!(judge(Some(&left), &ask(5, VmAction::Delete)), Verdict::Queue);
    }

    #[test]
    fn a_machine_in_the_hands_of_a_migration_is_left_alone() {
        let mut record = VmRecord::new(ask(3, VmAction::Run));
        record.lent = Some(MigrationId::from_u128(1));
        let stop = ask(3, VmAction::Stop(StopTerms::AT_ONCE));
        let held = Entry::Held(record);
        assert_eq!(code(judge(Some(&held), &stop)), Some(DenialCode::Conflict));
        assert_eq!(judge(Some(&held), &ask(4, VmAction::Run)), Verdict::Queue, "the ledger has settled it");
    }
}
