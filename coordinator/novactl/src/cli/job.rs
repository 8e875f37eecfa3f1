//! `novactl job …`

use super::{parse_word, vm::parse_size_mb};
use clap::{Args, Subcommand};
use novacron_common::{
    api::{ConcurrencyBody, JobStatus, MisfirePolicyBody},
    spec::{Fold, Gap, OnLeaseLost},
};
use serde::de::DeserializeOwned;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  novactl job create nightly --schedule '0 2 * * *' --timezone Europe/Berlin -- /usr/bin/backup --all
  novactl job create ping --schedule '@every 90s' --http GET https://example.org/health --retries 3 --backoff 5s
  novactl job create reboot --schedule '0 4 * * SUN' --vm web-1 --verb restart --concurrency forbid
  novactl job create dump --schedule '@hourly' --in-vm db-1 -- /usr/local/bin/dump --all
  novactl job create -f job.json                  the body of POST /api/v1/jobs; `-` is standard input

What the policies mean, with their defaults: coordinator/JOBS.md.";

#[derive(Debug, Subcommand)]
pub enum JobVerb {
    /// Make a job; what follows `--` is its command.
    Create(Box<JobCreateArgs>),
    /// List jobs.
    #[command(visible_alias = "ls")]
    List {
        /// Only those with this label.
        #[arg(long, value_name = "KEY=VALUE", value_parser = parse_pair)]
        label: Option<(String, String)>,
        /// Only those that are active, paused, finished or deleting.
        #[arg(long, value_parser = parse_word::<JobStatus>)]
        status: Option<JobStatus>,
    },
    /// Show one, with all its policies.
    Show(JobName),
    /// Change some of it; what is not given stays.
    Update(Box<JobUpdateArgs>),
    /// Keep it from firing. Ticks until it is resumed are on its ledger as skipped; what runs goes on.
    #[command(visible_alias = "disable")]
    Pause(JobName),
    /// Let it fire again, from its next tick on.
    #[command(visible_alias = "enable")]
    Resume(JobName),
    /// Remove it, with its record of fires; what runs of it is ended.
    #[command(visible_alias = "rm")]
    Delete(JobName),
    /// Fire it now, beside its schedule, even if it is paused.
    Execute(JobName),
    /// When it is due next. `gap` marks a run that stands in for a time that the clock leaves out, `fold` a time of
    /// day that the clock shows twice.
    Next {
        /// The job's name or id.
        job: String,
        /// How many, 1 to 1000.
        #[arg(short, default_value_t = 20)]
        n: u32,
    },
    /// Every tick and what became of it, the newest first: fired, skipped or missed, and why.
    Ledger {
        /// The job's name or id.
        job: String,
        /// How many lines, 1 to 1000.
        #[arg(short, default_value_t = 100)]
        n: u32,
    },
    /// What its fires did.
    Fires(JobName),
    /// End a fire: at once if it waits, else by killing its attempt.
    #[command(override_usage = "novactl job cancel [OPTIONS] [JOB] <FIRE>")]
    Cancel {
        /// The job's name or id; may be left out, because a fire's id holds it.
        #[arg(value_names = ["JOB", "FIRE"], num_args = 1..=2, required = true)]
        names: Vec<String>,
    },
    /// What a fire's command printed.
    Logs(JobLogsArgs),
}

#[derive(Debug, Args)]
pub struct JobLogsArgs {
    /// The job's name or id.
    pub job: String,
    /// Which fire, as `novactl job fires` shows it; the newest that has an attempt if absent.
    #[arg(long)]
    pub fire: Option<String>,
    /// Which try, from 1; the last if absent.
    #[arg(long)]
    pub attempt: Option<u32>,
    /// Go on until the attempt has ended.
    #[arg(long, short)]
    pub follow: bool,
}

#[derive(Debug, Args)]
pub struct JobName {
    /// The job's name or id.
    pub job: String,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct JobCreateArgs {
    /// Its name.
    #[arg(required_unless_present = "file")]
    pub name: Option<String>,
    /// A cron expression (5 fields, 6 with seconds first), @hourly … @yearly, or "@every 90s".
    #[arg(long, required_unless_present = "file")]
    pub schedule: Option<String>,
    /// All of it from a JSON file: the body of `POST /api/v1/jobs`; `-` is standard input.
    #[arg(long, short, conflicts_with_all = ["name", "schedule", "PolicyOptions", "TargetOptions"])]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub policies: PolicyOptions,
    #[command(flatten)]
    pub target: TargetOptions,
}

#[derive(Debug, Args)]
pub struct JobUpdateArgs {
    /// The job's name or id.
    pub job: String,
    /// A new name.
    #[arg(long)]
    pub name: Option<String>,
    /// Another cron expression.
    #[arg(long)]
    pub schedule: Option<String>,
    #[command(flatten)]
    pub policies: PolicyOptions,
    #[command(flatten)]
    pub target: TargetOptions,
}

/// When it is tried, tried again and left alone. Lengths of time are written 500ms, 30s, 5m, 2h or 7d.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Policies")]
pub struct PolicyOptions {
    /// An IANA time zone [default: UTC].
    #[arg(long)]
    pub timezone: Option<String>,
    /// For times that the clock leaves out: run_at_gap_end (default), run_before or skip.
    #[arg(long, value_parser = parse_name::<Gap>)]
    pub dst_gap: Option<Gap>,
    /// For times that the clock shows twice: first (default), second or both.
    #[arg(long, value_parser = parse_name::<Fold>)]
    pub dst_fold: Option<Fold>,
    /// Ends an attempt [default: 1h; at most 7d].
    #[arg(long)]
    pub timeout: Option<String>,
    /// 0 to 9; the higher goes first where attempts have to wait [default: 5].
    #[arg(long)]
    pub priority: Option<u8>,
    /// While another fire has not ended: allow (default), forbid, replace (cancel the earlier one), or queue:N (at
    /// most N wait).
    #[arg(long, value_parser = parse_concurrency)]
    pub concurrency: Option<ConcurrencyBody>,
    /// Ticks that nobody was there to commit in time: none (missed), last (default: the last of them is fired late)
    /// or all.
    #[arg(long, value_parser = parse_name::<MisfirePolicyBody>)]
    pub misfire: Option<MisfirePolicyBody>,
    /// Most late fires at once for `--misfire all` [default: 100].
    #[arg(long)]
    pub misfire_max: Option<u32>,
    /// Ticks older than this are missed in any case [default: none is too old].
    #[arg(long)]
    pub misfire_window: Option<String>,
    /// A fire that has not started this long after its instant is missed; 0s: never [default: never].
    #[arg(long)]
    pub start_deadline: Option<String>,
    /// Each fire starts up to this much later than its instant [default: 0s].
    #[arg(long)]
    pub jitter: Option<String>,
    /// Raise an alarm for a fire that has not succeeded this long after its instant; 0s: never [default: never].
    #[arg(long)]
    pub expected_by: Option<String>,
    /// Tries after the first, 0 to 100 [default: 0].
    #[arg(long, visible_alias = "max-retries")]
    pub retries: Option<u32>,
    /// The wait after the first failed try [default: 1s].
    #[arg(long)]
    pub backoff: Option<String>,
    /// The longest wait [default: 5m].
    #[arg(long)]
    pub backoff_max: Option<String>,
    /// What each wait is of the one before, in percent [default: 200, it doubles].
    #[arg(long, value_name = "PERCENT")]
    pub backoff_factor: Option<u32>,
    /// How far a wait may be from the computed one, in percent [default: 10].
    #[arg(long, value_name = "PERCENT")]
    pub backoff_jitter: Option<u32>,
    /// Only after these: exit (any code but 0), exit:75, signal, timeout, lost-host, failed-start [default: all].
    #[arg(long, value_delimiter = ',', value_parser = parse_reason)]
    pub retry_on: Vec<RetryReason>,
    /// A try avoids the host of the one before, where there is another; `--other-host=false` takes it back.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub other_host: Option<bool>,
    /// What an attempt does that is cut off from every coordinator: keep (default) or kill.
    #[arg(long, value_parser = parse_name::<OnLeaseLost>)]
    pub on_lease_lost: Option<OnLeaseLost>,
    /// For people and filters; may be repeated. An update replaces all labels.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,
}

/// What it does: a command, a call, something done to a machine, or a line in a record. Nothing if absent.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Target")]
pub struct TargetOptions {
    /// Variables of the command; may be repeated.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "command")]
    pub env: Vec<(String, String)>,
    /// RAM of the command, such as 256M.
    #[arg(long, value_parser = parse_size_mb, requires = "command")]
    pub memory: Option<u64>,
    /// The root file system that the command sees, a folder below `jobs.roots` on its host [default: the host's own,
    /// read-only].
    #[arg(long, value_name = "NAME", requires = "command")]
    pub image: Option<String>,
    /// Where the command starts [default: /].
    #[arg(long, requires = "command")]
    pub working_dir: Option<String>,
    /// A file whose content the command reads from standard input, at most 16 KiB; `-` is standard input.
    #[arg(long, requires = "command")]
    pub stdin_file: Option<PathBuf>,
    /// A call over HTTP, made by a host's agent, such as: --http POST `https://example.org/hook`
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], conflicts_with_all = ["command", "vm", "record"])]
    pub http: Vec<String>,
    /// A header of the call, as NAME=VALUE; may be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_pair, requires = "http")]
    pub headers: Vec<(String, String)>,
    /// A file with the body of the call, at most 16 KiB; `-` is standard input.
    #[arg(long, requires = "http")]
    pub body_file: Option<PathBuf>,
    /// The answers that count as success, such as 204 or 200-299 [default: 200-299].
    #[arg(long, value_delimiter = ',', requires = "http")]
    pub expect: Vec<String>,
    /// Run the command inside this machine, through its guest agent, in place of a machine of its own.
    #[arg(long, value_name = "VM", requires = "command", conflicts_with_all = ["memory", "image"])]
    pub in_vm: Option<String>,
    /// A machine of the cluster, with `--verb`.
    #[arg(long, requires = "verb", conflicts_with_all = ["command", "record"])]
    pub vm: Option<String>,
    /// What is done to the machine: start, stop, restart or migrate.
    #[arg(long, requires = "vm")]
    pub verb: Option<String>,
    /// For stop: how long the guest has before it is switched off [default: 30s].
    #[arg(long, requires = "verb")]
    pub grace: Option<String>,
    /// For migrate: the target host [default: the placement decides].
    #[arg(long, requires = "verb")]
    pub to: Option<String>,
    /// For migrate: stop it, move it and start it, in place of moving it running.
    #[arg(long, requires = "verb")]
    pub offline: bool,
    /// One line in the record file of the agent that runs it.
    #[arg(long, conflicts_with = "command")]
    pub record: bool,
    /// The command and its arguments; no shell is added.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// An end of an attempt that is worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// Any exit code but 0.
    Exit,
    /// This one.
    ExitCode(i32),
    /// A signal, or too little memory.
    Signal,
    /// Its time was up.
    Timeout,
    /// Its host was lost.
    LostHost,
    /// It never started.
    FailedStart,
}

/// A policy by the name that the API has for it; a dash does for an underscore.
fn parse_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    parse_word(&text.replace('-', "_"))
}

pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    split.map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?}: write NAME=VALUE"))
}

fn parse_concurrency(text: &str) -> Result<ConcurrencyBody, String> {
    let wrong = || format!("{text:?} is none of allow, forbid, replace and queue:N, such as queue:10");
    match text.split_once(':') {
        Some(("queue", max)) => Ok(ConcurrencyBody::Queue { max: max.parse().map_err(|_| wrong())? }),
        Some(_) => Err(wrong()),
        None => parse_word(text).map_err(|_| wrong()),
    }
}

fn parse_reason(text: &str) -> Result<RetryReason, String> {
    let wrong =
        || format!("{text:?} is none of exit, exit:CODE, signal, timeout, lost-host and failed-start");
    match text.split_once(':') {
        Some(("exit", code)) => code.parse().map(RetryReason::ExitCode).map_err(|_| wrong()),
        Some(_) => Err(wrong()),
        None => match text {
            "exit" => Ok(RetryReason::Exit),
            "signal" => Ok(RetryReason::Signal),
            "timeout" => Ok(RetryReason::Timeout),
            "lost-host" | "lost_host" => Ok(RetryReason::LostHost),
            "failed-start" | "failed_start" => Ok(RetryReason::FailedStart),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_by_name_and_bad_ones_are_told_what_there_is() {
        assert_eq!(parse_concurrency("queue:7"), Ok(ConcurrencyBody::Queue { max: 7 }));
        assert_eq!(parse_concurrency("forbid"), Ok(ConcurrencyBody::Forbid));
        for bad in ["queue", "queue:", "queue:x", "forbid:1", "", "serial"] {
            assert!(parse_concurrency(bad).unwrap_err().contains("queue:N"), "{bad}");
        }
        assert_eq!(parse_reason("exit:75"), Ok(RetryReason::ExitCode(75)));
        assert_eq!(parse_reason("lost-host"), Ok(RetryReason::LostHost));
        for bad in ["exit:", "exit:many", "signal:9", "rain"] {
            assert!(parse_reason(bad).unwrap_err().contains("failed-start"), "{bad}");
        }
        assert_eq!(parse_name("run-before"), Ok(Gap::RunBefore));
        assert!(parse_name::<OnLeaseLost>("die").unwrap_err().contains("kill"));
        assert!(parse_pair("=x").is_err() && parse_pair("x").is_err());
    }
}
