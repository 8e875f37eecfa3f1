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
        checkpoint::Sink,
        filter::{Expectation, element::Element},
        link::{
            keeper::{Keeper, LinkCondition},
            pace::{Budget, Pacer},
        },
        ports::{Failure, Route},
        road::{Berth, ColdRoad, Destination, Directory, LiveRoad, Quay, Road, Roads},
    },
};
use async_trait::async_trait;
use novacron_common::{
    ids::MigrationId,
    record::{Ticket, TransferCounts},
    wire::LaneKind,
};
use novacron_transport::Endpoint;
use std::{
    num::NonZeroU32,
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
    /// Where the agents of other hosts serve QUIC.
    pub directory: Directory,
}

impl QuicRoads {
    async fn dial(&self, ticket: &Ticket, to: Destination) -> Result<Keeper, Failure> {
        let pacer = self.pacer.within(to.bandwidth_mbit.map(Budget::of_mbit));
        let (endpoint, ticket) = (self.endpoint.clone(), ticket.clone());
        Ok(Keeper::dial(endpoint, to.target, ticket, self.link_grace, pacer).await?)
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
        let keeper = self.dial(ticket, to).await?;
        let sockets = self.sockets.make(ticket.migration)?;
        Ok(Box::new(SourceLanes::serve(sockets, keeper, sink)?))
    }

    async fn lead_cold(&self, ticket: &Ticket, to: Destination) -> Result<Box<dyn ColdRoad>, Failure> {
        Ok(Box::new(DiskLane { keeper: self.dial(ticket, to).await?, counters: Counters::default() }))
    }

    async fn lead_again(&self, ticket: &Ticket) -> Result<Box<dyn LiveRoad>, Failure> {
        let target = (self.directory)(ticket.target).ok_or("the target's address is not known")?;
        let keeper = self.dial(ticket, Destination { target, bandwidth_mbit: None }).await?;
        let sockets = self.sockets.make(ticket.migration)?;
        Ok(Box::new(SourceLanes::serve_rest(sockets, keeper)?))
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
        let pacer = self.pacer.within(bandwidth_mbit.map(Budget::of_mbit));
        let (endpoint, sockets) = (self.endpoint.clone(), self.sockets.adopt(ticket.migration));
        let keeper = Keeper::restore(saved.keeper(), endpoint, ticket.clone(), self.link_grace, pacer);
        Ok(Box::new(SourceLanes::restore(sockets, keeper, saved, descriptors)?))
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
        let halves = self.keeper.open(LaneKind::Disk).await?;
        let cargo = cold::Cargo { disk, ran, counter: self.counters.of(LaneKind::Disk) };
        Ok(cold::send(halves, cargo).await?)
    }
}
