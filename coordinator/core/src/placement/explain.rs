//! The words of a placement: terms of the score, and each rejected host with what it lacks.

use crate::applied::Refusal;
use novacron_common::{
    api::ProblemCode,
    ids::HostId,
    spec::{Fault, Name, PublishedPort},
    units::ByteCount,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One thing that keeps a machine off a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shortfall {
    /// Its agent is not heard from.
    Down,
    /// New machines are kept off it.
    Cordoned,
    /// Another host was asked for by name.
    NotAsked,
    /// It has the machine already.
    Source,
    /// It cannot run KVM machines.
    NoKvm,
    /// It cannot run namespace machines.
    NoNamespace,
    /// Too little memory; short by this much.
    Memory(ByteCount),
    /// Too little disk; short by this much.
    Storage(ByteCount),
    /// Too few CPUs, over-commitment included; short by this many.
    Cpus(u32),
    /// A port of it that is to lead to the machine leads to another.
    Port(PublishedPort),
    /// The machine has volumes, and was not made for this host, so that they are elsewhere.
    Volumes,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("is down"),
            Self::Cordoned => f.write_str("is cordoned"),
            Self::NotAsked => f.write_str("is not the host that was asked for"),
            Self::Source => f.write_str("has the machine already"),
            Self::NoKvm => f.write_str("cannot run KVM machines"),
            Self::NoNamespace => f.write_str("cannot run namespace machines"),
            Self::Memory(by) => write!(f, "is short of memory by {by}"),
            Self::Storage(by) => write!(f, "is short of disk by {by}"),
            Self::Port(port) => {
                write!(f, "leads its port {}/{} to another machine", port.host, port.protocol)
            }
            Self::Volumes => f.write_str("has not the machine's volumes, which are on one host"),
            Self::Cpus(by) => write!(f, "is short of {by} virtual CPUs"),
        }
    }
}

/// One host that was passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Which.
    pub host: HostId,
    /// Its name at the time.
    pub name: Name,
    /// Everything that it lacks.
    pub lacks: Vec<Shortfall>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        for (i, lack) in self.lacks.iter().enumerate() {
            write!(f, "{}{lack}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Why a machine is where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The host that was chosen.
    pub host: HostId,
    /// Its name at the time.
    pub name: Name,
    /// What decided: the memory that stays free on it with this machine.
    pub free_memory_after: ByteCount,
    /// Machines that it had.
    pub machines: u32,
    /// Hosts that could have taken it, the chosen one included.
    pub candidates: u32,
    /// Hosts that could not (at most [`Placement::REJECTED_MAX`]).
    pub rejected: Vec<Rejected>,
    /// Rejected hosts beyond those.
    pub more_rejected: u32,
}

impl Placement {
    /// Rejected hosts that are kept by name, so that a row stays small in a large cluster.
    pub const REJECTED_MAX: usize = 16;

    /// With no more rejected hosts than are kept.
    #[must_use]
    pub(crate) fn bounded(mut self) -> Self {
        const LACKS_MAX: usize = 9;
        let over = self.rejected.len().saturating_sub(Self::REJECTED_MAX);
        self.rejected.truncate(Self::REJECTED_MAX);
        self.rejected.iter_mut().for_each(|r| r.lacks.truncate(LACKS_MAX));
        self.more_rejected = self.more_rejected.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
        self
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: most free memory of {} candidate(s), {} free with this machine, {} machine(s) before it",
            self.name, self.candidates, self.free_memory_after, self.machines
        )?;
        for rejected in &self.rejected {
            write!(f, "; {rejected}")?;
        }
        match self.more_rejected {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// A place that was free when it was looked at; checked again where it commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The host and why.
    pub placement: Placement,
}

/// No host can take it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("none of {} hosts can take the machine", rejected.len())]
pub struct NoPlacement {
    /// Each host with what it lacks.
    pub rejected: Vec<Rejected>,
}

impl From<NoPlacement> for Refusal {
    fn from(none: NoPlacement) -> Self {
        const SHOWN_MAX: usize = 100;
        let cause = match none.rejected.len() {
            0 => "the cluster has no host yet".to_owned(),
            _ => none.to_string(),
        };
        let line = |r: &Rejected| {
            let lacks: Vec<_> = r.lacks.iter().map(ToString::to_string).collect();
            Fault::new(r.name.to_string(), lacks.join(", "))
        };
        Self::new(ProblemCode::NoPlacement, cause)
            .fix("ask for less, free or add a host, or lift a cordon")
            .details(none.rejected.iter().take(SHOWN_MAX).map(line).collect())
    }
}
