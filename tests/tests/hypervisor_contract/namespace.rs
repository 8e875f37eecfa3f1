//! Machines made of namespaces, on this host. Needs root; nothing else.

use super::{Place, promises};
use anyhow::{Context as _, Result};
use novacron_agent::hypervisor::{
    Definition, Hypervisor, MachineFiles,
    namespace::{Namespace, cgroup::Group},
};
use novacron_common::{
    ids::VmId,
    spec::{BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy, TemplateSpec, VmSpec},
    units::ByteCount,
};
use novacron_tests::require;
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;

struct OnHost {
    namespace: Namespace,
    folder: TempDir,
}

impl OnHost {
    async fn new() -> Result<Self> {
        let folder = TempDir::new()?;
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_attempt-driver"));
        Ok(Self { namespace: Namespace::open(folder.path(), exe).await?, folder })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("machines")
    }

    fn group_name(&self) -> Result<String> {
        let instance =
            std::fs::read_to_string(self.home().join(".instance")).context("the instance's name")?;
        Ok(format!("novacron-{instance}"))
    }
}

impl Place for OnHost {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.namespace
    }

    async fn definition(&self, number: u128) -> Result<Definition> {
        let folder = self.folder.path().to_owned();
        let console_log = folder.join("console.log");
        let spec = VmSpec {
            name: format!("box-{number}").parse()?,
            kind: MachineKind::Namespace,
            cpus: 1,
            memory: ByteCount::mib(64),
            storage: ByteCount(0),
            template: TemplateSpec { name: "host".parse()?, boot: BootSource::Disk, disk: None },
            // Says one line, works all the time, and ends at SIGTERM. (Words are split at blanks.)
            cmdline: Some(r#"perl -e $|=1;print"are-you-there\n";1while(1)"#.to_owned()),
            network: NetworkSpec::default(),
            cloud_init: None,
            restart: RestartPolicy::Never,
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        };
        let files = MachineFiles { console_log, ..MachineFiles::bare(folder) };
        Ok(Definition { vm: VmId::from_u128(number), spec, files, bridge: None })
    }

    fn add_foreign(&self) -> Result<String> {
        let name = "somebody-elses";
        std::fs::create_dir(self.home().join(name))?;
        Ok(name.to_owned())
    }

    async fn hold(&self, vm: VmId) -> Result<()> {
        Ok(Group::load(&format!("{}/{vm}", self.group_name()?)).freeze()?)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[tokio::test]
async fn namespaces_keep_the_contract() -> Result<()> {
    require!(root);
    let place = OnHost::new().await?;
    promises::all(&place).await?;
    let left = Group::load(&place.group_name()?).children();
    anyhow::ensure!(left.is_empty(), "left cgroups: {left:?}");
    Ok(())
}
