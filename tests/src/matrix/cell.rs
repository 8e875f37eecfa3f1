//! The cells: a victim, a blow, and the edge between two phases at which it falls.

use std::fmt;

/// Who is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Victim {
    /// The agent of the host that the machine leaves; cut: that whole host.
    SourceAgent,
    /// The agent of the host that it goes to; cut: that whole host.
    TargetAgent,
    /// The coordinator that leads; cut: it loses both agents, which keep each other.
    Coordinator,
    /// libvirtd of the source.
    SourceLibvirtd,
    /// libvirtd of the target.
    TargetLibvirtd,
    /// The QEMU that runs the guest.
    SourceQemu,
    /// The QEMU that the guest is copied into.
    TargetQemu,
    /// The link between the two hosts; both keep the coordinator.
    Link,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blow {
    /// SIGKILL; what is a service is started again after a moment, a QEMU is not.
    Kill,
    /// SIGSTOP for ten seconds.
    Stop,
    /// Every packet is lost for five seconds: less than the agents' grace.
    Cut,
    /// Every packet is lost until the migration has ended, or could not get any further for longer than the grace.
    CutForGood,
}

/// When: what has just become true.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Edge {
    /// The target has written down that it gets ready.
    Preparing,
    /// The source has written down that it begins, and dials.
    Connecting,
    /// libvirt was asked to send.
    Copying,
    /// Memory is crossing.
    Memory,
    /// The target's libvirtd has said that the copy is complete; the word is on its way to the source.
    Complete,
    /// The source has seen that its machine is gone; the hand-over comes next.
    Gone,
    /// The target runs the guest; the source is yet to be released.
    Running,
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Who.
    pub victim: Victim,
    /// How.
    pub blow: Blow,
    /// When.
    pub edge: Edge,
}

impl Victim {
    /// Every victim.
    pub const ALL: [Self; 8] = [
        Self::SourceAgent,
        Self::TargetAgent,
        Self::Coordinator,
        Self::SourceLibvirtd,
        Self::TargetLibvirtd,
        Self::SourceQemu,
        Self::TargetQemu,
        Self::Link,
    ];

    /// Its name in a cell's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SourceAgent => "source-agent",
            Self::TargetAgent => "target-agent",
            Self::Coordinator => "coordinator",
            Self::SourceLibvirtd => "source-libvirtd",
            Self::TargetLibvirtd => "target-libvirtd",
            Self::SourceQemu => "source-qemu",
            Self::TargetQemu => "target-qemu",
            Self::Link => "link",
        }
    }

    /// A link has no process; libvirtd and QEMU have nothing but UNIX sockets.
    const fn takes(self, blow: Blow) -> bool {
        match (self, blow) {
            (Self::SourceAgent | Self::TargetAgent | Self::Coordinator, _) => true,
            (Self::Link, blow) => matches!(blow, Blow::Cut | Blow::CutForGood),
            (_, blow) => matches!(blow, Blow::Kill | Blow::Stop),
        }
    }

    /// Whether there is such a thing at that edge: a QEMU comes and goes.
    fn is_there_at(self, edge: Edge) -> bool {
        match self {
            Self::SourceQemu => edge <= Edge::Complete,
            Self::TargetQemu => edge >= Edge::Copying,
            _ => true,
        }
    }
}

impl Blow {
    /// Every blow.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Stop, Self::Cut, Self::CutForGood];

    /// Its name in a cell's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::CutForGood => "cut-for-good",
        }
    }
}

impl Edge {
    /// Every edge, in the order of a migration.
    pub const ALL: [Self; 7] = [
        Self::Preparing,
        Self::Connecting,
        Self::Copying,
        Self::Memory,
        Self::Complete,
        Self::Gone,
        Self::Running,
    ];

    /// Its name in a cell's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Connecting => "connecting",
            Self::Copying => "copying",
            Self::Memory => "memory",
            Self::Complete => "complete",
            Self::Gone => "gone",
            Self::Running => "running",
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.victim.name(), self.blow.name(), self.edge.name())
    }
}

/// Every cell that can be carried out.
#[must_use]
pub fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for victim in Victim::ALL {
        for blow in Blow::ALL.into_iter().filter(|&blow| victim.takes(blow)) {
            let edges = Edge::ALL.into_iter().filter(|&edge| victim.is_there_at(edge));
            cells.extend(edges.map(|edge| Cell { victim, blow, edge }));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_cell_that_there_can_be_is_there_once() {
        let names: BTreeSet<String> = all().iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all().len());
        // Agents and coordinator 3 × 4 × 7, link 2 × 7, libvirtds 2 × 2 × 7, QEMUs 2 × 2 × 5.
        assert_eq!(all().len(), 84 + 14 + 28 + 20);
        for there in ["source-agent.kill.preparing", "link.cut-for-good.memory", "target-qemu.stop.running"] {
            assert!(names.contains(there), "{there}");
        }
        for not in ["link.kill.memory", "source-libvirtd.cut.memory", "source-qemu.kill.gone"] {
            assert!(!names.contains(not), "{not}");
        }
    }
}
