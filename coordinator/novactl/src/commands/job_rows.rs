//! How jobs, their fires and their ticks look in a table.

use crate::output::{self, Row, word};
use novacron_common::api::{
    ConcurrencyBody, FireView, JobTargetBody, JobView, LedgerEntry, LedgerTotals, MisfirePolicyBody, Period,
    PreviewTick,
};

impl Row for JobView {
    const TITLES: &'static [&'static str] =
        &["name", "schedule", "zone", "status", "next", "fires", "failed", "id"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.schedule.clone(),
            self.timezone.clone(),
            word(&self.status),
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

impl Row for PreviewTick {
    const TITLES: &'static [&'static str] = &["at", "local", "transition"];
    fn cells(&self) -> Vec<String> {
        let transition = self.transition.as_ref().map(word).unwrap_or_default();
        vec![output::time(Some(self.at)), self.local.clone(), transition]
    }
}

impl Row for LedgerEntry {
    const TITLES: &'static [&'static str] = &["from", "until", "ticks", "fate", "fire", "late", "reason"];
    fn cells(&self) -> Vec<String> {
        vec![
            output::time(Some(self.from)),
            if self.until == self.from { "-".into() } else { output::time(Some(self.until)) },
            self.count.to_string(),
            word(&self.tick),
            self.fire.as_ref().map(word).unwrap_or_default(),
            format!("{} ms", self.late_ms),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

/// What was before all that is told apart, if anything was.
pub fn older(totals: &LedgerTotals) -> Option<String> {
    let all = totals.succeeded + totals.failed + totals.skipped + totals.missed;
    (all > 0).then(|| {
        format!(
            "before: {} succeeded, {} failed, {} skipped, {} missed, from {} to {}",
            totals.succeeded,
            totals.failed,
            totals.skipped,
            totals.missed,
            output::time(totals.from),
            output::time(totals.until)
        )
    })
}

/// What a job has beside its row. What is empty is not shown.
pub fn details(job: &JobView) -> Vec<(&'static str, String)> {
    let labels: Vec<_> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let counted = |n: u64| if n > 0 { n.to_string() } else { String::new() };
    vec![
        ("does", does(&job.target)),
        ("labels", labels.join(" ")),
        ("priority", job.priority.to_string()),
        ("timeout", ms(job.timeout)),
        ("clock", format!("gap {}, fold {}", word(&job.dst.gap), word(&job.dst.fold))),
        ("misfire", misfire(job)),
        ("concurrency", concurrency(job.concurrency)),
        ("start deadline", job.start_deadline.map(ms).unwrap_or_default()),
        ("jitter", if job.jitter > 0 { ms(job.jitter) } else { String::new() }),
        ("retries", retries(job)),
        ("lease lost", word(&job.on_lease_lost)),
        ("expected by", job.expected_by.map(ms).unwrap_or_default()),
        ("succeeded", job.succeeded.to_string()),
        ("skipped", counted(job.skipped)),
        ("missed", counted(job.missed)),
        ("overdue", counted(job.overdue)),
        ("alarm since", job.overdue_since.map(|since| since.rfc3339()).unwrap_or_default()),
        ("last", output::time(job.last_fire_at)),
    ]
}

fn does(target: &JobTargetBody) -> String {
    match target {
        JobTargetBody::Noop => "nothing".to_owned(),
        JobTargetBody::Record => "one line in its agent's record file".to_owned(),
        JobTargetBody::Command(c) => c.command.join(" "),
        JobTargetBody::VmCommand(c) => format!("in {}: {}", c.vm, c.command.join(" ")),
        JobTargetBody::Vm(v) => format!("{} {}", v.verb, v.vm),
        JobTargetBody::Http(h) => format!("{} {}", word(&h.method), h.url),
    }
}

/// The largest unit in which it is a whole number.
fn ms(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let fits = units.iter().find(|(size, _)| ms > 0 && ms.is_multiple_of(*size));
    fits.map_or_else(|| format!("{ms}ms"), |(size, unit)| format!("{}{unit}", ms / size))
}

fn period(period: &Period) -> String {
    match period {
        Period::Millis(given) => ms(*given),
        Period::Text(text) => text.clone(),
    }
}

fn misfire(job: &JobView) -> String {
    let window = job.misfire.window.as_ref().map(|w| format!(", none older than {}", period(w)));
    let max = match (job.misfire.policy, job.misfire.max) {
        (MisfirePolicyBody::All, Some(max)) => format!(", at most {max}"),
        _ => String::new(),
    };
    format!("{}{max}{}", word(&job.misfire.policy), window.unwrap_or_default())
}

fn concurrency(concurrency: ConcurrencyBody) -> String {
    match concurrency {
        ConcurrencyBody::Allow => "allow".into(),
        ConcurrencyBody::Forbid => "forbid".into(),
        ConcurrencyBody::Replace => "replace".into(),
        ConcurrencyBody::Queue { max } => format!("queue:{max}"),
    }
}

fn retries(job: &JobView) -> String {
    let backoff = job.retry.backoff.as_ref().filter(|_| job.max_retries > 0);
    let initial =
        backoff.and_then(|b| b.initial.as_ref()).map(|i| format!(", the first after {}", period(i)));
    let host =
        if job.max_retries > 0 && job.retry.other_host == Some(true) { ", on another host" } else { "" };
    format!("{}{}{host}", job.max_retries, initial.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #[test]
    fn lengths_of_time_are_shown_in_their_largest_whole_unit() {
        for (given, shown) in
            [(0, "0ms"), (250, "250ms"), (90_000, "90s"), (3_600_000, "1h"), (172_800_000, "2d")]
        {
            assert_eq!(super::ms(given), shown);
        }
    }
}
