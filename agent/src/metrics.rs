//! The agent's figures for Prometheus (text format 0.0.4), on a loopback address only.

use crate::vm::Machines;
use novacron_common::record::VmState;
use prometheus::{Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How long a scrape may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest request that is read.
const REQUEST_MAX: usize = 8 * 1024;

struct Figures {
    registry: Registry,
    vms: IntGaugeVec,
    memory: IntGauge,
}

impl Figures {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let vms =
            IntGaugeVec::new(Opts::new("novacron_agent_vms", "Machines of this host by state"), &["state"])?;
        let memory =
            IntGauge::new("novacron_agent_vm_memory_bytes", "Resident memory of this host's machines")?;
        registry.register(Box::new(vms.clone()))?;
        registry.register(Box::new(memory.clone()))?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        Ok(Self { registry, vms, memory })
    }

    fn text(&self, machines: &Machines) -> Result<Vec<u8>, prometheus::Error> {
        self.vms.reset();
        let seen = machines.board().all();
        for vm in &seen {
            self.vms.with_label_values(&[name(vm.state)]).inc();
        }
        let memory: u64 = seen.iter().map(|vm| vm.memory.0).sum();
        self.memory.set(i64::try_from(memory).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

fn name(state: VmState) -> &'static str {
    match state {
        VmState::Pending => "pending",
        VmState::Preparing => "preparing",
        VmState::Running => "running",
        VmState::Paused => "paused",
        VmState::Stopping => "stopping",
        VmState::Stopped => "stopped",
        VmState::Failed => "failed",
        VmState::Missing => "missing",
        VmState::Unknown => "unknown",
    }
}

/// Serves `GET /metrics` (and whatever else is asked, with the same answer) for ever.
pub async fn serve(address: SocketAddr, machines: Machines) {
    let (listener, figures) = match (TcpListener::bind(address).await, Figures::new()) {
        (Ok(listener), Ok(figures)) => (listener, figures),
        (Err(error), _) => return tracing::error!(%address, %error, "metrics are not served"),
        (_, Err(error)) => return tracing::error!(%error, "metrics are not served"),
    };
    while let Ok((stream, _)) = listener.accept().await {
        let answered = match figures.text(&machines) {
            Ok(text) => tokio::time::timeout(DEADLINE, answer(stream, text)).await,
            Err(error) => return tracing::error!(%error, "metrics cannot be written"),
        };
        if let Ok(Err(error)) = answered {
            tracing::debug!(%error, "a scrape broke");
        }
    }
}

async fn answer(mut stream: TcpStream, text: Vec<u8>) -> std::io::Result<()> {
    let mut request = vec![0; REQUEST_MAX];
    let _ = stream.read(&mut request).await?;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&text).await?;
    stream.shutdown().await
}
