//! From what a person typed to the body that the API takes.

use super::input;
use crate::{
    cli::{PolicyOptions, RetryReason, TargetOptions},
    error::CtlError,
};
use novacron_common::{
    api::{
        BackoffBody, CommandTargetBody, HttpBody, JobTargetBody, JobUpdate, JobView, MisfireBody, Period,
        RetryBody, RetryOnBody, StatusBody, VmCommandBody, VmVerbBody,
    },
    spec::Dst,
};
use std::collections::BTreeMap;

/// Policies of several parts. The API replaces them as a whole, so parts that are not typed come from the job.
#[derive(Debug, Default)]
pub struct Present {
    dst: Dst,
    misfire: MisfireBody,
    retry: RetryBody,
}

impl From<JobView> for Present {
    fn from(job: JobView) -> Self {
        Self { dst: job.dst, misfire: job.misfire, retry: job.retry }
    }
}

impl PolicyOptions {
    /// Whether [`Present`] matters.
    pub fn are_partial(&self) -> bool {
        self.changes_dst() || self.changes_misfire() || self.changes_retry()
    }

    fn changes_dst(&self) -> bool {
        self.dst_gap.is_some() || self.dst_fold.is_some()
    }

    fn changes_misfire(&self) -> bool {
        self.misfire.is_some() || self.misfire_max.is_some() || self.misfire_window.is_some()
    }

    fn changes_backoff(&self) -> bool {
        let lengths = [&self.backoff, &self.backoff_max].iter().any(|given| given.is_some());
        lengths || self.backoff_factor.is_some() || self.backoff_jitter.is_some()
    }

    fn changes_retry(&self) -> bool {
        self.changes_backoff() || !self.retry_on.is_empty() || self.other_host.is_some()
    }
}

/// The body with what was typed. A `JobCreate` differs from it in what must be there, and in nothing else.
pub fn body(policies: PolicyOptions, target: TargetOptions, present: Present) -> Result<JobUpdate, CtlError> {
    let (dst, misfire) = (policies.changes_dst(), policies.changes_misfire());
    Ok(JobUpdate {
        dst: dst.then(|| self::dst(&policies, present.dst)),
        misfire: misfire.then(|| self::misfire(&policies, present.misfire)),
        retry: policies.changes_retry().then(|| retry(&policies, present.retry)),
        max_retries: policies.retries,
        timezone: policies.timezone,
        priority: policies.priority,
        timeout: policies.timeout.map(Period::Text),
        start_deadline: policies.start_deadline.map(Period::Text),
        concurrency: policies.concurrency,
        jitter: policies.jitter.map(Period::Text),
        on_lease_lost: policies.on_lease_lost,
        expected_by: policies.expected_by.map(Period::Text),
        labels: Some(unique("--label", policies.labels)?).filter(|labels| !labels.is_empty()),
        target: self::target(target)?,
        ..JobUpdate::default()
    })
}

fn dst(given: &PolicyOptions, present: Dst) -> Dst {
    Dst { gap: given.dst_gap.unwrap_or(present.gap), fold: given.dst_fold.unwrap_or(present.fold) }
}

fn period(given: Option<&String>, present: Option<Period>) -> Option<Period> {
    given.cloned().map(Period::Text).or(present)
}

fn misfire(given: &PolicyOptions, present: MisfireBody) -> MisfireBody {
    MisfireBody {
        policy: given.misfire.unwrap_or(present.policy),
        max: given.misfire_max.or(present.max),
        window: period(given.misfire_window.as_ref(), present.window),
    }
}

/// Without `max_retries`, which the job keeps or `--retries` gives.
fn retry(given: &PolicyOptions, present: RetryBody) -> RetryBody {
    let old = present.backoff.unwrap_or_default();
    let backoff = BackoffBody {
        initial: period(given.backoff.as_ref(), old.initial),
        max: period(given.backoff_max.as_ref(), old.max),
        factor_percent: given.backoff_factor.or(old.factor_percent),
        jitter_percent: given.backoff_jitter.or(old.jitter_percent),
    };
    let reasons = Some(&given.retry_on).filter(|reasons| !reasons.is_empty());
    RetryBody {
        max_retries: None,
        backoff: Some(backoff),
        retry_on: reasons.map(|reasons| retry_on(reasons)).or(present.retry_on),
        other_host: given.other_host.or(present.other_host),
    }
}

fn retry_on(reasons: &[RetryReason]) -> RetryOnBody {
    let codes = reasons.iter().filter_map(|reason| match reason {
        RetryReason::ExitCode(code) => Some(*code),
        _ => None,
    });
    let is = |reason| Some(reasons.contains(&reason));
    RetryOnBody {
        // None is every code, an empty list is no code.
        exit_codes: (!reasons.contains(&RetryReason::Exit)).then(|| codes.collect()),
        signal: is(RetryReason::Signal),
        timeout: is(RetryReason::Timeout),
        lost_host: is(RetryReason::LostHost),
        failed_start: is(RetryReason::FailedStart),
    }
}

/// clap has seen to it that it is one target at most.
fn target(given: TargetOptions) -> Result<Option<JobTargetBody>, CtlError> {
    Ok(if let Some(vm) = given.in_vm {
        Some(JobTargetBody::VmCommand(VmCommandBody {
            vm,
            command: given.command,
            env: unique("--env", given.env)?,
            working_dir: given.working_dir,
            stdin: given.stdin_file.as_deref().map(input::text).transpose()?,
        }))
    } else if !given.command.is_empty() {
        Some(JobTargetBody::Command(CommandTargetBody {
            command: given.command,
            env: unique("--env", given.env)?,
            working_dir: given.working_dir,
            stdin: given.stdin_file.as_deref().map(input::text).transpose()?,
            memory_mb: given.memory,
            image: given.image,
            ..CommandTargetBody::default()
        }))
    } else if let [method, url] = given.http.as_slice() {
        let known = serde_json::from_value(method.to_uppercase().into());
        Some(JobTargetBody::Http(HttpBody {
            method: known.map_err(|e| CtlError::Settings(format!("--http {method}: {e}")))?,
            url: url.clone(),
            headers: unique("--header", given.headers)?,
            body: given.body_file.as_deref().map(input::text).transpose()?,
            expect: given.expect.into_iter().map(StatusBody::Range).collect(),
        }))
    } else if let (Some(vm), Some(verb)) = (given.vm, given.verb) {
        Some(JobTargetBody::Vm(VmVerbBody {
            vm,
            verb,
            grace: given.grace.map(Period::Text),
            target: given.to,
            live: given.offline.then_some(false),
        }))
    } else {
        given.record.then_some(JobTargetBody::Record)
    })
}

fn unique(option: &str, pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CtlError> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.contains_key(&key) {
            return Err(CtlError::Settings(format!("{option} {key} is there twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, JobVerb, Noun};
    use clap::Parser;
    use novacron_common::{
        api::{ConcurrencyBody, JobCreate},
        spec::{Concurrency, ExitCodes, JobSpec, JobTarget, VmVerb},
    };

    fn typed(line: &[&str]) -> Result<JobCreate, String> {
        let all = ["novactl", "job", "create", "a", "--schedule", "@daily"].iter().chain(line);
        let cli = Cli::try_parse_from(all).map_err(|error| error.to_string())?;
        let Noun::Job(JobVerb::Create(args)) = cli.noun else { return Err("another verb".into()) };
        let body = body(args.policies, args.target, Present::default()).map_err(|e| e.to_string())?;
        let body = JobUpdate { name: args.name, schedule: args.schedule, ..body };
        serde_json::from_value(serde_json::to_value(body).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_typed_becomes_the_job() {
        let line = "--concurrency queue:4 --retries 2 --backoff 5s --retry-on exit:75,lost-host --other-host \
                    --label team=db --dst-fold both --misfire all --misfire-max 9 --expected-by 2h -- /bin/true x";
        let line: Vec<_> = line.split_whitespace().collect();
        let spec = JobSpec::try_from(&typed(&line).unwrap()).unwrap();
        assert_eq!(spec.concurrency, Concurrency::Queue { max: 4 });
        assert_eq!((spec.retry.max_retries, spec.retry.backoff.initial_ms), (2, 5000));
        assert_eq!(spec.retry.retry_on.exit_codes, ExitCodes::List(vec![75]));
        let on = &spec.retry.retry_on;
        assert_eq!((on.lost_host, on.signal, on.timeout, on.failed_start), (true, false, false, false));
        assert!(spec.retry.other_host);
        assert_eq!((spec.misfire.max, spec.expected_by_ms), (9, Some(7_200_000)));
        assert_eq!(spec.labels["team"], "db");
        assert!(matches!(spec.target, JobTarget::Command(c) if c.program.argv == ["/bin/true", "x"]));
    }

    #[test]
    fn there_are_targets_beside_commands_and_one_at_a_time() {
        let spec = |line: &[&str]| JobSpec::try_from(&typed(line).unwrap()).unwrap().target;
        let moved = spec(&["--vm", "web-1", "--verb", "migrate", "--to", "h2", "--offline"]);
        let verb = VmVerb::Migrate { target: Some("h2".into()), live: false };
        assert!(matches!(moved, JobTarget::Vm(v) if v.verb == verb));
        let call = ["--http", "post", "https://example.org/x", "--header", "a=b", "--expect", "204,300-399"];
        assert!(matches!(spec(&call), JobTarget::Http(h) if h.expect.len() == 2 && h.headers.len() == 1));
        assert_eq!(spec(&["--record"]), JobTarget::Record);
        assert_eq!(spec(&[]), JobTarget::Noop);
        for bad in [
            &["--record", "--", "x"][..],
            &["--http", "GET", "https://example.org", "--vm", "a", "--verb", "stop"],
            &["--http", "FETCH", "https://example.org"],
            &["--vm", "a"],
            &["--env", "A=b"],
            &["--label", "a=1", "--label", "a=2"],
            &["-f", "x.json"],
        ] {
            assert!(typed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_stands_for_all_the_rest_and_neither_is_an_error() {
        assert!(Cli::try_parse_from(["novactl", "job", "create", "-f", "x.json"]).is_ok());
        assert!(Cli::try_parse_from(["novactl", "job", "create"]).is_err());
        for with in [["--retries", "1"], ["--vm", "a"]] {
            let line = ["novactl", "job", "create", "-f", "x.json"];
            assert!(Cli::try_parse_from(line.iter().chain(&with)).is_err(), "{with:?}");
        }
    }

    #[test]
    fn parts_of_a_policy_that_are_not_typed_stay() {
        let present = Present {
            retry: RetryBody {
                backoff: Some(BackoffBody { factor_percent: Some(300), ..BackoffBody::default() }),
                other_host: Some(true),
                ..RetryBody::default()
            },
            ..Present::default()
        };
        let policies = PolicyOptions { backoff: Some("7s".into()), ..PolicyOptions::default() };
        let new = body(policies, TargetOptions::default(), present).unwrap();
        let retry = new.retry.unwrap();
        let backoff = retry.backoff.unwrap();
        assert_eq!((backoff.initial, backoff.factor_percent), (Some(Period::Text("7s".into())), Some(300)));
        assert_eq!((retry.other_host, new.misfire, new.dst), (Some(true), None, None));
        let policies =
            PolicyOptions { concurrency: Some(ConcurrencyBody::Forbid), ..PolicyOptions::default() };
        assert!(!policies.are_partial());
    }
}
