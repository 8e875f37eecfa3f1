//! Our machines, through the port that the agent drives them by.

use super::{
    Instant,
    stage::{PROGRAM, Stage},
};
use anyhow::{Context, Result};
use novacron_agent::{
    attempt::supervisor,
    hypervisor::{
        Definition, Hypervisor, MachineFiles, RootImage,
        namespace::{Namespace, folder::Folder, spool::SpoolReader},
    },
};
use novacron_common::{
    ids::{NetworkId, VmId},
    spec::{BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy, TemplateSpec, VmSpec},
    units::ByteCount,
};
use novacron_tests::bins;
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

/// How long a machine may take to say its first word.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// More than any of it prints.
const TOLD_MAX: usize = 4096;

/// What a machine does when it has told its first instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Ends.
    Ends,
    /// Sleeps until it is ended.
    Stays,
}

impl Then {
    /// The program's words.
    pub const fn argv(self) -> &'static [&'static str] {
        match self {
            Self::Ends => &[PROGRAM],
            Self::Stays => &[PROGRAM, "stays"],
        }
    }
}

/// A host with namespace machines.
pub struct Ours {
    host: Namespace,
    data_dir: PathBuf,
    image: RootImage,
}

impl Ours {
    /// Opens it, in the network namespace of the caller.
    pub async fn open(stage: &Stage) -> Result<Self> {
        let (data_dir, exe) = (stage.data_dir(), bins::path(supervisor::PROGRAM)?);
        let host = Namespace::open(&data_dir, exe).await?;
        Ok(Self { host, data_dir, image: stage.image.clone() })
    }

    /// Makes a machine; from the request to its first instruction, milliseconds.
    pub async fn create(&self, network: NetworkSpec, then: Then) -> Result<(VmId, f64)> {
        let wanted = self.wanted(network, then)?;
        let asked = Instant::now()?;
        self.host.define(&wanted).await?;
        self.host.start(wanted.vm).await?;
        let ran = tokio::time::timeout(PATIENCE, self.told(wanted.vm)).await;
        Ok((wanted.vm, ran.context("a machine never said that it runs")??.ms_since(asked)?))
    }

    /// Ends it, if it has not ended, and forgets it.
    pub async fn remove(&self, vm: VmId) -> Result<()> {
        Ok(self.host.undefine(vm).await?)
    }

    fn wanted(&self, network: NetworkSpec, then: Then) -> Result<Definition> {
        let vm = VmId::generate();
        let folder = self.data_dir.join("machines").join(vm.to_string());
        let files = MachineFiles { root: Some(self.image.clone()), ..MachineFiles::bare(folder) };
        Ok(Definition { vm, spec: spec(network, then)?, files, bridge: None })
    }

    /// Read where the machine's supervisor writes what it prints: asking the agent takes turns with what is measured.
    async fn told(&self, vm: VmId) -> Result<Instant> {
        let run = Folder::at(self.data_dir.join("machines").join(vm.to_string()).join("run"));
        loop {
            if let Some(mut spool) = SpoolReader::open(&run)?
                && let Some(instant) = Instant::told_in(&String::from_utf8_lossy(&spool.next(TOLD_MAX)?.1))
            {
                return Ok(instant);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// What each machine is.
pub fn spec(network: NetworkSpec, then: Then) -> Result<VmSpec> {
    Ok(VmSpec {
        name: "bench".parse()?,
        kind: MachineKind::Namespace,
        cpus: 1,
        memory: ByteCount::mib(64),
        storage: ByteCount(0),
        template: TemplateSpec { name: "bench".parse()?, boot: BootSource::Disk, disk: None },
        cmdline: Some(then.argv().join(" ")),
        network,
        cloud_init: None,
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    })
}

/// On a tenant network, with the address of this number in 10.99.0.0/16.
pub fn on_a_network(number: u16) -> Result<NetworkSpec> {
    let address = |number: u16| Ipv4Addr::from(Ipv4Addr::new(10, 99, 0, 0).to_bits() | u32::from(number));
    Ok(NetworkSpec {
        address: Some(format!("{}/16", address(number)).parse()?),
        gateway: Some(address(1).into()),
        tenant: Some(NetworkId::from_u128(1)),
        ..NetworkSpec::default()
    })
}
