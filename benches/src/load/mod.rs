//! The load client: a process of its own that keeps a number of clients writing, over TLS with a token or without both,
//! and reports what they saw. The same code drives NovaCron and etcd, each over its native protocol at its public endpoint:
//! JSON over HTTP/2 here, gRPC (unary calls, which are HTTP/2 requests with a framed protobuf body) there.

mod crowd;
mod process;
mod write;

pub use crowd::{main, unix_us};
pub use process::{order_in, run, start, wait};

use serde::{Deserialize, Serialize};

/// Connections are shared by clients beyond this number, as in etcd's own benchmark (`--conns=100 --clients=1000`).
const CONNECTIONS_MAX: usize = 100;

/// Whom the client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// `POST /api/v1/jobs`: a job that never fires, with the value in its environment.
    NovaCron,
    /// `etcdserverpb.KV/Put`.
    Etcd,
}

/// How long it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Length {
    /// Milliseconds, after a warm-up that does not count.
    Millis(u64),
    /// Writes in all, from the first on.
    Writes(u64),
}

/// What a client process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// To whom.
    pub target: Target,
    /// `https://address:port` or `http://…`, used in turn.
    pub servers: Vec<String>,
    /// The CA certificate (DER, in hex) that is trusted; none for plain HTTP.
    pub ca: Option<String>,
    /// Bearer token; empty for none.
    pub token: String,
    /// Writes under way at once.
    pub clients: usize,
    /// How long.
    pub length: Length,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Keys begin with this, so that runs do not meet.
    pub run: String,
    /// The schedule of the jobs that are made; six fields.
    pub schedule: String,
    /// Whether those jobs fire. If so they carry no value.
    pub enabled: bool,
    /// Whether each acknowledged write is printed: `ack ASKED ANSWERED`, Unix microseconds.
    pub trace: bool,
}

/// What it saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes that were not.
    pub failed: u64,
    /// What the first of those said.
    pub first_fault: Option<String>,
    /// Over how long, seconds.
    pub seconds: f64,
    /// Median latency, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile of the latency, milliseconds.
    pub p99_ms: f64,
}

impl Report {
    /// Acknowledged writes per second.
    #[allow(clippy::cast_precision_loss)]
    pub fn per_second(&self) -> f64 {
        self.writes as f64 / self.seconds
    }
}
