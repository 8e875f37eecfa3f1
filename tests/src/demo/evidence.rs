//! What was seen from outside during the demo: the raw material of every figure in the report.

use std::ops::Range;
use std::time::Duration;

use novacron_common::api::FireView;

use crate::cluster::EchoReport;
use crate::lab::Counts;
use crate::serial::Chunk;

/// One move of the guest.
#[derive(Debug, Clone)]
pub struct Move {
    /// Host that it left.
    pub from: String,
    /// Host that it went to.
    pub to: String,
    /// From the request to its end, on the recorder's clock.
    pub span: Range<Duration>,
    /// Bytes that the agents sent, by their own count.
    pub bytes: u64,
    /// From the request to its end, by the coordinator's ledger.
    pub seconds: f64,
}

/// A span of wall-clock time, in milliseconds of the Unix epoch: after `from`, up to and with `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The job existed at this time.
    pub from: i64,
    /// The job was still enabled at this time.
    pub to: i64,
}

/// Everything that the verdict is drawn from.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The hosts' names, in the order of the chunks' sources.
    pub hosts: Vec<String>,
    /// The guest's serial console on every host, stamped on arrival.
    pub chunks: Vec<Chunk>,
    /// Passes over its whole memory that the guest made after the last move.
    pub passes_after: u64,
    /// The moves, in order.
    pub moves: Vec<Move>,
    /// The TCP connection that was in use all the time.
    pub connection: EchoReport,
    /// Hash of the guest's disk as the guest read it back last.
    pub disk_by_guest: u64,
    /// The same from the image on the host that the guest ended on.
    pub disk_by_host: u64,
    /// While the job was to fire.
    pub window: Window,
    /// The job's fires, as the API lists them.
    pub fires: Vec<FireView>,
    /// What crossed the wire between the hosts while the guest moved.
    pub wire: Counts,
}
