//! Jobs.

use super::{
    Context, input, job_logs,
    job_options::{self, Present},
    job_rows, segment,
};
use crate::{
    cli::{Format, JobCreateArgs, JobUpdateArgs, JobVerb},
    error::CtlError,
    output,
};
use novacron_common::{
    api::{ExecuteAccepted, FireView, JobCreate, JobUpdate, JobView, LedgerView, PreviewTick},
    ids::FireKey,
};

pub async fn run(context: &Context, verb: JobVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        JobVerb::Create(args) => create(context, *args).await,
        JobVerb::List { label, status } => {
            let label = label.map(|(key, value)| format!("&label={}", segment(&format!("{key}={value}"))));
            let query = super::by_status(status.as_ref()) + &label.unwrap_or_default();
            output::list(&client.all::<JobView>("/api/v1/jobs", &query).await?, context.format)
        }
        JobVerb::Show(name) => show(context, &client.get(&path(&name.job)).await?),
        JobVerb::Update(args) => update(context, *args).await,
        JobVerb::Pause(name) => post(context, &name.job, "pause").await,
        JobVerb::Resume(name) => post(context, &name.job, "resume").await,
        JobVerb::Delete(name) => {
            client.delete(&path(&name.job)).await?;
            output::line(&format!("{} is gone, or goes with the last of its attempts", name.job))
        }
        JobVerb::Execute(name) => {
            let accepted: ExecuteAccepted =
                client.post(&format!("{}/execute", path(&name.job)), None::<&()>).await?;
            output::line(&accepted.fire)
        }
        JobVerb::Next { job, n } => {
            let ticks: Vec<PreviewTick> = client.get(&format!("{}/next?n={n}", path(&job))).await?;
            output::list(&ticks, context.format)
        }
        JobVerb::Ledger { job, n } => ledger(context, &job, n).await,
        JobVerb::Cancel { names } => cancel(context, &names).await,
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

/// With the warnings that come with a new or changed schedule; in JSON they are part of the job.
fn show(context: &Context, job: &JobView) -> Result<(), CtlError> {
    output::one(job, context.format, &job_rows::details(job))?;
    match context.format {
        Format::Json => Ok(()),
        Format::Table => {
            job.warnings.iter().try_for_each(|w| output::line(&format!("warning: {}", w.message)))
        }
    }
}

async fn post(context: &Context, job: &str, verb: &str) -> Result<(), CtlError> {
    show(context, &context.client.post(&format!("{}/{verb}", path(job)), None::<&()>).await?)
}

async fn create(context: &Context, args: JobCreateArgs) -> Result<(), CtlError> {
    let made: JobView = match &args.file {
        Some(file) => {
            let body: JobCreate = input::json(file)?;
            context.client.post("/api/v1/jobs", Some(&body)).await?
        }
        None => {
            let body = job_options::body(args.policies, args.target, Present::default())?;
            let body = JobUpdate { name: args.name, schedule: args.schedule, ..body };
            context.client.post("/api/v1/jobs", Some(&body)).await?
        }
    };
    show(context, &made)
}

async fn update(context: &Context, args: JobUpdateArgs) -> Result<(), CtlError> {
    let path = path(&args.job);
    let present = match args.policies.are_partial() {
        true => context.client.get::<JobView>(&path).await?.into(),
        false => Present::default(),
    };
    let body = job_options::body(args.policies, args.target, present)?;
    let body = JobUpdate { name: args.name, schedule: args.schedule, ..body };
    show(context, &context.client.put(&path, &body).await?)
}

async fn ledger(context: &Context, job: &str, n: u32) -> Result<(), CtlError> {
    let ledger: LedgerView = context.client.get(&format!("{}/ledger?n={n}", path(job))).await?;
    if context.format == Format::Json {
        return output::json(&ledger);
    }
    output::list(&ledger.ticks, context.format)?;
    if ledger.more {
        output::line("… and more: ask for them with -n")?;
    }
    job_rows::older(&ledger.older).map_or(Ok(()), |older| output::line(&older))
}

async fn cancel(context: &Context, names: &[String]) -> Result<(), CtlError> {
    let (job, fire) = match names {
        [job, fire] => (job.clone(), fire),
        [fire] => (job_of(fire)?, fire),
        _ => return Err(CtlError::Settings("write: job cancel [JOB] FIRE".into())),
    };
    let path = format!("{}/fires/{}/cancel", path(&job), segment(fire));
    let left: FireView = context.client.post(&path, None::<&()>).await?;
    output::one(&left, context.format, &[])
}

fn job_of(fire: &str) -> Result<String, CtlError> {
    let key: FireKey = fire.parse().map_err(|_| {
        CtlError::Settings(format!("{fire:?} is no fire: write its id as `novactl job fires JOB` shows it"))
    })?;
    Ok(key.job.to_string())
}
