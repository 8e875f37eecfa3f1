//! Namespace machines where the contract suite does not look: adoption, and what is left behind.

use crate::world::{eventually, exe, groups, processes_with};
use novacron_agent::hypervisor::{
    Definition, Hypervisor, Listed, MachineFiles,
    namespace::{Namespace, folder::Folder},
};
use novacron_common::{
    ids::VmId,
    record::VmState,
    spec::{BootSource, HealthSpec, MachineKind, Mobility, NetworkSpec, RestartPolicy, TemplateSpec, VmSpec},
    units::ByteCount,
};
use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::task::JoinSet;

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
            mobility: Mobility::Usual,
            health: HealthSpec::default(),
            volumes: Vec::new(),
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
    host.stop(wanted.vm, Duration::ZERO.into()).await.unwrap();
    assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Stopped);
    host.undefine(wanted.vm).await.unwrap();
}

#[tokio::test]
async fn a_definition_that_a_crash_of_the_host_spoilt_is_made_anew() {
    novacron_tests::require!(root);
    let folder = TempDir::new().unwrap();
    let wanted = definition(folder.path(), None);
    let file = folder.path().join("machines").join(wanted.vm.to_string()).join("definition");
    let host = Namespace::open(folder.path(), exe()).await.unwrap();
    host.define(&wanted).await.unwrap();
    let whole = std::fs::read(&file).unwrap();
    // What a file system makes of a write that did not reach the disk: nothing, zeros, or a part.
    for spoilt in [Vec::new(), vec![0; whole.len()], whole[..whole.len() / 2].to_vec()] {
        std::fs::write(&file, &spoilt).unwrap();
        assert_eq!(host.state(wanted.vm).await.unwrap(), VmState::Missing, "{spoilt:?}");
        host.define(&wanted).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), whole);
    }
    host.start(wanted.vm).await.unwrap();
    host.undefine(wanted.vm).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_come_and_go_at_once_share_no_ids_and_leave_nothing() {
    novacron_tests::require!(root);
    const LIVES: usize = 4;
    let folder = TempDir::new().unwrap();
    let host = Arc::new(Namespace::open(folder.path(), exe()).await.unwrap());
    let mut machines = JoinSet::new();
    for _ in 0..6 {
        let (host, home) = (Arc::clone(&host), folder.path().join("machines"));
        let wanted = definition(folder.path(), None);
        machines.spawn(async move {
            for life in 0..LIVES {
                host.define(&wanted).await.unwrap();
                host.start(wanted.vm).await.unwrap_or_else(|error| panic!("life {life}: {error:?}"));
                // The last lives of all overlap.
                if life + 1 < LIVES {
                    host.undefine(wanted.vm).await.unwrap();
                }
            }
            (wanted.vm, std::fs::read_to_string(uid_map(&home, wanted.vm)).unwrap())
        });
    }
    let machines = machines.join_all().await;
    let ids: BTreeSet<&String> = machines.iter().map(|(_, ids)| ids).collect();
    assert_eq!(ids.len(), machines.len(), "two machines have the same ids");
    for (vm, _) in machines {
        host.undefine(vm).await.unwrap();
    }
    eventually("no cgroup is left", || groups(&folder.path().join("machines")).is_empty()).await;
}

pub fn uid_map(home: &Path, vm: VmId) -> String {
    let init = Folder::at(home.join(vm.to_string()).join("run")).init().unwrap();
    format!("/proc/{}/uid_map", init.unwrap())
}
