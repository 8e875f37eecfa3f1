//! What an attempt printed, while it runs or afterwards: of a job, or of a node of a run.

use super::{Context, segment};
use crate::{cli::JobLogsArgs, error::CtlError};
use novacron_common::api::{FireView, Page};
use std::io::Write;

/// Prints it as it comes.
pub async fn run(context: &Context, args: JobLogsArgs) -> Result<(), CtlError> {
    let job = format!("/api/v1/jobs/{}", segment(&args.job));
    let fire = match &args.fire {
        Some(fire) => context.client.get(&format!("{job}/fires/{}", segment(fire))).await?,
        None => newest(context, &job).await?,
    };
    let last = fire.attempts.last().map(|attempt| attempt.number);
    let number = args.attempt.or(last).ok_or_else(|| {
        CtlError::Outcome(format!("{} has had no attempt yet: see `novactl job fires`", fire.id))
    })?;
    let path = format!("{job}/fires/{}/attempts/{number}/logs?follow={}", segment(&fire.id), args.follow);
    copy(context, &path).await
}

/// Prints the answer to `GET path` as it comes.
pub async fn copy(context: &Context, path: &str) -> Result<(), CtlError> {
    let mut out = std::io::stdout().lock();
    let mut show = |bytes: &[u8]| {
        out.write_all(bytes).and_then(|()| out.flush()).map_err(CtlError::local("write to standard output"))
    };
    context.client.follow(path, &mut show).await
}

/// The newest fire that has been tried.
async fn newest(context: &Context, job: &str) -> Result<FireView, CtlError> {
    let page: Page<FireView> = context.client.get(&format!("{job}/fires?limit=50")).await?;
    let tried = page.items.into_iter().find(|fire| !fire.attempts.is_empty());
    tried.ok_or_else(|| CtlError::Outcome("none of its last 50 fires has had an attempt".into()))
}
