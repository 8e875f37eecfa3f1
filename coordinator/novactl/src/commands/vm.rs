//! Machines.

use super::{Context, console, cp, exec, job_logs, segment, stats};
use crate::{
    cli::{VmCheckpointArgs, VmCreateArgs, VmHealthArgs, VmMigrateArgs, VmStopArgs, VmVerb, VmWait},
    error::CtlError,
    output::{self, Row, word},
    progress,
};
use novacron_common::{
    api::{
        CloudInitBody, HealthBody, MigrateRequest, MigrationPlan, MigrationView, NetworkBody, Period,
        Resources, VmCheckpoint, VmCreate, VmKill, VmMobility, VmStop, VmView,
    },
    ids::GangId,
    record::VmState,
    spec::RestartPolicy,
};
use std::{fs, path::Path, process::ExitCode};

impl Row for VmView {
    const TITLES: &'static [&'static str] = &["name", "state", "host", "cpu", "memory", "address", "id"];
    fn cells(&self) -> Vec<String> {
        let memory = self.resources.memory_mb.or(self.resources.memory_gb.map(|g| g * 1024)).unwrap_or(0);
        vec![
            self.name.clone(),
            match &self.health {
                Some(health) => format!("{} ({})", word(&self.state), word(health)),
                None => word(&self.state),
            },
            self.host_name.clone().unwrap_or_else(|| "-".into()),
            self.resources.cpu.to_string(),
            format!("{memory}M"),
            self.addresses.first().cloned().unwrap_or_else(|| "-".into()),
            self.id.to_string(),
        ]
    }
}

pub async fn run(context: &Context, verb: VmVerb) -> Result<ExitCode, CtlError> {
    let client = &context.client;
    let done = match verb {
        VmVerb::Create(args) => create(context, args).await,
        VmVerb::List { status } => {
            let query = super::by_status(status.as_ref());
            output::list(&client.all::<VmView>("/api/v1/vms", &query).await?, context.format)
        }
        VmVerb::Show(name) => show(context, &client.get(&path(&name.vm)).await?),
        VmVerb::Start(args) => start(context, args).await,
        VmVerb::Stop(args) => stop(context, args).await,
        VmVerb::Restart(args) => restart(context, args).await,
        VmVerb::Delete(args) => delete(context, args).await,
        VmVerb::Migrate(args) => migrate(context, args).await,
        VmVerb::Pause(args) => hold(context, args, "pause", VmState::Paused).await,
        VmVerb::Resume(args) => hold(context, args, "resume", VmState::Running).await,
        VmVerb::Checkpoint(args) => checkpoint(context, args).await,
        VmVerb::Restore(args) => hold(context, args, "restore", VmState::Running).await,
        VmVerb::Logs(args) => {
            let tail = args.tail.map_or_else(String::new, |lines| format!("&tail={lines}"));
            let path = format!("{}/logs?follow={}{tail}", path(&args.vm), args.follow);
            job_logs::copy(context, &path).await
        }
        VmVerb::Kill(args) => {
            let body = VmKill { signal: Some(args.signal) };
            show(context, &client.post(&format!("{}/kill", path(&args.vm)), Some(&body)).await?)
        }
        VmVerb::Stats(args) => stats::run(context, args).await,
        VmVerb::Console(name) => console::run(context, &name.vm).await,
        // The verbs whose exit code is somebody else's.
        VmVerb::Exec(args) => return exec::run(context, args).await,
        VmVerb::Cp(args) => return cp::run(context, args).await,
        VmVerb::Log { vm, bytes } => {
            let log = client.bytes(&format!("{}/console-log?bytes={bytes}", path(&vm.vm))).await?;
            output::line(String::from_utf8_lossy(&log).trim_end())
        }
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn path(vm: &str) -> String {
    format!("/api/v1/vms/{}", segment(vm))
}

fn show(context: &Context, vm: &VmView) -> Result<(), CtlError> {
    let more = [
        ("message", vm.message.clone().unwrap_or_default()),
        ("desired", word(&vm.desired)),
        ("template", vm.template.clone()),
        ("mac", vm.mac.clone()),
        ("addresses", vm.addresses.join(" ")),
        ("network", vm.network.clone().unwrap_or_default()),
        ("publish", vm.publish.join(" ")),
        ("volumes", vm.volumes.join(" ")),
        ("epoch", vm.epoch.0.to_string()),
        ("placement", vm.placement.clone().unwrap_or_default()),
        ("created", output::time(Some(vm.created_at))),
    ];
    output::one(vm, context.format, &more)
}

async fn create(context: &Context, args: VmCreateArgs) -> Result<(), CtlError> {
    let ssh_keys = args.ssh_keys.as_deref().map(read).transpose()?;
    let user_data = args.user_data.as_deref().map(read).transpose()?;
    let cloud_init = (ssh_keys.is_some() || user_data.is_some()).then(|| CloudInitBody {
        hostname: None,
        ssh_keys: ssh_keys
            .map(|k| k.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default(),
        user_data,
    });
    let body = VmCreate {
        name: args.name,
        template: args.template,
        resources: Resources {
            cpu: args.cpu,
            memory_mb: Some(args.memory),
            storage_mb: args.storage,
            ..Resources::default()
        },
        kind: None,
        cmdline: args.cmdline,
        network: NetworkBody {
            bridge: args.bridge,
            address: args.address,
            gateway: args.gateway,
            dns: vec![],
            name: args.network,
            publish: args.publish,
        },
        cloud_init,
        restart: args.restart_always.then_some(RestartPolicy::Always),
        post_copy: args.post_copy,
        mobility: if args.migratable { VmMobility::Migratable } else { VmMobility::Usual },
        health: health(args.health),
        volumes: args.volume,
        host: args.host,
        start: !args.no_start,
    };
    let vm: VmView = context.client.post("/api/v1/vms", Some(&body)).await?;
    let until = if args.no_start { VmState::Stopped } else { VmState::Running };
    finish(context, vm, args.wait, |vm| vm.state == until).await
}

/// Nothing where nothing was said.
fn health(args: VmHealthArgs) -> Option<HealthBody> {
    let body = HealthBody {
        cmd: args.health_cmd,
        interval: args.health_interval,
        timeout: args.health_timeout,
        retries: args.health_retries,
        start_period: args.health_start_period,
        disable: args.no_healthcheck,
    };
    (body != HealthBody::default()).then_some(body)
}

async fn hold(context: &Context, args: VmWait, verb: &str, until: VmState) -> Result<(), CtlError> {
    let vm: VmView = context.client.post(&format!("{}/{verb}", path(&args.vm)), None::<&()>).await?;
    finish(context, vm, args.wait, |vm| vm.state == until).await
}

async fn checkpoint(context: &Context, args: VmCheckpointArgs) -> Result<(), CtlError> {
    let body = VmCheckpoint { leave_running: args.leave_running };
    let vm: VmView = context.client.post(&format!("{}/checkpoint", path(&args.vm)), Some(&body)).await?;
    let until = if args.leave_running { VmState::Running } else { VmState::Paused };
    finish(context, vm, args.wait, |vm| vm.state == until).await
}

async fn start(context: &Context, args: VmWait) -> Result<(), CtlError> {
    let vm: VmView = context.client.post(&format!("{}/start", path(&args.vm)), None::<&()>).await?;
    finish(context, vm, args.wait, |vm| vm.state == VmState::Running).await
}

async fn stop(context: &Context, args: VmStopArgs) -> Result<(), CtlError> {
    let body = VmStop { grace_seconds: args.timeout, signal: args.signal };
    let vm: VmView = context.client.post(&format!("{}/stop", path(&args.vm)), Some(&body)).await?;
    finish(context, vm, args.wait, |vm| vm.state == VmState::Stopped).await
}

async fn restart(context: &Context, args: VmStopArgs) -> Result<(), CtlError> {
    let before: VmView = context.client.get(&path(&args.vm)).await?;
    let body = VmStop { grace_seconds: args.timeout, signal: args.signal };
    let vm: VmView = context.client.post(&format!("{}/restart", path(&args.vm)), Some(&body)).await?;
    // The processor time starts again with the guest, which is how its new life is told from its old one.
    finish(context, vm, args.wait, move |vm| {
        vm.state == VmState::Running && (vm.cpu_ms < before.cpu_ms || before.state != VmState::Running)
    })
    .await
}

async fn finish(
    context: &Context,
    vm: VmView,
    wait: bool,
    done: impl Fn(&VmView) -> bool,
) -> Result<(), CtlError> {
    let vm = if wait { progress::vm(&context.client, &vm.id.to_string(), done).await? } else { vm };
    show(context, &vm)
}

async fn delete(context: &Context, args: VmWait) -> Result<(), CtlError> {
    let vm: VmView = context.client.get(&path(&args.vm)).await?;
    let id = vm.id.to_string();
    context.client.delete(&path(&id)).await?;
    if args.wait {
        match progress::vm(&context.client, &id, |_| false).await {
            Err(CtlError::Problem(p)) if p.code == novacron_common::api::ProblemCode::NotFound => {}
            other => return other.map(|_| ()),
        }
    }
    output::line(&format!("{} {}", vm.name, if args.wait { "is gone" } else { "will be removed" }))?;
    match staying(&vm) {
        Some(text) => output::line(&text),
        None => Ok(()),
    }
}

/// What a machine leaves on its host, in words.
fn staying(vm: &VmView) -> Option<String> {
    let names: Vec<_> = vm.volumes.iter().filter_map(|text| text.split(':').next()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !name.starts_with('/')).collect();
    let host = vm.host_name.as_deref().unwrap_or("its host");
    (!names.is_empty()).then(|| format!("its volumes stay on {host}: {}", names.join(", ")))
}

async fn migrate(context: &Context, args: VmMigrateArgs) -> Result<(), CtlError> {
    let ganged = args.vms.len() > 1 && !args.offline;
    let body = MigrateRequest {
        target_host: args.to,
        live: !args.offline,
        max_downtime_ms: args.max_downtime.map(Period::Text),
        max_slowdown_pct: args.max_slowdown,
        deadline: args.deadline.map(Period::Text),
        bandwidth_mbit: args.bandwidth_mbit,
        verify_disk: args.verify_disk,
        strategy: args.strategy,
        gang: ganged.then(GangId::generate),
    };
    let paths = args.vms.iter().map(|vm| format!("{}/migrate", path(vm)));
    if args.plan {
        for path in paths {
            let plan: MigrationPlan =
                context.client.post(&format!("{path}?dry_run=true"), Some(&body)).await?;
            super::plan::show(context, &plan)?;
        }
        return Ok(());
    }
    let (mut asked, mut refused) = (Vec::new(), None);
    // All are asked for before the first is followed: each has its place in the line.
    for path in paths {
        match context.client.post::<_, MigrationView>(&path, Some(&body)).await {
            Ok(migration) => asked.push(migration),
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    if args.wait {
        for migration in &mut asked {
            let id = migration.id.to_string();
            if let Err(error) = progress::migration(&context.client, &id).await {
                refused.get_or_insert(error);
            }
            *migration = context.client.get(&format!("/api/v1/migrations/{id}")).await?;
        }
    }
    match (&asked[..], refused) {
        ([one], None) => super::migration::show(context, one),
        (several, refused) => {
            if ganged {
                output::list(several, context.format)?;
            }
            refused.map_or(Ok(()), Err)
        }
    }
}

fn read(path: &Path) -> Result<String, CtlError> {
    fs::read_to_string(path).map_err(CtlError::local(format!("read {}", path.display())))
}
