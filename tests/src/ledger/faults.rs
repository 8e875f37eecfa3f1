//! The faults that are done to a [`super::trio::Trio`]: each is begun, held for a while and undone.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use novacron_common::splitmix::SplitMix64;

use super::trio::{Reach, Seat, Seats};
use crate::lab::addr;

/// Which packets of a node are lost. Clients in the outside node reach it all the same: a partition that clients share
/// could not show them anything stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All.
    Both,
    /// Those that come in.
    In,
    /// Those that go out.
    Out,
}

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of the coordinator that leads; started again afterwards.
    KillLeader,
    /// SIGKILL of one that does not.
    KillFollower,
    /// SIGSTOP of the leader.
    PauseLeader,
    /// SIGSTOP of one that does not lead.
    PauseFollower,
    /// The leader loses packets.
    CutLeader(Way),
    /// One that does not lead loses packets.
    CutFollower(Way),
    /// SIGKILL of an agent.
    KillAgent,
    /// SIGSTOP of an agent.
    PauseAgent,
    /// An agent loses packets.
    CutAgent(Way),
}

/// Every kind. The leader's come twice: every cron system we looked at breaks there.
pub const KINDS: [Fault; 19] = [
    Fault::KillLeader,
    Fault::KillLeader,
    Fault::KillFollower,
    Fault::PauseLeader,
    Fault::PauseLeader,
    Fault::PauseFollower,
    Fault::CutLeader(Way::Both),
    Fault::CutLeader(Way::Both),
    Fault::CutLeader(Way::In),
    Fault::CutLeader(Way::In),
    Fault::CutLeader(Way::Out),
    Fault::CutFollower(Way::Both),
    Fault::CutFollower(Way::In),
    Fault::CutFollower(Way::Out),
    Fault::KillAgent,
    Fault::PauseAgent,
    Fault::CutAgent(Way::Both),
    Fault::CutAgent(Way::In),
    Fault::CutAgent(Way::Out),
];

/// One fault of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub fault: Fault,
    /// How long.
    pub hold: Duration,
    /// Decides which node, where there are several.
    pub pick: usize,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} for {} ms", self.fault, self.hold.as_millis())
    }
}

/// `count` faults: every kind before any comes again, in an order of chance.
pub fn plan(chance: &mut SplitMix64, count: usize) -> Vec<Step> {
    let mut steps = Vec::with_capacity(count + KINDS.len());
    while steps.len() < count {
        let mut kinds = KINDS;
        chance.shuffle(&mut kinds);
        for fault in kinds {
            // From less than an election takes to well beyond it.
            let hold = Duration::from_millis(300 + chance.bits() % 2700);
            steps.push(Step { fault, hold, pick: chance.index(64) });
        }
    }
    steps.truncate(count);
    steps
}

/// What has to be done to end a fault.
#[derive(Debug, Clone, Copy)]
enum Undo {
    Start,
    Continue,
    Reconnect,
}

/// Where a fault is.
#[derive(Debug, Clone, Copy)]
enum At {
    Coordinator(usize),
    Agent(usize),
}

/// A fault that holds.
#[derive(Debug)]
pub struct Held {
    at: At,
    undo: Undo,
}

impl Step {
    /// Begins it; says on which node.
    ///
    /// # Errors
    /// When the node or its program does not let it.
    pub fn begin(&self, seats: &mut Seats, reach: &Reach) -> Result<Held> {
        let at = self.place(seats, reach)?;
        let seat = seat(seats, at);
        let undo = match self.fault {
            Fault::KillLeader | Fault::KillFollower | Fault::KillAgent => {
                seat.program.kill9()?;
                Undo::Start
            }
            Fault::PauseLeader | Fault::PauseFollower | Fault::PauseAgent => {
                seat.program.process()?.kill(Signal::SIGSTOP)?;
                Undo::Continue
            }
            Fault::CutLeader(way) | Fault::CutFollower(way) | Fault::CutAgent(way) => {
                cut(seat, way)?;
                Undo::Reconnect
            }
        };
        Ok(Held { at, undo })
    }

    fn place(&self, seats: &Seats, reach: &Reach) -> Result<At> {
        let others = seats.coordinators.len() - 1;
        Ok(match self.fault {
            Fault::KillLeader | Fault::PauseLeader | Fault::CutLeader(_) => At::Coordinator(reach.leader()?),
            Fault::KillFollower | Fault::PauseFollower | Fault::CutFollower(_) => {
                At::Coordinator((reach.leader()? + 1 + self.pick % others) % (others + 1))
            }
            Fault::KillAgent | Fault::PauseAgent | Fault::CutAgent(_) => {
                At::Agent(self.pick % seats.agents.len())
            }
        })
    }
}

impl Held {
    /// The index of the coordinator that it is done to, if it is one.
    #[must_use]
    pub fn coordinator(&self) -> Option<usize> {
        match self.at {
            At::Coordinator(n) => Some(n),
            At::Agent(_) => None,
        }
    }

    /// Where it holds.
    #[must_use]
    pub fn node<'a>(&self, seats: &'a Seats) -> &'a str {
        match self.at {
            At::Coordinator(n) => seats.coordinators[n].node.name(),
            At::Agent(n) => seats.agents[n].node.name(),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the node or its program does not let it.
    pub fn end(&self, seats: &mut Seats) -> Result<()> {
        let seat = seat(seats, self.at);
        match self.undo {
            Undo::Start => seat.start(),
            Undo::Continue => seat.program.process()?.kill(Signal::SIGCONT),
            Undo::Reconnect => iptables(seat, &["-F"]),
        }
        .with_context(|| format!("ending a fault on {}", seat.node.name()))
    }
}

fn seat(seats: &mut Seats, at: At) -> &mut Seat {
    match at {
        At::Coordinator(n) => &mut seats.coordinators[n],
        At::Agent(n) => &mut seats.agents[n],
    }
}

fn cut(seat: &Seat, way: Way) -> Result<()> {
    let outside = addr::OUTSIDE_LAN.to_string();
    if way != Way::Out {
        iptables(seat, &["-A", "INPUT", "-i", "eth0", "!", "-s", &outside, "-j", "DROP"])?;
    }
    if way != Way::In {
        iptables(seat, &["-A", "OUTPUT", "-o", "eth0", "!", "-d", &outside, "-j", "DROP"])?;
    }
    Ok(())
}

fn iptables(seat: &Seat, words: &[&str]) -> Result<()> {
    // Waits for the lock that all namespaces of the machine share.
    seat.node.exec("iptables", &[&["-w", "10"], words].concat()).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_every_kind_before_one_comes_again() {
        let steps = plan(&mut SplitMix64::new(1), 30);
        assert_eq!(steps.len(), 30);
        for kind in KINDS {
            assert!(steps[..KINDS.len()].iter().any(|step| step.fault == kind), "{kind:?} is missing");
        }
        assert_eq!(steps, plan(&mut SplitMix64::new(1), 30));
        assert_ne!(steps, plan(&mut SplitMix64::new(2), 30));
    }
}
