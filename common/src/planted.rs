//! Protocol mistakes on purpose, for the simulation to catch: a checker that never fails shows nothing.
//!
//! In every shipped program [`is`] is a constant `false` and the mistakes are compiled away. Only the test target
//! `planted` of `tests/sim` turns the feature on; that no shipped program has it is tested there too.

/// Declares the mistakes and lists them: one that is left out of the list cannot be planted.
macro_rules! mistakes {
    ($($(#[$group_doc:meta])* $group:ident { $($(#[$doc:meta])* $name:ident,)* })*) => {
        /// A mistake that the code can be made to make.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mistake { $($($(#[$doc])* $name,)*)* }

        impl Mistake {
            $($(#[$group_doc])* pub const $group: &'static [Self] = &[$(Self::$name,)*];)*
        }
    };
}

mistakes! {
    /// With jobs and the ledger.
    OF_JOBS {
        /// Log entries are acknowledged before they are on disk.
        AppendNotSynced,
        /// A vote is given that a crash forgets.
        VoteNotSynced,
        /// A vote is not written at all.
        VoteNotWritten,
        /// A snapshot is sent without some of the rows.
        SnapshotSkipsRows,
        /// Some of what an entry changed is not written down.
        RowsForgotten,
        /// The state on disk says that it is one entry further than it is.
        AppliedTooFar,
        /// The state on disk says that it is a few entries behind what it is.
        AppliedTooNear,
        /// The state machine reads its own clock.
        ClockInApply,
        /// A read does not ask a quorum whether it is current.
        ReadWithoutIndex,
        /// A leader answers for the index of a read without asking a quorum.
        ReadIndexWithoutQuorum,
        /// A read does not wait until its state has what the index says.
        ReadBeforeApplied,
        /// A write whose outcome is unknown is answered as if nothing had happened.
        UnknownToldAsRefused,
        /// Ticks that were passed over are not counted.
        MissedSilently,
        /// A new leader begins before it has applied what the one before it committed, and nobody looks whether a tick
        /// was dealt with.
        FiredAgainByNextLeader,
        /// The next tick is looked for a second too late.
        TickSkipped,
        /// The end of an earlier attempt ends the present one.
        StaleReportAccepted,
        /// A host that is not heard from is taken for dead, and its fires are tried elsewhere.
        RetriedWhileAlive,
        /// A new attempt comes under the epoch of the one before.
        EpochNotRaised,
        /// A report is acknowledged before it is committed.
        ReportAcknowledgedEarly,
        /// A host forgets, when its agent starts anew, which fires it has seen.
        FencesForgotten,
        /// A host starts an attempt again whose start command comes twice.
        EchoStartedAgain,
        /// A lease whose renewal failed does not end.
        LostLeaseIgnored,
        /// An attempt on a host that is out of sight is tried elsewhere before its lease has run out.
        LeaseNotWaitedFor,
        /// An agent that starts anew is taken to have no attempts any more.
        HelloEndsAttempts,
        /// A fire of a job that forbids two at a time comes beside another.
        OverlapAdmitted,
        /// A host that lost its power does not say what was lost with it.
        LostNotReported,
    }

    /// With machines that move.
    OF_MOVES {
        /// The right to run a machine goes over although nobody has seen that it left its source.
        HandedOverUnseen,
        /// It goes over, and both hosts hold it under the same epoch.
        HandoverKeepsEpoch,
        /// A source takes a machine whose copy has ended for gone, and does not look.
        GoneUnseen,
        /// Nobody tells the source that its leftovers are of no use any more.
        ReleaseForgotten,
        /// A target that runs the machine does not write down that its move has ended.
        ArrivalNotWritten,
        /// A cancel discards what arrived although the source is gone.
        OnlyCopyDiscarded,
        /// A machine is changed while a migration has it in hand.
        LentMachineTouched,
        /// A host obeys an order of a past epoch.
        OldEpochObeyed,
        /// A host obeys a wish that was overtaken.
        OldWishObeyed,
        /// What a host saw before it heard the last wish is taken for what came of it.
        OldReportTaken,
        /// A guest goes over, and its target was not told that it may run it.
        OpenForgotten,
        /// A half of a guest that is cut off is let run on where it was.
        HalfLetRun,
        /// A half of a guest that is cut off is taken for one that has ended.
        HalfTakenForLost,
    }
}

#[cfg(not(feature = "planted"))]
mod off {
    /// Whether the code that asks is to make this mistake: never.
    #[inline(always)]
    pub const fn is(_mistake: super::Mistake) -> bool {
        false
    }
}

#[cfg(feature = "planted")]
mod on {
    use super::Mistake;
    use std::cell::Cell;

    /// Found in every program that has the mistakes, and in no other.
    pub const MARK: &str = "novacron: planted mistakes are compiled in";

    thread_local! {
        static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// From now on code on this thread makes this mistake, or none.
    pub fn plant(mistake: Option<Mistake>) {
        // Kept by the linker only if something uses it.
        std::hint::black_box(MARK);
        PLANTED.with(|planted| planted.set(mistake));
    }

    /// Whether the code that asks is to make this mistake.
    pub fn is(mistake: Mistake) -> bool {
        PLANTED.with(Cell::get) == Some(mistake)
    }
}

#[cfg(not(feature = "planted"))]
pub use off::is;
#[cfg(feature = "planted")]
pub use on::{MARK, is, plant};
