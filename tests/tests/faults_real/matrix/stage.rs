//! One lab for many cells: two hosts and a guest that goes back and forth between them.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use novacron_common::api::MigrationView;
use novacron_tests::cluster::{
    Cluster, ClusterOptions, GuestOptions, Machine, TemplateOptions, machine_path,
};
use novacron_tests::matrix::{Cell, Edge, Outcome, judge};
use novacron_tests::serial::Recorder;

use super::audit;
use super::edge::Lookout;
use super::strike;
use crate::after::start_again;
use crate::control_relay::{ControlRelay, Cut, relay_before, with_relay};

/// How long anything may go without progress.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// The link's rate up to an edge before the copy's end, Mbit/s: the copy takes seconds, so that the blow falls before it
/// however slow the machine is.
const SLOW: u32 = 60;
/// Ticks before a move, by which the guest is known to be well.
const TICKS_BEFORE: u64 = 5;

/// The members of the cluster between which a cell's move goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    pub source: usize,
    pub target: usize,
}

/// How a cell ended well.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub outcome: Outcome,
    /// The longest time between two ticks of the guest, milliseconds: what was done to it, and the move's own pause.
    pub silence_ms: f64,
}

/// A lab in which all is well.
pub struct Stage {
    pub cluster: Cluster,
    pub machine: Machine,
    relays: [ControlRelay; 2],
}

impl Stage {
    /// Starts it: two hosts, a relay before each libvirtd, a running guest.
    pub fn start() -> Result<Self> {
        let cluster = Cluster::start(&with_relay(ClusterOptions::two_hosts("matrix")))?;
        let relay = |side: usize| relay_before(&cluster.members[side].host, Cut::Nowhere);
        let relays = [relay(0)?, relay(1)?];
        cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
        let guest = GuestOptions { storage_mib: 16, area_mib: 4, ..GuestOptions::small("vm", "guest", "h1") };
        let machine = cluster.boot_guest(&guest)?;
        Ok(Self { cluster, machine, relays })
    }

    /// Carries a cell out and leaves all well, or says what was wrong.
    pub fn run(&mut self, cell: Cell) -> Result<Ended> {
        let outcome = self.carry_out(cell);
        self.cluster.explain(&self.machine, outcome)
    }

    fn carry_out(&mut self, cell: Cell) -> Result<Ended> {
        let sides = self.sides()?;
        let logs = self.cluster.members.iter();
        let logs = logs.map(|member| machine_path(&member.host, &self.machine.id, "console.log"));
        self.machine.recorder = Recorder::start(logs.collect::<Result<_>>()?);
        self.machine.recorder.wait_for_ticks(TICKS_BEFORE, PATIENCE)?;
        let mark = self.machine.recorder.chunks().len();
        let migration = self.move_through(cell, sides)?;
        let seen = audit::look(self, sides, &migration, mark)?;
        let outcome = judge(cell, &seen).map_err(|wrong| anyhow::anyhow!("{}", wrong.join("\n")))?;
        if outcome == Outcome::Lost {
            start_again(&self.cluster, &self.machine, PATIENCE)?;
        }
        self.cluster.wait_for_hosts()?;
        Ok(Ended { outcome, silence_ms: seen.ticks.blackout_ms_max })
    }

    /// From where the machine is to where it is not.
    fn sides(&self) -> Result<Sides> {
        let (home, _) = self.cluster.place_of(&self.machine)?;
        match self.cluster.members.iter().position(|member| member.host.name() == home) {
            Some(source) => Ok(Sides { source, target: 1 - source }),
            None => bail!("the machine is on no host: {home:?}"),
        }
    }

    /// Moves the machine, strikes at the edge, heals, and returns the migration as it ended.
    fn move_through(&mut self, cell: Cell, sides: Sides) -> Result<MigrationView> {
        let Self { cluster, machine, relays } = self;
        let slow = cell.edge < Edge::Complete;
        if slow {
            cluster.lab.shape(cluster.members[sides.source].host.node(), SLOW)?;
        }
        let mut lookout = Lookout::new(cell.edge, cluster, sides, &relays[sides.target])?;
        let to = cluster.members[sides.target].host.name().to_owned();
        let id = cluster.ask_to_migrate(machine, &to, &[])?.id.to_string();
        lookout.wait(cluster, &id)?;
        let wound = strike::strike(cluster, (cell.victim, cell.blow), sides)?;
        if slow {
            cluster.lab.unshape(cluster.members[sides.source].host.node())?;
        }
        let held = wound.hold(cluster, |cluster| follow_to_end(cluster, &id).map(drop));
        wound.heal(cluster)?;
        held?;
        follow_to_end(cluster, &id)
    }
}

/// Waits for the end for as long as anything changes. Faults in between are waited out: the coordinator may be down.
fn follow_to_end(cluster: &Cluster, id: &str) -> Result<MigrationView> {
    let (mut last, mut since) = (None, Instant::now());
    loop {
        let seen = cluster.migration(id);
        if let Ok(view) = &seen {
            if view.status.state.is_final() {
                return seen;
            }
            if last.as_ref() != Some(view) {
                (last, since) = (Some(view.clone()), Instant::now());
            }
        }
        ensure!(since.elapsed() < PATIENCE, "the migration stands still: {seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
