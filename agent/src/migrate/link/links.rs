//! The links of one migration: one for all of it, and where its memory crosses on several channels, a further one for each of
//! those. A link that is lost takes its own lanes with it until it is back; a link that is over ends the migration.

use super::{
    keeper::{Keeper, LaneError, LinkCondition, SavedKeeper},
    lane::{LaneReader, LaneWriter},
    saved::{BadLane, SavedLane},
};
use futures_util::future::select_all;
use novacron_common::{
    record::Ticket,
    wire::{LaneId, LaneKind},
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU8, Ordering};

/// Opens lanes to one target with one ticket. Closed when it is dropped.
pub struct Links {
    first: Keeper,
    further: Vec<Keeper>,
    /// Of the next lane of each kind.
    numbers: [AtomicU8; 4],
}

/// Links as they stand, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLinks {
    first: SavedKeeper,
    further: Vec<SavedKeeper>,
    numbers: [u8; 4],
}

impl Links {
    /// All lanes on `first`, but for the memory lanes behind the main channel's: those take turns on `further`, if there are
    /// any.
    pub fn new(first: Keeper, further: Vec<Keeper>) -> Self {
        Self { first, further, numbers: Default::default() }
    }

    /// Goes on where a predecessor was; `restore` does so with each link.
    pub fn restore(saved: &SavedLinks, restore: impl Fn(&SavedKeeper) -> Keeper) -> Self {
        Self {
            first: restore(&saved.first),
            further: saved.further.iter().map(&restore).collect(),
            numbers: saved.numbers.map(AtomicU8::new),
        }
    }

    /// Leaves all of them to a successor, as [`Keeper::leave`] does.
    pub fn leave(&self) -> (SavedLinks, Vec<SavedLane>) {
        let (first, mut lanes) = self.first.leave();
        let further = self.further.iter().map(|keeper| {
            let (saved, left) = keeper.leave();
            lanes.extend(left);
            saved
        });
        let further = further.collect();
        let numbers = self.numbers.each_ref().map(|number| number.load(Ordering::Relaxed));
        (SavedLinks { first, further, numbers }, lanes)
    }

    /// The next lane of this kind. Their numbers tell them apart at the target; the main channel of memory is 0.
    ///
    /// # Errors
    /// [`LaneError::TooMany`].
    pub fn next(&self, kind: LaneKind) -> Result<LaneId, LaneError> {
        let number = self.numbers[kind as usize]
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |number| number.checked_add(1))
            .map_err(|_| LaneError::TooMany(kind))?;
        Ok(LaneId { kind, number })
    }

    /// As [`Keeper::open`], on the lane's link.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn open(&self, id: LaneId) -> Result<(LaneReader, LaneWriter), LaneError> {
        self.of(id).open(id).await
    }

    /// As [`Keeper::resume`], on the lane's link.
    ///
    /// # Errors
    /// [`BadLane`].
    pub fn resume(&self, saved: &SavedLane) -> Result<(LaneReader, LaneWriter), BadLane> {
        self.of(saved.id).resume(saved)
    }

    fn of(&self, id: LaneId) -> &Keeper {
        let turn = match id {
            LaneId { kind: LaneKind::Memory, number: number @ 1.. } => usize::from(number) - 1,
            _ => return &self.first,
        };
        // None of them: the rest of the division is not asked for.
        let further = turn.checked_rem(self.further.len()).and_then(|which| self.further.get(which));
        further.unwrap_or(&self.first)
    }

    fn all(&self) -> impl Iterator<Item = &Keeper> {
        std::iter::once(&self.first).chain(&self.further)
    }

    /// With which the lanes are opened.
    pub fn ticket(&self) -> &Ticket {
        self.first.ticket()
    }

    /// How they fare: lost if one of them is. What cuts one mostly cuts all, and counts once.
    pub fn condition(&self) -> LinkCondition {
        together(self.all().map(Keeper::condition))
    }

    /// Waits until [`Links::condition`] is not `before` any more.
    pub async fn changed(&self, before: LinkCondition) {
        loop {
            let seen: Vec<_> = self.all().map(|keeper| (keeper, keeper.condition())).collect();
            if together(seen.iter().map(|(_, condition)| *condition)) != before {
                return;
            }
            select_all(seen.into_iter().map(|(keeper, seen)| Box::pin(keeper.changed(seen)))).await;
        }
    }

    /// Waits until one of them is over for good; says why.
    pub async fn over(&self) -> String {
        select_all(self.all().map(|keeper| Box::pin(keeper.over()))).await.0
    }

    /// Ends every lane.
    pub fn close(&self) {
        self.all().for_each(Keeper::close);
    }
}

fn together(conditions: impl Iterator<Item = LinkCondition>) -> LinkCondition {
    conditions.fold(LinkCondition::default(), |all, one| LinkCondition {
        lost: all.lost || one.lost,
        cuts: all.cuts.max(one.cuts),
    })
}
