//! What a move is expected to take, and what speaks against it: forecast, measurements and pre-flight faults. Shared by wire,
//! ledger and API.

use super::{Limit, Rung};
use crate::ids::HostId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One figure, with the range in which it will hardly fail to lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interval {
    /// Hardly less.
    pub low: u64,
    /// Most likely.
    pub expected: u64,
    /// Hardly more.
    pub high: u64,
}

impl Interval {
    /// Exactly this.
    pub const fn exactly(figure: u64) -> Self {
        Self { low: figure, expected: figure, high: figure }
    }

    /// Around the second of three figures, wide enough for the others, in whatever order they are.
    pub fn around(one: u64, expected: u64, other: u64) -> Self {
        Self { low: one.min(other).min(expected), expected, high: one.max(other).max(expected) }
    }

    /// Whether `figure` lies in it.
    pub const fn contains(self, figure: u64) -> bool {
        self.low <= figure && figure <= self.high
    }
}

/// What a move is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// From the request to the end, milliseconds.
    pub total_ms: Interval,
    /// How long the guest stands still, milliseconds.
    pub blackout_ms: Interval,
    /// What crosses the wire, bytes.
    pub wire_bytes: Interval,
    /// The means that it will take last.
    pub rung: Rung,
    /// The limit that is expected to end it, fully back; `null`: it arrives.
    pub limit: Option<Limit>,
    /// The limit that ends it if all goes as badly as may be; `null`: it arrives all the same.
    pub at_risk: Option<Limit>,
    /// Whether it may end by post-copy, as expected or at worst: then a link or a host that fails while memory follows the
    /// guest leaves it stranded, or loses it.
    #[serde(default)]
    pub may_split: bool,
    /// What it was made from.
    pub basis: Basis,
}

/// What a forecast was made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Basis {
    /// The guest's memory that is in use, bytes.
    pub memory_bytes: u64,
    /// What its disk holds beyond its template, bytes.
    pub disk_bytes: u64,
    /// Memory that the guest writes to, bytes a second.
    pub dirty_rate: u64,
    /// Memory that it writes to again and again, bytes.
    pub working_set_bytes: u64,
    /// What the wire was taken to carry, bytes a second.
    pub rate: u64,
    /// From host to host and back, microseconds; 0 if not known.
    pub round_trip_us: u64,
    /// Whether the guest's figures were measured, for this move or for an earlier one. Else they are what it may use at most.
    pub guest_measured: bool,
    /// Whether guest and link were measured for it.
    pub measured: bool,
    /// Earlier moves that it has learned from.
    pub moves: u32,
    /// What the model sends of the guest's memory and disk, each pass counted, before the codec, bytes.
    pub model_bytes: u64,
}

/// How fast a guest writes to its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DirtyRate {
    /// Different memory written to in a second, bytes.
    pub bytes_per_second: u64,
    /// What it comes to in the long run, bytes.
    pub working_set_bytes: u64,
}

/// What the host of a machine measured of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMeasure {
    /// Memory in use, bytes.
    pub in_use_bytes: Option<u64>,
    /// What its disk holds beyond its template, bytes.
    pub disk_bytes: u64,
    /// How fast it writes.
    pub dirty: Option<DirtyRate>,
    /// What its next host must be able to do.
    pub traits: Option<GuestTraits>,
    /// What could not be measured, and why, for people.
    pub notes: Vec<String>,
}

/// What a running machine needs of its next host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestTraits {
    /// `kvm` or `qemu`: libvirt's name for how it runs.
    pub virt_type: String,
    /// The processor's family, such as `x86_64`.
    pub arch: String,
    /// The machine type, version and all, such as `pc-q35-10.0`.
    pub machine: String,
    /// libvirt's `<cpu>` element of the running machine.
    pub cpu_xml: String,
}

/// What the source measured of the way to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkMeasure {
    /// Where to.
    pub host: HostId,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// There and back, microseconds.
    pub round_trip_us: Option<u64>,
    /// Why something is missing, for people.
    pub note: Option<String>,
}

/// What a pre-flight fault is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreflightKind {
    /// The placement would not put it there.
    Placement,
    /// The processor's model or flags.
    Cpu,
    /// The machine type.
    MachineType,
    /// KVM or TCG.
    Acceleration,
    /// Room for the disk.
    Disk,
    /// Room for memory.
    Memory,
    /// The template's image.
    Image,
    /// The bridge that its card is attached to.
    Network,
    /// What the target of post-copy must be able to do.
    PostCopy,
    /// The machine, or one of its name, is there already.
    Conflict,
    /// The host could not be asked.
    Unreachable,
}

/// Something that speaks against a host as the target of a move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreflightFault {
    /// What it is about.
    pub kind: PreflightKind,
    /// Whether the move would certainly fail; else it is a warning.
    pub certain: bool,
    /// What is wrong, for people.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

impl PreflightFault {
    /// One with which a move cannot succeed.
    pub fn certain(kind: PreflightKind, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, certain: true, text: text.into(), remedy: remedy.into() }
    }

    /// One that need not hinder.
    pub fn warning(kind: PreflightKind, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { certain: false, ..Self::certain(kind, text, remedy) }
    }
}

impl std::fmt::Display for PreflightFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.text, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_ordered_whatever_it_is_made_of() {
        for (one, expected, other) in [(1, 2, 3), (3, 2, 1), (5, 2, 4), (0, 9, 1)] {
            let interval = Interval::around(one, expected, other);
            assert!(interval.low <= interval.expected && interval.expected <= interval.high, "{interval:?}");
            assert!([one, expected, other].iter().all(|figure| interval.contains(*figure)));
        }
        assert!(!Interval::exactly(4).contains(5));
    }
}
