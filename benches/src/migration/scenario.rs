//! What is moved, over what, and by whom.

use super::{Measured, feed, rows};
use crate::{
    guest::Shape,
    moves::{Mover, Stage},
    report::Row,
};
use anyhow::Result;
use novacron_tests::{cluster::Cluster, lab::Distance};
use std::{net::Ipv4Addr, time::Duration};

const MEMORY_MIB: u32 = 1024;
const OURS_AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
const PEER_AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 51);

/// What lies between the two hosts.
#[derive(Debug, Clone, Copy)]
pub enum Link {
    /// A wire that carries so many Mbit/s; `None`: as much as it can.
    Lan(Option<u32>),
    /// A long way.
    Far(Distance),
}

/// One guest on one link.
pub struct Scenario {
    /// Its name, for `ROW=`.
    pub name: &'static str,
    /// For people.
    pub about: &'static str,
    /// Between the two hosts.
    pub link: Link,
    /// Words for the guest's init beside its address.
    pub words: &'static str,
    /// Real file data that it is given to keep, MiB.
    pub fed_mib: usize,
    /// Who moves it, in turn.
    pub movers: &'static [Mover],
    /// How often each.
    pub rounds: usize,
    /// Ours moves it as often again, with the link cut.
    pub cut: bool,
    /// Ours goes there and back so often, with what the first host kept.
    pub returns: usize,
    /// Its rows.
    pub rows: fn(&Measured) -> Result<Vec<Row>>,
}

const NOISE: &str = "nova.mb=512 nova.fill=rand nova.rate=0 nova.verify=0 nova.tick=100 nova.disk=0";

/// All of them.
pub const SCENARIOS: [Scenario; 9] = [
    Scenario {
        name: "files",
        about: "idle, 600 MiB of ELF files in memory, 1 Gbit/s",
        link: Link::Lan(Some(1000)),
        words: "nova.mb=1 nova.rate=0 nova.verify=0 nova.tick=100 nova.disk=0 nova.feed=600",
        fed_mib: 600,
        movers: &[Mover::MultifdZstd, Mover::Ours],
        rounds: 5,
        cut: false,
        returns: 0,
        rows: rows::files,
    },
    Scenario {
        name: "noise",
        about: "idle, 512 MiB that cannot be compressed, 1 Gbit/s; then with the link away for 5 s",
        link: Link::Lan(Some(1000)),
        words: NOISE,
        fed_mib: 0,
        movers: &[Mover::Plain, Mover::Ours],
        rounds: 5,
        cut: true,
        returns: 0,
        rows: rows::noise,
    },
    Scenario {
        name: "busy",
        about: "16,000 random pages a second of 128 MiB get one small write, 400 Mbit/s",
        link: Link::Lan(Some(400)),
        words: "nova.mb=128 nova.poke=16000 nova.rate=0 nova.verify=8 nova.tick=100 nova.disk=0",
        fed_mib: 0,
        movers: &[
            Mover::Plain,
            Mover::AutoConverge,
            Mover::Xbzrle,
            Mover::MultifdZstd,
            Mover::PostCopy,
            Mover::Ours,
        ],
        rounds: 3,
        cut: false,
        returns: 0,
        rows: rows::busy,
    },
    Scenario {
        name: "unshaped",
        about: "idle, 512 MiB that cannot be compressed, as fast as it goes",
        link: Link::Lan(None),
        words: NOISE,
        fed_mib: 0,
        movers: &[Mover::Multifd, Mover::Tls, Mover::Ours],
        rounds: 5,
        cut: false,
        returns: 0,
        rows: rows::unshaped,
    },
    Scenario {
        name: "blackout-idle",
        about: "idle, a tick every 5 ms, as fast as it goes",
        link: Link::Lan(None),
        words: "nova.mb=64 nova.rate=0 nova.verify=0 nova.tick=5 nova.disk=0",
        fed_mib: 0,
        movers: &[Mover::Plain, Mover::Ours],
        rounds: 25,
        cut: false,
        returns: 0,
        rows: rows::blackout_idle,
    },
    Scenario {
        name: "blackout-busy",
        about: "as busy as busy, a tick every 5 ms, as fast as it goes",
        link: Link::Lan(None),
        words: "nova.mb=128 nova.poke=16000 nova.rate=0 nova.verify=0 nova.tick=5 nova.disk=0",
        fed_mib: 0,
        movers: &[Mover::Plain, Mover::Ours],
        rounds: 25,
        cut: false,
        returns: 0,
        rows: rows::blackout_busy,
    },
    Scenario {
        name: "slow-down",
        about: "a guest that rewrites 24 MiB a second of 64 MiB, 1 Gbit/s",
        link: Link::Lan(Some(1000)),
        words: "nova.mb=64 nova.rate=24 nova.verify=0 nova.tick=20 nova.disk=0 nova.feed=400",
        fed_mib: 400,
        movers: &[Mover::Plain, Mover::Ours],
        rounds: 5,
        cut: false,
        returns: 0,
        rows: rows::slow_down,
    },
    Scenario {
        name: "return",
        about: "lightly used, 600 MiB of ELF files in memory, 8 MiB of noise rewritten at 1 MiB a second, 1 Gbit/s",
        link: Link::Lan(Some(1000)),
        words: "nova.mb=8 nova.rate=1 nova.verify=0 nova.tick=100 nova.disk=0 nova.feed=600",
        fed_mib: 600,
        movers: &[Mover::Ours],
        rounds: 1,
        cut: false,
        returns: 3,
        rows: rows::returns,
    },
    Scenario {
        name: "far",
        about: "idle, 150 MiB of ELF files in memory, 50 ms one way, 0.5 % of the packets lost, 100 Mbit/s",
        link: Link::Far(Distance { one_way: Duration::from_millis(50), lost_of_1000: 5, mbit: 100, seed: 4 }),
        words: "nova.mb=1 nova.rate=0 nova.verify=0 nova.tick=100 nova.disk=0 nova.feed=150",
        fed_mib: 150,
        movers: &[Mover::MultifdZstd, Mover::Ours],
        rounds: 3,
        cut: false,
        returns: 0,
        rows: rows::far,
    },
];

impl Scenario {
    /// Both guests, on the first host, with all that they are to hold.
    pub fn set<'a>(&self, cluster: &'a Cluster, template: &str) -> Result<Stage<'a>> {
        let stage =
            Stage::set(cluster, template, &self.shape("ours", OURS_AT), &self.shape("peer", PEER_AT))?;
        if self.fed_mib > 0 {
            let data = feed::elf_files(self.fed_mib << 20)?;
            feed::give(cluster, &stage.ours.recorder, OURS_AT, &data)?;
            feed::give(cluster, &stage.peer_console, PEER_AT, &data)?;
        }
        Ok(stage)
    }

    fn shape(&self, name: &'static str, at: Ipv4Addr) -> Shape {
        let words = format!("{} nova.addr={at}/24", self.words);
        Shape { name, memory_mib: MEMORY_MIB, disk_mib: 0, words }
    }
}
