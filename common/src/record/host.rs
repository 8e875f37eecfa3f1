//! A hypervisor host as its agent describes it.

use super::VmObservation;
use crate::{
    ids::HostId,
    spec::Name,
    units::{ByteCount, Incarnation},
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How KVM machines are accelerated on a host; found by running something, not by opening `/dev/kvm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// What a host can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCapacity {
    /// Logical processors.
    pub cpus: u32,
    /// RAM for machines (the host's, less a reserve).
    pub memory: ByteCount,
    /// Disk for machines, free and used by machines together.
    pub storage: ByteCount,
}

/// Where a host is reached. The agent serves everything on one UDP port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostAddresses {
    /// QUIC.
    pub quic: SocketAddr,
}

/// How an agent introduces itself on its control session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostHello {
    /// Must be the id in the agent's certificate.
    pub host: HostId,
    /// The host's name.
    pub name: Name,
    /// This life of the agent.
    pub incarnation: Incarnation,
    /// The agent's program version.
    pub version: String,
    /// Where other agents reach it.
    pub addresses: HostAddresses,
    /// What it can hold.
    pub capacity: HostCapacity,
    /// How its KVM machines run.
    pub accel: Accel,
    /// Whether it can run KVM machines at all (libvirt answers).
    pub can_kvm: bool,
    /// Whether it can run namespace machines.
    pub can_namespace: bool,
    /// `machine` strings and the like for pre-flight checks; empty in version 1.
    pub features: Vec<String>,
}

/// What an agent reports periodically and after changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// This life of the agent.
    pub incarnation: Incarnation,
    /// Counts up within an incarnation; older reports are dropped.
    pub sequence: u64,
    /// What it can hold now.
    pub capacity: HostCapacity,
    /// One-minute load average in thousandths.
    pub load_millis: u32,
    /// RAM that is available (`MemAvailable`).
    pub memory_available: ByteCount,
    /// Every machine that the host holds for the cluster.
    pub vms: Vec<VmObservation>,
    /// Domains that are none of ours: reported, and left alone.
    pub foreign_domains: Vec<String>,
}
