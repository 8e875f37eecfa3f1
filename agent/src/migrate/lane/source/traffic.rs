//! What is under way on one connection of a departure, and how it is left to a successor.

use super::Service;
use crate::migrate::lane::{
    codec::{Encoding, SavedEncoding},
    connection::{Connection, SavedFlows, rest},
    control::{Overhearing, SavedOverhearing},
    relay::{self, Flow, Flows},
};
use bytes::Bytes;
use novacron_codec::Stats;
use novacron_common::wire::{LaneId, LaneKind};
use serde::{Deserialize, Serialize};
use std::io;

/// What is under way on one connection.
pub(super) enum Traffic {
    Control(Overhearing),
    Memory(Box<Encoding>, Flow),
    Plain(Flows),
}

/// A [`Traffic`] as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedTraffic {
    /// libvirt's calls.
    Control(SavedOverhearing),
    /// A memory channel, and what comes back on it.
    Memory(SavedEncoding, Bytes),
    /// A disk.
    Plain(SavedFlows),
}

impl Traffic {
    /// Of a connection that has just been made.
    pub fn new(id: LaneId, service: &Service) -> Self {
        match id.kind {
            LaneKind::Control => Self::Control(Overhearing::default()),
            LaneKind::Memory => {
                let codec = (service.framer(id.number), service.packers.clone());
                let encoding = Encoding::new(codec, id.number, service.counters.clone());
                Self::Memory(Box::new(encoding), Flow::default())
            }
            LaneKind::Disk | LaneKind::Held => Self::Plain(Flows::default()),
        }
    }

    /// Relays to the end. May be given up at any await, and gone on with.
    pub async fn run(
        &mut self,
        connection: &mut Connection,
        id: LaneId,
        service: &Service,
    ) -> io::Result<()> {
        let (counters, counter) = (&service.counters, service.counters.of(id.kind));
        match self {
            Self::Control(hearing) => {
                hearing.run(connection.ends(), counter, &service.finished, service).await
            }
            Self::Plain(flows) => {
                let (mut out, mut back) = connection.ways();
                relay::both(&mut out, &mut back, flows, counter).await
            }
            Self::Memory(encoding, flow) => {
                let (mut out, mut back) = connection.ways();
                let replies = relay::copy(&mut back, flow, counters.of(id.kind));
                let (stats, ()) = tokio::try_join!(encoding.run(&mut out), replies)?;
                let Stats { plain, wire, .. } = stats;
                tracing::info!(number = id.number, plain, wire, ?stats, "a memory lane is over");
                Ok(())
            }
        }
    }

    /// As it stands, for a successor.
    pub async fn save(self) -> io::Result<SavedTraffic> {
        Ok(match self {
            Self::Control(hearing) => SavedTraffic::Control(hearing.save()),
            Self::Plain(flows) => SavedTraffic::Plain(SavedFlows::of(&flows)),
            Self::Memory(encoding, flow) => SavedTraffic::Memory(encoding.save().await?, rest(&flow)),
        })
    }

    /// As a predecessor left it; `None` if that was something else.
    pub fn restore(saved: &SavedTraffic, id: LaneId, service: &Service) -> Option<Self> {
        Some(match saved {
            SavedTraffic::Control(saved) => Self::Control(Overhearing::restore(saved)),
            SavedTraffic::Plain(saved) => Self::Plain(saved.restore()),
            SavedTraffic::Memory(saved, back) => {
                let (ticket, packers) = (service.links.ticket(), service.packers.clone());
                let encoding =
                    Encoding::restore(saved, ticket, packers, id.number, service.counters.clone())?;
                Self::Memory(Box::new(encoding), Flow::of(back.to_vec()))
            }
        })
    }
}
