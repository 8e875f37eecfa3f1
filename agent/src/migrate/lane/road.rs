//! The real roads: lanes over QUIC, between the UNIX sockets of both hosts' hypervisors.

use super::{
    Counters, cold,
    saved::Descriptors,
    sockets::{SocketError, SocketRoom, Sockets},
    source::{AtItsEnd, SavedSource, SourceLanes},
    target::{Door, LaneEvent, Onward, SavedDoor},
};
use crate::{
    hypervisor::libvirt::xml::DISK_TARGET,
    migrate::{
        channels::Channels,
        checkpoint::{SharedSink, Sink},
        filter::{Expectation, element::Element},
        link::{
            keeper::{Keeper, LaneError, LinkCondition},
            links::Links,
            pace::{Budget, Pacer},
        },
        ports::{Failure, Route},
        road::{Berth, ColdRoad, Destination, Directory, LiveRoad, Quay, Road, Roads},
    },
};
use async_trait::async_trait;
use futures_util::future::join_all;
use novacron_common::{
    ids::MigrationId,
    record::{Ticket, TransferCounts},
    wire::{LaneId, LaneKind},
};
use novacron_transport::Endpoint;
use std::{
    net::SocketAddr,
    num::{NonZeroU8, NonZeroU32},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// Lane events that may wait.
const EVENTS: usize = 16;

/// What roads are made with.
pub struct QuicRoads {
    /// For the links to other agents.
    pub endpoint: Endpoint,
    /// Where sockets go.
    pub sockets: SocketRoom,
    /// The socket of this host's libvirtd.
    pub libvirt_socket: PathBuf,
    /// How long a link that was lost is waited for, before the migration ends fully back.
    pub link_grace: Duration,
    /// What all migrations away from this host send by, together.
    pub pacer: Pacer,
    /// Over how many channels memory crosses.
    pub channels: Channels,
    /// Where the agents of other hosts serve QUIC.
    pub directory: Directory,
}

impl QuicRoads {
    fn pacer(&self, bandwidth_mbit: Option<NonZeroU32>) -> Pacer {
        self.pacer.within(bandwidth_mbit.map(Budget::of_mbit))
    }

    async fn dial(&self, ticket: &Ticket, target: SocketAddr, pacer: &Pacer) -> Result<Keeper, LaneError> {
        let (endpoint, ticket, pacer) = (self.endpoint.clone(), ticket.clone(), pacer.clone());
        Keeper::dial(endpoint, target, ticket, self.link_grace, pacer).await
    }

    /// One link for all, and one for each channel beside the main one. Of the latter, those that answer: fewer carry the same.
    async fn links(&self, ticket: &Ticket, to: Destination) -> Result<(Links, Option<NonZeroU8>), LaneError> {
        let (target, pacer) = (to.target, self.pacer(to.bandwidth_mbit));
        let channels = async { if to.several { self.channels.towards(target).await } else { None } };
        let (first, channels) = tokio::join!(self.dial(ticket, target, &pacer), channels);
        let first = first?;
        let further = (0..channels.map_or(0, NonZeroU8::get)).map(|_| self.dial(ticket, target, &pacer));
        let further: Vec<_> = join_all(further).await.into_iter().filter_map(Result::ok).collect();
        if let Some(channels) = channels {
            tracing::info!(migration = %ticket.migration, channels, links = further.len() + 1, "memory crosses on several channels");
        }
        Ok((Links::new(first, further), channels))
    }
}

#[async_trait]
impl Roads for QuicRoads {
    async fn lead_live(
        &self,
        ticket: &Ticket,
        to: Destination,
        sink: Option<Sink>,
    ) -> Result<Box<dyn LiveRoad>, Failure> {
        let (links, channels) = self.links(ticket, to).await?;
        let sockets = self.sockets.make(ticket.migration)?;
        Ok(Box::new(SourceLanes::serve(sockets, links, channels, SharedSink::new(sink))?))
    }

    async fn lead_cold(&self, ticket: &Ticket, to: Destination) -> Result<Box<dyn ColdRoad>, Failure> {
        let keeper = self.dial(ticket, to.target, &self.pacer(to.bandwidth_mbit)).await?;
        Ok(Box::new(DiskLane { keeper, counters: Counters::default() }))
    }

    async fn lead_again(&self, ticket: &Ticket) -> Result<Box<dyn LiveRoad>, Failure> {
        let target = (self.directory)(ticket.target).ok_or("the target's address is not known")?;
        let links = Links::new(self.dial(ticket, target, &self.pacer(None)).await?, Vec::new());
        let sockets = self.sockets.make(ticket.migration)?;
        Ok(Box::new(SourceLanes::serve_rest(sockets, links)?))
    }

    fn receive_again(&self, ticket: &Ticket) -> Result<(Quay, String), Failure> {
        let (events_in, events) = mpsc::channel(EVENTS);
        let sockets = self.sockets.make(ticket.migration)?;
        let migrate_uri = sockets.route(None).migrate_uri;
        let onward = Onward::Rest { memory: sockets.path(LaneKind::Memory) };
        let door = Door::new(ticket.clone(), onward, self.link_grace, events_in);
        Ok((Quay { kept: Some(Box::new(sockets)), entrance: Arc::new(door), events }, migrate_uri))
    }

    fn receive(&self, ticket: &Ticket, berth: Berth) -> Result<Quay, Failure> {
        let (door, sockets, events) = self.door(ticket, berth, SocketRoom::make)?;
        let kept = sockets.map(|sockets| Box::new(sockets) as _);
        Ok(Quay { kept, entrance: Arc::new(door), events })
    }

    fn lead_on(
        &self,
        ticket: &Ticket,
        bandwidth_mbit: Option<NonZeroU32>,
        (saved, descriptors): (&SavedSource, &mut Descriptors),
    ) -> Result<Box<dyn LiveRoad>, Failure> {
        let (pacer, sockets) = (self.pacer(bandwidth_mbit), self.sockets.adopt(ticket.migration));
        let links = Links::restore(saved.links(), |link| {
            Keeper::restore(link, self.endpoint.clone(), ticket.clone(), self.link_grace, pacer.clone())
        });
        Ok(Box::new(SourceLanes::restore(sockets, links, saved, descriptors)?))
    }

    fn receive_on(
        &self,
        ticket: &Ticket,
        berth: Berth,
        (saved, descriptors): (&SavedDoor, &mut Descriptors),
    ) -> Result<Quay, Failure> {
        let adopt = |room: &SocketRoom, migration| Ok(room.adopt(migration));
        let (door, sockets, events) = self.door(ticket, berth, adopt)?;
        let entrance = Arc::new(door);
        let kept = sockets.map(|sockets| Box::new(sockets) as _);
        entrance.restore(saved, descriptors)?;
        Ok(Quay { kept, entrance, events })
    }
}

impl QuicRoads {
    fn door(
        &self,
        ticket: &Ticket,
        berth: Berth,
        sockets: impl Fn(&SocketRoom, MigrationId) -> Result<Sockets, SocketError>,
    ) -> Result<(Door, Option<Sockets>, mpsc::Receiver<LaneEvent>), Failure> {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (onward, held, sockets) = match berth {
            Berth::Cold(landing) => (Onward::Cold(landing), (None, None), None),
            Berth::Live { document, stock, sink, post_copy } => {
                let sockets = sockets(&self.sockets, ticket.migration)?;
                let route = sockets.route(Some(DISK_TARGET));
                let expectation = Expectation {
                    domain: Element::parse(&document)?,
                    migrate_uri: route.migrate_uri,
                    disks_uri: route.disks_uri,
                    disk: DISK_TARGET.to_owned(),
                    post_copy,
                };
                let onward = Onward::Live {
                    libvirt: self.libvirt_socket.clone(),
                    memory: sockets.path(LaneKind::Memory),
                    disk: sockets.path(LaneKind::Disk),
                    expectation: Box::new(expectation),
                };
                (onward, (stock, sink), Some(sockets))
            }
        };
        let door = Door::new(ticket.clone(), onward, self.link_grace, events_in).holding(held);
        Ok((door, sockets, events))
    }
}

#[async_trait]
impl Road for SourceLanes {
    fn condition(&self) -> LinkCondition {
        Self::condition(self)
    }

    async fn changed(&self, before: LinkCondition) {
        Self::changed(self, before).await;
    }

    fn counts(&self) -> TransferCounts {
        self.counters().read()
    }

    fn close(&self) {
        Self::close(self);
    }
}

#[async_trait]
impl LiveRoad for SourceLanes {
    async fn offer_heard(&self) {
        Self::offer_heard(self).await;
    }

    fn route(&self, disk: Option<&'static str>) -> Route {
        self.sockets().route(disk)
    }

    fn channels(&self) -> Option<NonZeroU8> {
        Self::channels(self)
    }

    async fn finished(&self) {
        Self::finished(self).await;
    }

    async fn at_its_end(&self) -> AtItsEnd {
        Self::at_its_end(self).await
    }

    async fn over(&self) -> String {
        Self::over(self).await
    }

    fn trouble(&self) -> Option<String> {
        Self::trouble(self)
    }

    async fn leave(self: Box<Self>, descriptors: &mut Descriptors) -> Option<SavedSource> {
        Self::leave(*self, descriptors).await
    }
}

/// The one lane of a stopped machine.
struct DiskLane {
    keeper: Keeper,
    counters: Counters,
}

#[async_trait]
impl Road for DiskLane {
    fn condition(&self) -> LinkCondition {
        self.keeper.condition()
    }

    async fn changed(&self, before: LinkCondition) {
        self.keeper.changed(before).await;
    }

    fn counts(&self) -> TransferCounts {
        self.counters.read()
    }

    fn close(&self) {
        self.keeper.close();
    }
}

#[async_trait]
impl ColdRoad for DiskLane {
    async fn send(&self, disk: Option<&Path>, ran: bool) -> Result<(), Failure> {
        let halves = self.keeper.open(LaneId { kind: LaneKind::Disk, number: 0 }).await?;
        let cargo = cold::Cargo { disk, ran, counter: self.counters.of(LaneKind::Disk) };
        Ok(cold::send(halves, cargo).await?)
    }
}
