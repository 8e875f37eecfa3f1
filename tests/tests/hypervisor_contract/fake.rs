//! The fake, which the tests above the port rely on.

use super::{Place, promises};
use anyhow::Result;
use novacron_agent::hypervisor::{Definition, Hypervisor, MachineFiles, fake::Fake};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy, TemplateSpec, VmSpec},
    units::ByteCount,
};
use std::time::Duration;

struct InMemory(Fake);

impl Place for InMemory {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.0
    }

    async fn definition(&self, number: u128) -> Result<Definition> {
        let template = TemplateSpec { name: "fake".parse()?, boot: BootSource::Disk, disk: None };
        let network = NetworkSpec::default();
        let spec = VmSpec {
            name: format!("fake-{number}").parse()?,
            kind: MachineKind::Kvm,
            cpus: 1,
            memory: ByteCount::mib(64),
            storage: ByteCount(0),
            template,
            cmdline: None,
            network,
            cloud_init: None,
            restart: RestartPolicy::Never,
            mobility: Mobility::Migratable,
            health: HealthSpec::default(),
            volumes: Vec::new(),
        };
        let files = MachineFiles::bare("/nowhere");
        Ok(Definition { vm: VmId::from_u128(number), spec, files, bridge: None })
    }

    fn add_foreign(&self) -> Result<String> {
        self.0.add_foreign("somebody-elses");
        Ok("somebody-elses".to_owned())
    }

    async fn hold(&self, vm: VmId) -> Result<()> {
        Ok(self.0.turn(vm, VmState::Paused)?)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[tokio::test]
async fn the_fake_keeps_the_contract() -> Result<()> {
    promises::all(&InMemory(Fake::new(MachineKind::Kvm))).await
}
