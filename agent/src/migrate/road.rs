//! The way between two hosts' agents, as a migration uses it: bytes cross, and here stands only what a migration must know
//! of that. The real one is `lane::road`, QUIC between UNIX sockets; a simulation brings its own.

use super::{
    checkpoint::{Sink, Stock},
    lane::{
        cold,
        saved::Descriptors,
        source::{AtItsEnd, SavedSource},
        target::{LaneEvent, SavedDoor},
    },
    link::keeper::LinkCondition,
    ports::{Failure, Route},
};
use async_trait::async_trait;
use novacron_common::{
    ids::HostId,
    record::{Ticket, TransferCounts},
    units::UnixMillis,
    wire::LaneOpen,
};
use novacron_transport::Stream;
use std::{
    any::Any,
    net::SocketAddr,
    num::{NonZeroU8, NonZeroU32},
    path::Path,
    sync::Arc,
};
use tokio::sync::mpsc;

/// Where a machine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    /// Where the target's agent serves QUIC.
    pub target: SocketAddr,
    /// What the move may take of the link, Mbit (10⁶ bits) a second, beside what all moves may together.
    pub bandwidth_mbit: Option<NonZeroU32>,
    /// Whether its memory may cross on several channels: not that of a machine that allows post-copy, which libvirt refuses.
    pub several: bool,
}

/// Where the agents of other hosts serve QUIC; `None` for one that is no member of the cluster.
pub type Directory = Arc<dyn Fn(HostId) -> Option<SocketAddr> + Send + Sync>;

/// Leads machines away from this host, and lets them in.
#[async_trait]
pub trait Roads: Send + Sync {
    /// Connects to the target, and gets ready for a running machine. What passes of its memory is shown to `sink`.
    async fn lead_live(
        &self,
        ticket: &Ticket,
        to: Destination,
        sink: Option<Sink>,
    ) -> Result<Box<dyn LiveRoad>, Failure>;
    /// Connects to the target, for a stopped machine.
    async fn lead_cold(&self, ticket: &Ticket, to: Destination) -> Result<Box<dyn ColdRoad>, Failure>;
    /// Connects to the target once more, for the rest of a guest that went over (post-copy) and was cut off: memory alone.
    async fn lead_again(&self, ticket: &Ticket) -> Result<Box<dyn LiveRoad>, Failure>;
    /// Gets ready for that rest; also says where the hypervisor of this host is to listen for it.
    fn receive_again(&self, ticket: &Ticket) -> Result<(Quay, String), Failure>;
    /// Gets ready for what comes with `ticket`.
    fn receive(&self, ticket: &Ticket, berth: Berth) -> Result<Quay, Failure>;
    /// Goes on where a predecessor of this agent led a running machine. Needed where [`LiveRoad::leave`] leaves something.
    fn lead_on(
        &self,
        ticket: &Ticket,
        _bandwidth_mbit: Option<NonZeroU32>,
        _left: (&SavedSource, &mut Descriptors),
    ) -> Result<Box<dyn LiveRoad>, Failure> {
        Err(format!("nothing is left of {} that could be gone on with", ticket.migration).into())
    }
    /// As [`Roads::receive`], where a predecessor of this agent received. Needed where [`Entrance::leave`] leaves something.
    fn receive_on(
        &self,
        ticket: &Ticket,
        _berth: Berth,
        _left: (&SavedDoor, &mut Descriptors),
    ) -> Result<Quay, Failure> {
        Err(format!("nothing is left of {} that could be gone on with", ticket.migration).into())
    }
}

/// How the link of a road fares.
#[async_trait]
pub trait Road: Send + Sync {
    /// Just now.
    fn condition(&self) -> LinkCondition;
    /// Waits until [`Road::condition`] is not `before` any more.
    async fn changed(&self, before: LinkCondition);
    /// What has crossed.
    fn counts(&self) -> TransferCounts;
    /// Ends every connection.
    fn close(&self);
}

/// The way of a running machine. Closed when it is dropped.
#[async_trait]
pub trait LiveRoad: Road {
    /// Waits until all that the target offers is known, for a moment.
    async fn offer_heard(&self);
    /// Where the hypervisor finds the way.
    fn route(&self, disk: Option<&'static str>) -> Route;
    /// On how many channels the hypervisor is to send memory beside the main one.
    fn channels(&self) -> Option<NonZeroU8> {
        None
    }
    /// Waits until the target's hypervisor has said that the copy is complete; for ever if it does not.
    async fn finished(&self);
    /// Waits until somebody has to know whether the guest went over (post-copy).
    async fn at_its_end(&self) -> AtItsEnd;
    /// Waits until the way is over for good; says why, as a sentence.
    async fn over(&self) -> String;
    /// What broke first, if anything did: a better reason than the hypervisor's.
    fn trouble(&self) -> Option<String>;
    /// Leaves it to a successor, as it stands; `None` if it cannot be gone on with.
    async fn leave(self: Box<Self>, _descriptors: &mut Descriptors) -> Option<SavedSource> {
        None
    }
}

/// The way of a stopped machine. Closed when it is dropped.
#[async_trait]
pub trait ColdRoad: Road {
    /// Sends the machine's disk, if it has one, and whether the machine `ran`; returns once the target has it on stable
    /// storage.
    async fn send(&self, disk: Option<&Path>, ran: bool) -> Result<(), Failure>;
}

/// What is to be received.
pub enum Berth {
    /// A running machine.
    Live {
        /// The domain document that the source is held to.
        document: String,
        /// What is held here of the machine.
        stock: Option<Arc<Stock>>,
        /// Who keeps what crosses, for its gang.
        sink: Option<Sink>,
        /// Whether the machine allows post-copy.
        post_copy: bool,
    },
    /// A stopped one.
    Cold(cold::Landing),
}

/// Where a machine arrives.
pub struct Quay {
    /// The sockets that the hypervisor of this host listens on, and the like: kept as long as this.
    pub kept: Option<Box<dyn Any + Send + Sync>>,
    /// Lets lanes in.
    pub entrance: SharedEntrance,
    /// What they tell.
    pub events: mpsc::Receiver<LaneEvent>,
}

/// Lets the lanes of one migration in.
#[async_trait]
pub trait Entrance: Send + Sync {
    /// Judges a lane's opening, and serves the lane until it is over.
    async fn let_in(self: Arc<Self>, open: &LaneOpen, peer: HostId, now: UnixMillis, stream: Stream);
    /// Cuts every lane, and lets no more in.
    fn shut(&self);
    /// Leaves all lanes to a successor, as they stand; `None` if they cannot be gone on with.
    async fn leave(&self, _descriptors: &mut Descriptors) -> Option<SavedDoor> {
        None
    }
}

/// For whom entrances are kept.
pub type SharedEntrance = Arc<dyn Entrance>;
