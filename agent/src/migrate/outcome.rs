//! What a source makes of what it sees once a copy is over. Pure: a migration's outcome is a matter of fact, and
//! no return code or time-out decides it.

use super::ports::Standing;
use novacron_common::planted::{self, Mistake};

/// What a source looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// What the hypervisor holds.
    pub standing: Standing,
    /// Whether a copy is under way.
    pub copying: bool,
    /// Whether a copy may have begun.
    pub begun: bool,
    /// Whether the copy was reported to have succeeded.
    pub sent: bool,
    /// Whether the guest ran when it began.
    pub live: bool,
    /// Whether the target's libvirtd was let run it, before all of its memory had crossed (post-copy).
    pub split: bool,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is not here any more.
    Gone,
    /// It is here as before.
    Back,
    /// The copy goes on without us: end it.
    Abort,
    /// The guest is held and nobody copies it: let it run. It was never reported gone, so no hand-over can have
    /// been committed, and its copy elsewhere is held.
    Resume,
    /// It runs here although it may run at the target: end it. QEMU is kept from that ([`Mover::go_over`](super::ports::Mover::go_over));
    /// somebody else may have let it run.
    Halt,
    /// A half of it is here, and cannot go on by itself.
    Stranded,
    /// A half of it was here, and has ended.
    Lost,
    /// Look again.
    Wait,
}

/// Judges.
pub fn judge(sight: Sight) -> Verdict {
    let Sight { standing, copying, begun, sent, live, split } = sight;
    match standing {
        Standing::Split { broken: true } if planted::is(Mistake::HalfLetRun) => Verdict::Resume,
        Standing::Split { broken: true } if planted::is(Mistake::HalfTakenForLost) => Verdict::Lost,
        Standing::Split { broken: true } => Verdict::Stranded,
        Standing::Split { broken: false } => Verdict::Wait,
        // It may run at the target: whatever is here never runs again.
        Standing::Absent if split => Verdict::Gone,
        Standing::Stopped if split => Verdict::Lost,
        Standing::Running if split => Verdict::Halt,
        Standing::Paused { .. } | Standing::Unclear if split => Verdict::Wait,
        Standing::Unclear => Verdict::Wait,
        Standing::Running | Standing::Paused { .. } if copying => Verdict::Abort,
        Standing::Running => Verdict::Back,
        Standing::Paused { .. } if live => Verdict::Resume,
        // Somebody held a machine that we were about to stop.
        Standing::Paused { .. } => Verdict::Back,
        // With a live copy libvirt forgets the machine only when the target has confirmed that it is complete.
        Standing::Absent if live && begun => Verdict::Gone,
        Standing::Absent | Standing::Stopped if sent => Verdict::Gone,
        Standing::Absent | Standing::Stopped => Verdict::Back,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDINGS: [Standing; 8] = [
        Standing::Absent,
        Standing::Running,
        Standing::Paused { persistent: false },
        Standing::Paused { persistent: true },
        Standing::Stopped,
        Standing::Split { broken: false },
        Standing::Split { broken: true },
        Standing::Unclear,
    ];

    fn sights() -> impl Iterator<Item = Sight> {
        let flags = (0..32).map(|bits| [1, 2, 4, 8, 16].map(|bit| bits & bit != 0));
        flags.flat_map(|[copying, begun, sent, live, split]| {
            STANDINGS.map(|standing| Sight { standing, copying, begun, sent, live, split })
        })
    }

    #[test]
    fn a_machine_whose_processors_exist_here_is_never_gone() {
        for sight in sights() {
            let here = matches!(
                sight.standing,
                Standing::Running | Standing::Paused { .. } | Standing::Split { .. } | Standing::Unclear
            );
            assert!(!here || judge(sight) != Verdict::Gone, "{sight:?}");
        }
    }

    #[test]
    fn a_guest_that_may_run_at_the_target_never_runs_here_again() {
        for sight in sights() {
            let over = sight.split || matches!(sight.standing, Standing::Split { .. });
            let runs = matches!(judge(sight), Verdict::Resume | Verdict::Back | Verdict::Abort);
            assert!(!(over && runs), "{sight:?}");
        }
    }

    #[test]
    fn a_half_that_ends_is_lost_and_one_that_is_cut_off_is_stranded() {
        let sight =
            |standing| Sight { standing, copying: false, begun: true, sent: false, live: true, split: true };
        assert_eq!(judge(sight(Standing::Stopped)), Verdict::Lost);
        assert_eq!(judge(sight(Standing::Split { broken: true })), Verdict::Stranded);
        assert_eq!(judge(sight(Standing::Absent)), Verdict::Gone);
        assert_eq!(judge(sight(Standing::Running)), Verdict::Halt);
    }

    #[test]
    fn the_word_of_the_call_alone_decides_nothing_about_a_live_machine_that_is_known() {
        for sight in sights().filter(|s| s.live && s.begun && s.standing != Standing::Stopped) {
            assert_eq!(judge(sight), judge(Sight { sent: !sight.sent, ..sight }), "{sight:?}");
        }
    }

    #[test]
    fn a_held_guest_runs_on_only_when_nobody_copies_it() {
        let held = Sight {
            standing: Standing::Paused { persistent: true },
            copying: true,
            begun: true,
            sent: false,
            live: true,
            split: false,
        };
        assert_eq!(judge(held), Verdict::Abort);
        assert_eq!(judge(Sight { copying: false, ..held }), Verdict::Resume);
    }

    #[test]
    fn a_stopped_disk_that_did_not_cross_is_still_here() {
        let stopped = Sight {
            standing: Standing::Stopped,
            copying: false,
            begun: true,
            sent: false,
            live: false,
            split: false,
        };
        assert_eq!(judge(stopped), Verdict::Back);
        assert_eq!(judge(Sight { sent: true, ..stopped }), Verdict::Gone);
    }

    #[test]
    fn a_machine_that_vanished_before_the_copy_began_did_not_go_to_the_target() {
        let vanished = Sight {
            standing: Standing::Absent,
            copying: false,
            begun: false,
            sent: false,
            live: true,
            split: false,
        };
        assert_eq!(judge(vanished), Verdict::Back);
        assert_eq!(judge(Sight { begun: true, ..vanished }), Verdict::Gone);
    }
}
