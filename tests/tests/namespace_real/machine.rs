//! Namespace machines where the contract suite does not look: adoption, and what is left behind.

use crate::world::{exe, groups, processes_with};
use novacron_agent::hypervisor::{Definition, Hypervisor, Listed, MachineFiles, namespace::Namespace};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{BootSource, MachineKind, NetworkSpec, RestartPolicy, TemplateSpec, VmSpec},
    units::ByteCount,
};
use std::{path::Path, time::Duration};
use tempfile::TempDir;

pub fn definition(folder: &Path, cmdline: Option<&str>) -> Definition {
    Definition {
        vm: VmId::generate(),
        spec: VmSpec {
            name: "box".parse().unwrap(),
            kind: MachineKind::Namespace,
            cpus: 1,
            memory: ByteCount::mib(64),
            storage: ByteCount(0),
            template: TemplateSpec { name: "host".parse().unwrap(), boot: BootSource::Disk, disk: None },
            cmdline: cmdline.map(str::to_owned),
            network: NetworkSpec::default(),
            cloud_init: None,
            restart: RestartPolicy::Never,
            post_copy: false,
        },
        files: MachineFiles { console_log: folder.join("console"), ..MachineFiles::bare(folder) },
        bridge: None,
    }
}

#[tokio::test]
async fn a_machine_outlives_the_adapter_and_is_adopted() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let wanted = definition(folder.path(), Some("sleep 600.7531"));
    let vm = wanted.vm;
    let first = Namespace::open(folder.path(), exe()).await.unwrap();
    first.define(&wanted).await.unwrap();
    first.start(vm).await.unwrap();
    drop(first);

    let second = Namespace::open(folder.path(), exe()).await.unwrap();
    assert_eq!(second.list().await.unwrap(), [Listed::Ours(vm, VmState::Running)]);
    assert_eq!(processes_with("sleep 600.7531").len(), 1);
    let usage = second.usage(vm).await.unwrap();
    assert!(usage.memory > ByteCount(0) && usage.memory < ByteCount::mib(64), "{usage:?}");
    second.undefine(vm).await.unwrap();
    assert_eq!(second.state(vm).await.unwrap(), VmState::Missing);
    assert_eq!(processes_with("sleep 600.7531"), Vec::<String>::new());
    let home = folder.path().join("machines");
    assert!(groups(&home).is_empty());
    assert!(!home.join(vm.to_string()).exists());
}

#[tokio::test]
async fn a_machine_that_cannot_start_says_why_and_is_stopped() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let wanted = definition(folder.path(), Some("no-such-program"));
    let host = Namespace::open(folder.path(), exe()).await.unwrap();
    host.define(&wanted).await.unwrap();
    let error = host.start(wanted.vm).await.unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("no-such-program"), "{error} {cause}");
    host.stop(wanted.vm, Duration::ZERO).await.unwrap();
    assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Stopped);
    host.undefine(wanted.vm).await.unwrap();
}
