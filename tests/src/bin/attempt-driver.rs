//! A process that runs attempts as the agent does, for a test to kill, and the supervisors' own program.
//!
//! `attempt-driver supervise FOLDER` is a supervisor, `attempt-driver exec FOLDER` runs a command in its machine. `attempt-driver hold DATA_DIR PROGRAM ARGUMENT…` starts one
//! attempt, says `started`, and waits to be killed. `attempt-driver lease DATA_DIR keep|kill MILLISECONDS PROGRAM
//! ARGUMENT…` does the same with a lease, which it grants itself as long as it runs. `attempt-driver machine DATA_DIR ADDRESS
//! GATEWAY` starts a machine on a tenant network, says `started`, and waits to be killed. `attempt-driver life DATA_DIR ADDRESS
//! GATEWAY COMMAND IMAGE` makes, starts, stops and removes one of an image (a `RootImage` as JSON).
//!
//! Where the data folder has a board ([`novacron_tests::steps`]), agent and supervisor write their steps on it.

use novacron_agent::{
    attempt::{AttemptRunner, Next, Settings, call, supervisor},
    hypervisor::{
        Definition, Hypervisor, MachineFiles, RootImage,
        namespace::{Namespace, checkpoint::hook, exec, lease::BootTime},
    },
};
use novacron_common::{
    ids::{AttemptKey, FireCause, FireKey, JobId, NetworkId, VmId},
    spec::{
        BootSource, CommandTarget, HealthSpec, JobTarget, MachineKind, Mobility, NetworkSpec, OnLeaseLost,
        Program, RestartPolicy, Root, TemplateSpec, VmSpec,
    },
    units::{ByteCount, Epoch, UnixMillis},
    wire::{AttemptStart, Lease, LeasesGranted},
};
use novacron_tests::steps::{self, Role};
use std::{ffi::OsString, path::Path, process::ExitCode, time::Duration};

/// The attempt that `hold` starts; tests ask for it again by this key.
fn held(argv: Vec<String>) -> AttemptStart {
    let fire =
        FireKey { job: JobId::from_u128(77), scheduled_at: UnixMillis(60_000), cause: FireCause::Schedule };
    AttemptStart {
        attempt: AttemptKey { fire, number: 1 },
        epoch: Epoch(1),
        target: JobTarget::Command(CommandTarget {
            program: Program::new(argv),
            memory_max: ByteCount::mib(128),
            pids_max: 32,
            cpu_millis: 1000,
            root: Root::Host,
        }),
        timeout_ms: 60_000,
        scheduled_at: fire.scheduled_at,
        lease: None,
        on_lease_lost: OnLeaseLost::Keep,
        env: Vec::new(),
    }
}

/// Grants whatever is due, as a leader would that knows of nothing against it.
async fn grant_all(runner: &AttemptRunner) {
    loop {
        let asked_at = BootTime::now();
        let pause = match runner.next_of_leases(asked_at) {
            Next::Ask(asked) => {
                let granted = asked.into_iter().map(|(attempt, _)| attempt).collect();
                runner.renewed(LeasesGranted(granted), asked_at).await;
                Duration::ZERO
            }
            Next::Wait(pause) => pause.unwrap_or(Duration::from_secs(1)),
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = runner.lease_wanted() => {}
        }
    }
}

fn lease(data_dir: &str, policy: &str, duration: &str, argv: &[String]) -> anyhow::Result<()> {
    let on_lease_lost = if policy == "kill" { OnLeaseLost::Kill } else { OnLeaseLost::Keep };
    let lease = Some(Lease { duration_ms: duration.parse()? });
    let start = AttemptStart { lease, on_lease_lost, ..held(argv.to_vec()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let runner =
            AttemptRunner::open(Path::new(data_dir), Settings::new(std::env::current_exe()?)).await?;
        runner.start(start).await?;
        println!("started");
        grant_all(&runner).await;
        Ok(())
    })
}

fn hold(data_dir: &str, argv: &[String]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let runner =
            AttemptRunner::open(Path::new(data_dir), Settings::new(std::env::current_exe()?)).await?;
        runner.start(held(argv.to_vec())).await?;
        println!("started");
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// The machine that `machine` and `life` make; tests ask for it again by this id.
fn definition(
    data_dir: &str,
    address: &str,
    gateway: &str,
    command: &str,
    root: Option<RootImage>,
) -> anyhow::Result<Definition> {
    let network = NetworkSpec {
        address: Some(address.parse()?),
        gateway: Some(gateway.parse()?),
        tenant: Some(NetworkId::from_u128(1)),
        ..NetworkSpec::default()
    };
    let spec = VmSpec {
        name: "box".parse()?,
        kind: MachineKind::Namespace,
        cpus: 1,
        memory: ByteCount::mib(64),
        storage: ByteCount(0),
        template: TemplateSpec { name: "host".parse()?, boot: BootSource::Disk, disk: None },
        cmdline: Some(command.into()),
        network,
        cloud_init: None,
        restart: RestartPolicy::Never,
        mobility: Mobility::Usual,
        health: HealthSpec::default(),
        volumes: Vec::new(),
    };
    let files = MachineFiles { root, ..MachineFiles::bare(data_dir) };
    Ok(Definition { vm: VmId::from_u128(7), spec, files, bridge: None })
}

fn machine(data_dir: &str, address: &str, gateway: &str) -> anyhow::Result<()> {
    let wanted = definition(data_dir, address, gateway, "sleep 600.4242", None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = Namespace::open(Path::new(data_dir), std::env::current_exe()?).await?;
        host.define(&wanted).await?;
        host.start(wanted.vm).await?;
        println!("started");
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Its steps are always the same: whatever fails on the way, the machine is removed in the end.
fn life(data_dir: &str, address: &str, gateway: &str, command: &str, image: &str) -> anyhow::Result<()> {
    let mut wanted = definition(data_dir, address, gateway, command, Some(serde_json::from_str(image)?))?;
    wanted.spec.volumes = vec!["kept:/srv/kept".parse()?];
    steps::write_on(Path::new(data_dir), Role::Agent);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let host = Namespace::open(Path::new(data_dir), std::env::current_exe()?).await?;
        host.define(&wanted).await?;
        let lived = match host.start(wanted.vm).await {
            Ok(()) => host.stop(wanted.vm, Duration::from_secs(10).into()).await.map(drop),
            failed => failed,
        };
        host.undefine(wanted.vm).await?;
        Ok(lived?)
    })
}

/// That of the machine whose supervisor has this folder, if it is one's.
fn data_dir_of(folder: &str) -> Option<&Path> {
    Path::new(folder).ancestors().nth(3)
}

fn tell(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = hook::called() {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["supervise", rest @ ..] => {
            rest.first()
                .and_then(|folder| data_dir_of(folder))
                .into_iter()
                .for_each(|data_dir| steps::write_on(data_dir, Role::Supervisor));
            let words: Vec<_> = rest.iter().map(OsString::from).collect();
            supervisor::main(&words, Some(call::run))
        }
        ["exec", rest @ ..] => exec::main(&rest.iter().map(OsString::from).collect::<Vec<_>>()),
        ["hold", data_dir, ..] => tell(hold(data_dir, &words[2..])),
        ["lease", data_dir, policy, duration, ..] => tell(lease(data_dir, policy, duration, &words[4..])),
        ["machine", data_dir, address, gateway] => tell(machine(data_dir, address, gateway)),
        ["life", data_dir, address, gateway, command, image] => {
            tell(life(data_dir, address, gateway, command, image))
        }
        _ => {
            eprintln!(
                "attempt-driver supervise FOLDER | hold DATA_DIR PROGRAM ARGUMENT… | \
                 lease DATA_DIR keep|kill MILLISECONDS PROGRAM ARGUMENT… | machine DATA_DIR ADDRESS GATEWAY | \
                 life DATA_DIR ADDRESS GATEWAY COMMAND IMAGE"
            );
            ExitCode::from(64)
        }
    }
}
