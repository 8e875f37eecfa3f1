//! What is under way on one connection of an arrival, and how it is left to a successor.

use super::{Door, Onward};
use crate::migrate::{
    filter::Expectation,
    lane::{
        codec::{self, Decoding, SavedDecoding},
        connection::{Connection, SavedFlows, rest},
        control::{self, Guarding, SavedGuarding},
        relay::{self, Flow, Flows},
        saved::NotResumed,
    },
};
use bytes::Bytes;
use novacron_common::wire::{LaneId, LaneKind};
use serde::{Deserialize, Serialize};
use std::{io, sync::atomic::AtomicU64};

/// What is under way on one connection.
pub(super) enum Traffic {
    Control(Box<Guarding>),
    Memory(Decoding, Flow),
    Plain(Flows),
}

/// A [`Traffic`] as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedTraffic {
    /// libvirt's calls.
    Control(SavedGuarding),
    /// A memory channel, and what goes back on it.
    Memory(SavedDecoding, Bytes),
    /// A disk.
    Plain(SavedFlows),
}

impl Traffic {
    /// Of a connection that has just been made.
    pub fn new(door: &Door, id: LaneId, expectation: &Expectation) -> Self {
        match id.kind {
            LaneKind::Control => Self::Control(Box::new(Guarding::new(expectation.clone()))),
            // A machine that allows post-copy sends its memory on one channel; the second is post-copy's own.
            LaneKind::Memory => Self::memory(door, id.number, !expectation.post_copy),
            LaneKind::Disk | LaneKind::Held => Self::Plain(Flows::default()),
        }
    }

    /// Of memory channel `number`, just made; one of `several` that share the guest's pages, or not.
    pub fn memory(door: &Door, number: u8, several: bool) -> Self {
        let decoder = if number == 0 || several {
            codec::decoder_beside(&door.ticket, number, door.stock.as_ref(), door.sink.of_lane())
        } else {
            codec::decoder(&door.ticket, number)
        };
        Self::Memory(Decoding::new(decoder), Flow::default())
    }

    /// As a predecessor left it.
    pub fn restore(saved: &SavedTraffic, id: LaneId, door: &Door) -> Result<Self, NotResumed> {
        Ok(match (saved, &door.onward) {
            (SavedTraffic::Control(saved), Onward::Live { expectation, .. }) => {
                Self::Control(Box::new(Guarding::restore(saved, (**expectation).clone())))
            }
            (SavedTraffic::Memory(saved, back), _) => {
                let decoding = Decoding::restore(saved, &door.ticket, id.number, door.stock.as_ref());
                let decoding = decoding.map_err(|_| NotResumed::Unreadable("a memory channel"))?;
                Self::Memory(decoding, Flow::of(back.to_vec()))
            }
            (SavedTraffic::Plain(saved), _) => Self::Plain(saved.restore()),
            (SavedTraffic::Control(_), Onward::Cold(_) | Onward::Rest { .. }) => {
                return Err(NotResumed::Unreadable("libvirt's calls"));
            }
        })
    }

    /// Relays to the end. May be given up at any await, and gone on with.
    pub async fn run(
        &mut self,
        connection: &mut Connection,
        door: &Door,
    ) -> Result<(), control::ControlError> {
        let counter = AtomicU64::new(0);
        match self {
            Self::Control(guarding) => guarding.run(connection.ends(), door).await,
            Self::Plain(flows) => {
                let (mut back, mut out) = connection.ways();
                Ok(relay::both(&mut out, &mut back, flows, &counter).await?)
            }
            Self::Memory(decoding, flow) => {
                let (mut back, mut out) = connection.ways();
                let replies = relay::copy(&mut back, flow, &counter);
                Ok(tokio::try_join!(decoding.run(&mut out), replies).map(drop)?)
            }
        }
    }

    /// As it stands, for a successor.
    pub fn save(self, connection: &mut Connection) -> io::Result<SavedTraffic> {
        Ok(match self {
            Self::Control(guarding) => SavedTraffic::Control(guarding.save()),
            Self::Memory(decoding, flow) => {
                SavedTraffic::Memory(decoding.save(&mut connection.ways().1.from)?, rest(&flow))
            }
            Self::Plain(flows) => SavedTraffic::Plain(SavedFlows::of(&flows)),
        })
    }
}
