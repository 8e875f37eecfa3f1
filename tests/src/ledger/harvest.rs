//! Takes from the ledger what it says of the fires, again and again: it keeps only the last thousand of a job.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::{FireState, FireView, Page};
use novacron_common::ids::{FireKey, JobId};
use reqwest::Method;
use tokio::time::Instant;

use super::api::Api;
use super::audit::Run;
use super::schedule::{Job, Kind};
use super::trio::Seat;

/// How long the API may take for one page, over all retries.
const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at fires that are not done yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was taken so far.
#[derive(Debug, Default)]
pub struct Harvest {
    /// The newest view of each fire. A second record of the same fire within one answer is kept beside it.
    fires: BTreeMap<String, FireView>,
    doubles: Vec<FireView>,
    runs: BTreeMap<String, Vec<Run>>,
    records: Vec<Run>,
    /// Fires of the job up to this instant are done and taken.
    settled: BTreeMap<JobId, i64>,
}

impl Harvest {
    /// Takes what is new. Says how many fires are not done.
    ///
    /// # Errors
    /// When the API does not answer, or an attempt wrote what cannot be read.
    pub async fn take(&mut self, api: &Api, jobs: &[Job]) -> Result<usize> {
        let mut open = 0;
        for job in jobs {
            open +=
                self.take_job(api, job).await.with_context(|| format!("taking the fires of {}", job.id))?;
        }
        Ok(open)
    }

    /// Takes until every fire is done, at most `limit`.
    ///
    /// # Errors
    /// When some are not by then.
    pub async fn take_all(&mut self, api: &Api, jobs: &[Job], limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let open = self.take(api, jobs).await?;
            if open == 0 {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{open} fires are not done within {limit:?}: {:?}",
                self.an_open_one()
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn an_open_one(&self) -> Option<&FireView> {
        self.fires.values().find(|fire| !is_final(fire))
    }

    async fn take_job(&mut self, api: &Api, job: &Job) -> Result<usize> {
        let settled = self.settled.get(&job.id).copied().unwrap_or(i64::MIN);
        let fires = fires_after(api, job.id, settled).await?;
        let open = fires.iter().filter(|fire| !is_final(fire)).map(|fire| fire.scheduled_at.0).min();
        let newest = fires.iter().map(|fire| fire.scheduled_at.0).max().unwrap_or(settled);
        let count = fires.iter().filter(|fire| !is_final(fire)).count();
        let mut in_this_answer = std::collections::BTreeSet::new();
        for fire in fires {
            if !in_this_answer.insert(fire.id.clone()) {
                self.doubles.push(fire);
                continue;
            }
            if job.kind == Kind::Command && is_final(&fire) && !self.runs.contains_key(&fire.id) {
                self.runs.insert(fire.id.clone(), runs_of(api, &fire).await?);
            }
            self.fires.insert(fire.id.clone(), fire);
        }
        self.settled.insert(job.id, open.map_or(newest, |open| open - 1));
        Ok(count)
    }

    /// All fires that were taken.
    pub fn fires(&self) -> impl Iterator<Item = &FireView> {
        self.fires.values().chain(&self.doubles)
    }

    /// Takes the record file of each agent. To be called once, at the end.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn take_records(&mut self, agents: &[Seat]) -> Result<()> {
        for agent in agents {
            let path = agent.node.dir().join("lib-novacron/agent/attempts/record.log");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            self.records.extend(text.lines().map(record).collect::<Result<Vec<_>>>()?);
        }
        Ok(())
    }

    /// All that attempts printed or recorded.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().flatten().chain(&self.records)
    }
}

fn is_final(fire: &FireView) -> bool {
    matches!(fire.state, FireState::Succeeded | FireState::Failed | FireState::Cancelled)
}

/// The job's fires after an instant; the API gives the newest first.
async fn fires_after(api: &Api, job: JobId, after: i64) -> Result<Vec<FireView>> {
    let mut fires = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/jobs/{job}/fires?limit=1000{cursor}");
        let page: Page<FireView> = api.insist(Method::GET, &path, None, LIMIT).await?.into()?;
        let enough = page.items.iter().any(|fire| fire.scheduled_at.0 <= after);
        fires.extend(page.items.into_iter().filter(|fire| fire.scheduled_at.0 > after));
        match page.next_cursor {
            Some(next) if !enough => cursor = format!("&cursor={next}"),
            _ => return Ok(fires),
        }
    }
}

async fn runs_of(api: &Api, fire: &FireView) -> Result<Vec<Run>> {
    let path = format!("/api/v1/jobs/{}/fires/{}", fire.job, fire.id);
    let whole: FireView = api.insist(Method::GET, &path, None, LIMIT).await?.into()?;
    let printed = whole.attempts.iter().filter_map(|attempt| attempt.output.as_deref());
    printed.map(runs_in).collect::<Result<Vec<_>>>().map(|runs| runs.concat())
}

/// Reads a line of a record file: `FIRE ATTEMPT EPOCH SCHEDULED_AT WRITTEN_AT`.
fn record(line: &str) -> Result<Run> {
    let [fire, attempt, epoch, _, at] = line.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not a line of a record file: {line:?}");
    };
    let at = at.parse().with_context(|| format!("no time in {line:?}"))?;
    let (fire, attempt, epoch) = (fire.parse()?, attempt.parse()?, epoch.parse()?);
    Ok(Run { fire, attempt, epoch, began: at, ended: Some(at) })
}

/// Reads lines `run FIRE ATTEMPT EPOCH MILLISECONDS` and `end …`.
///
/// # Errors
/// When a line is something else.
pub fn runs_in(printed: &str) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for line in printed.lines() {
        let [word, fire, attempt, epoch, at] = line.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("not a line of ours: {line:?}");
        };
        let (fire, attempt, epoch) = (fire.parse::<FireKey>()?, attempt.parse()?, epoch.parse()?);
        let at: i64 = at.parse().with_context(|| format!("no time in {line:?}"))?;
        let same = |run: &&mut Run| (run.fire, run.attempt, run.epoch) == (fire, attempt, epoch);
        match word {
            "run" => runs.push(Run { fire, attempt, epoch, began: at, ended: None }),
            "end" => runs.iter_mut().find(same).context("an end without a beginning")?.ended = Some(at),
            _ => anyhow::bail!("not a line of ours: {line:?}"),
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::ids::FireCause;
    use novacron_common::units::UnixMillis;

    #[test]
    fn what_attempts_print_is_read() {
        let fire =
            FireKey { job: JobId::from_u128(3), scheduled_at: UnixMillis(7000), cause: FireCause::Schedule };
        let text = format!("run {fire} 1 4 7010\nend {fire} 1 4 7210\nrun {fire} 2 5 9000\n");
        let run = |attempt, epoch, began, ended| Run { fire, attempt, epoch, began, ended };
        assert_eq!(runs_in(&text).unwrap(), [run(1, 4, 7010, Some(7210)), run(2, 5, 9000, None)]);
        let line = format!("{fire} 2 5 7000 9100");
        assert_eq!(record(&line).unwrap(), run(2, 5, 9100, Some(9100)));
        assert!(record("torn li").is_err());
        assert!(runs_in("sh: date: not found").is_err());
        assert!(runs_in(&format!("end {fire} 1 4 7210")).is_err());
    }
}
