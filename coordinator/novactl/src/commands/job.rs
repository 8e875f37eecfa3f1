//! Jobs.

use super::{Context, job_logs, segment};
use crate::{
    cli::{JobCreateArgs, JobOptions, JobUpdateArgs, JobVerb},
    error::CtlError,
    output::{self, Row, word},
};
use novacron_common::api::{
    CommandTargetBody, ExecuteAccepted, FireView, JobCreate, JobTargetBody, JobUpdate, JobView, Period,
};
use std::collections::BTreeMap;

impl Row for JobView {
    const TITLES: &'static [&'static str] =
        &["name", "schedule", "zone", "enabled", "next", "fires", "failed", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.schedule.clone(),
            self.timezone.clone(),
            self.enabled.to_string(),
            output::time(self.next_fire_at),
            self.fires.to_string(),
            self.failed.to_string(),
            self.id.to_string(),
        ]
    }
}

impl Row for FireView {
    const TITLES: &'static [&'static str] = &["scheduled", "cause", "state", "tries", "outcome", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            output::time(Some(self.scheduled_at)),
            word(&self.cause),
            word(&self.state),
            self.attempts.len().to_string(),
            self.attempts.last().map(|a| a.outcome.clone()).unwrap_or_default(),
            self.id.clone(),
        ]
    }
}

pub async fn run(context: &Context, verb: JobVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        JobVerb::Create(args) => create(context, args).await,
        JobVerb::List => output::list(&client.all::<JobView>("/api/v1/jobs", "").await?, context.format),
        JobVerb::Show(name) => show(context, &client.get(&path(&name.job)).await?),
        JobVerb::Update(args) => update(context, args).await,
        JobVerb::Enable(name) => switch(context, &name.job, true).await,
        JobVerb::Disable(name) => switch(context, &name.job, false).await,
        JobVerb::Delete(name) => {
            client.delete(&path(&name.job)).await?;
            output::line(&format!("{} is gone", name.job))
        }
        JobVerb::Execute(name) => {
            let accepted: ExecuteAccepted =
                client.post(&format!("{}/execute", path(&name.job)), None::<&()>).await?;
            output::line(&accepted.fire)
        }
        JobVerb::Logs(args) => job_logs::run(context, args).await,
        JobVerb::Fires(name) => {
            let fires = client.all::<FireView>(&format!("{}/fires", path(&name.job)), "").await?;
            output::list(&fires, context.format)
        }
    }
}

fn path(job: &str) -> String {
    format!("/api/v1/jobs/{}", segment(job))
}

fn show(context: &Context, job: &JobView) -> Result<(), CtlError> {
    let target = match &job.target {
        JobTargetBody::Noop => "nothing".to_owned(),
        JobTargetBody::Record => "one line in its agent's record file".to_owned(),
        JobTargetBody::Command(c) => c.command.join(" "),
        JobTargetBody::VmCommand(c) => format!("in {}: {}", c.vm, c.command.join(" ")),
        JobTargetBody::Vm(v) => format!("{} {}", v.verb, v.vm),
        JobTargetBody::Http(h) => format!("{} {}", word(&h.method), h.url),
    };
    let more = [
        ("does", target),
        ("priority", job.priority.to_string()),
        ("max_retries", job.max_retries.to_string()),
        ("timeout", format!("{} ms", job.timeout)),
        ("succeeded", job.succeeded.to_string()),
        ("last", output::time(job.last_fire_at)),
    ];
    output::one(job, context.format, &more)
}

async fn create(context: &Context, args: JobCreateArgs) -> Result<(), CtlError> {
    let body = JobCreate {
        name: args.name,
        schedule: args.schedule,
        target: target(&args.options)?,
        timezone: args.options.timezone,
        priority: args.options.priority,
        max_retries: args.options.max_retries,
        timeout: args.options.timeout.map(Period::Text),
        ..JobCreate::default()
    };
    show(context, &context.client.post("/api/v1/jobs", Some(&body)).await?)
}

async fn update(context: &Context, args: JobUpdateArgs) -> Result<(), CtlError> {
    let body = JobUpdate {
        name: args.name,
        schedule: args.schedule,
        target: target(&args.options)?,
        timezone: args.options.timezone,
        priority: args.options.priority,
        max_retries: args.options.max_retries,
        timeout: args.options.timeout.map(Period::Text),
        ..JobUpdate::default()
    };
    show(context, &context.client.put(&path(&args.job), &body).await?)
}

async fn switch(context: &Context, job: &str, enabled: bool) -> Result<(), CtlError> {
    let body = JobUpdate { enabled: Some(enabled), ..JobUpdate::default() };
    show(context, &context.client.put(&path(job), &body).await?)
}

fn target(options: &JobOptions) -> Result<Option<JobTargetBody>, CtlError> {
    if options.command.is_empty() {
        if !options.env.is_empty() || options.memory.is_some() {
            return Err(CtlError::Settings("--env and --memory need a command: add it after `--`".into()));
        }
        return Ok(None);
    }
    let pairs = options.env.iter().map(|pair| {
        let split = pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        split.ok_or_else(|| CtlError::Settings(format!("--env {pair:?}: write NAME=VALUE")))
    });
    Ok(Some(JobTargetBody::Command(CommandTargetBody {
        command: options.command.clone(),
        env: pairs.collect::<Result<BTreeMap<_, _>, _>>()?,
        memory_mb: options.memory,
        ..CommandTargetBody::default()
    })))
}
