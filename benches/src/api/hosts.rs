//! Hosts that exist for the ledger's sake: they join with real tokens, introduce themselves as roomy, accept every
//! machine, and report it as stopped, as real agents would.

use crate::client::Client;
use anyhow::{Context, Result};
use novacron_common::{
    ids::{HostId, VmId},
    record::{
        Accel, HostAddresses, HostCapacity, HostHello, HostStatus, VmAssignment, VmObservation, VmState,
    },
    units::{ByteCount, Incarnation, UnixMillis},
    wire::{
        AgentCommand, AgentReply, Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, SessionOpened,
        StreamKind,
    },
};
use novacron_transport::{Endpoint, Identity, IdentityCell, Link, RoleKind, certificate_request};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinSet;

/// How often they report.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// What a host holds.
type Held = Arc<Mutex<BTreeMap<VmId, VmObservation>>>;

/// Lets `count` hosts join; they live as long as the answer.
pub async fn join(client: &Client, count: usize) -> Result<JoinSet<()>> {
    let mut sessions = JoinSet::new();
    for n in 0..count {
        let created = client.post("/api/v1/hosts/join-tokens", &json!({})).await?;
        let token: JoinToken = created["token"].as_str().context("no token in the answer")?.parse()?;
        let coordinator = *token.coordinators.first().context("the token names no coordinator")?;
        let (identity, host) = enroll(&token, coordinator, n).await?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let endpoint = Endpoint::bind(loopback, Arc::new(IdentityCell::new(identity)))?;
        let link = endpoint.connect_any(coordinator, RoleKind::Coordinator).await?;
        let mut stream = link.open(StreamKind::Session).await?;
        stream.send(&hello(host, n, endpoint.local_addr()?)).await?;
        stream.recv::<SessionOpened>().await?;
        let held = Held::default();
        sessions.spawn(obey(link, held.clone()));
        sessions.spawn(async move {
            let _endpoint = endpoint;
            for sequence in 1.. {
                if stream.send(&status(sequence, &held)).await.is_err() {
                    return;
                }
                tokio::time::sleep(STATUS_EVERY).await;
            }
        });
    }
    Ok(sessions)
}

async fn enroll(token: &JoinToken, coordinator: SocketAddr, n: usize) -> Result<(Identity, HostId)> {
    let (key, csr) = certificate_request()?;
    let link = Endpoint::enroll(coordinator, token.ca).await?;
    let mut stream = link.open(StreamKind::Join).await?;
    let purpose = JoinPurpose::Agent { name: format!("roomy-{n}").parse()?, rejoin: None };
    stream.send(&JoinRequest { token: token.id, secret: token.secret, purpose, csr }).await?;
    stream.finish();
    let enrolled = stream.recv::<Result<Enrolled, JoinDenied>>().await??;
    let identity = Identity::new(enrolled.cluster, &enrolled.ca, &enrolled.certificate, &key)?;
    Ok((identity, enrolled.host.context("no host id in the answer")?))
}

async fn obey(link: Link, held: Held) {
    while let Ok((_, mut stream)) = link.accept().await {
        let held = held.clone();
        tokio::spawn(async move {
            if let Ok(command) = stream.recv::<AgentCommand>().await {
                if let AgentCommand::AssignVm(assignment) = command {
                    let seen = stopped(&assignment);
                    held.lock().unwrap_or_else(PoisonError::into_inner).insert(assignment.vm, seen);
                }
                let _ = stream.send(&AgentReply::Accepted).await;
                stream.finish();
            }
        });
    }
}

fn stopped(assignment: &VmAssignment) -> VmObservation {
    VmObservation {
        vm: assignment.vm,
        epoch: assignment.epoch,
        generation: assignment.generation,
        state: VmState::Stopped,
        health: None,
        message: None,
        progress: None,
        addresses: Vec::new(),
        restarted: 0,
        ran: false,
        cpu_ms: 0,
        memory: ByteCount(0),
        since: UnixMillis(1),
    }
}

fn capacity() -> HostCapacity {
    HostCapacity { cpus: 4096, memory: ByteCount::gib(4096), storage: ByteCount::gib(4096) }
}

fn hello(host: HostId, n: usize, quic: SocketAddr) -> HostHello {
    HostHello {
        host,
        name: format!("roomy-{n}").parse().unwrap_or_else(|_| unreachable!("the name is well formed")),
        incarnation: Incarnation(1),
        version: "bench".into(),
        addresses: HostAddresses { quic },
        capacity: capacity(),
        accel: Accel::Tcg,
        can_kvm: true,
        can_namespace: true,
        features: Vec::new(),
    }
}

fn status(sequence: u64, held: &Held) -> HostStatus {
    HostStatus {
        incarnation: Incarnation(1),
        sequence,
        capacity: capacity(),
        load_millis: 0,
        memory_available: ByteCount::gib(4096),
        vms: held.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect(),
        foreign_domains: Vec::new(),
    }
}
