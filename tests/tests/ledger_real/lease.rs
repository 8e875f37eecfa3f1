//! A job with `on_lease_lost: kill` whose agent is stopped beyond the lease, with a real agent and real coordinators:
//! its supervisor kills it, and the retry begins on another host only when lease and margin are over. What it prints
//! is seen while it runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use novacron_agent::hypervisor::namespace::{folder::Folder, lease::BootTime};
use novacron_common::api::{ExecuteAccepted, FireState, FireView, HostView, JobView, Page};
use novacron_common::ids::{AttemptKey, FireKey};
use novacron_common::record::AttemptOutcome;
use novacron_tests::bins;
use novacron_tests::lab::Process;
use novacron_tests::ledger::trio::{Trio, TrioOptions};
use novacron_tests::require;
use reqwest::Method;
use serde_json::json;

/// The shortest that coordinators take.
const LEASE_SECONDS: u32 = 5;
/// What JOBS.md promises between the end of a lease and the next try: 5 % and 2 s.
const MARGIN_MS: i64 = LEASE_SECONDS as i64 * 1000 / 20 + 2000;
/// Two clocks are read one after the other, in whole milliseconds.
const READING_MS: i64 = 10;
const LIMIT: Duration = Duration::from_secs(120);
/// The first try goes on for ever, the second is short.
const SCRIPT: &str = "[ $NOVACRON_ATTEMPT = 1 ] || exec echo again; while :; do echo tick; sleep 0.2; done";

#[test]
fn an_attempt_of_a_stopped_agent_is_killed_before_another_host_begins_it_anew() -> Result<()> {
    require!(root, iptables);
    let mut options = TrioOptions::new("lease");
    options.agents = 2;
    options.lease_seconds = Some(LEASE_SECONDS);
    let mut trio = Trio::start(&options)?;
    let outcome = told(&mut trio);
    outcome.map_err(|fault| anyhow!("{fault:?}\n{}", trio.seats.last_words(40)))
}

fn told(trio: &mut Trio) -> Result<()> {
    let fire = begin(trio)?;
    let running = until(trio, &fire, "it runs", |fire| {
        fire.attempts.first().is_some_and(|attempt| attempt.started_at.is_some())
    })?;
    let follower = see_what_it_prints(trio, &fire)?;

    let seat = seat_of(trio, &running)?;
    trio.seats.agents[seat].program.process()?.kill(Signal::SIGSTOP)?;
    let done = until(trio, &fire, "the second try is done", |fire| fire.state == FireState::Succeeded)?;
    let [first, second] = &done.attempts[..] else { anyhow::bail!("two tries were expected: {done:?}") };
    ensure!(first.host != second.host, "the stopped host began it: {done:?}");
    let began = second.started_at.context("when the second try began")?.0;

    // What the stopped agent's supervisor did, in its own words, before the agent can say anything about it.
    let dir = trio.seats.agents[seat].node.dir().join("lib-novacron/agent/attempts");
    let key = AttemptKey { fire: fire.parse::<FireKey>()?, number: first.number };
    let folder = Folder::at(dir.join(key.to_string()));
    let over = wall_ms(folder.lease()?.context("its lease")?);
    let end = folder.outcome()?.context("its end")?;
    println!(
        "lease over at {over}, killed {} ms later, begun anew {} ms later",
        end.ended_at.0 - over,
        began - over
    );
    ensure!(end.outcome == AttemptOutcome::LeaseLost, "{end:?}");
    ensure!(end.ended_at.0 >= over - READING_MS, "it was killed before its lease was over");
    ensure!(began >= over + MARGIN_MS - READING_MS, "begun {} ms after the lease", began - over);
    ensure!(began >= end.ended_at.0, "two ran at a time");

    trio.seats.agents[seat].program.process()?.kill(Signal::SIGCONT)?;
    trio.reach.wait_until_well(LIMIT)?;
    until(trio, &fire, "nothing changes that any more", |fire| {
        fire.state == FireState::Succeeded && fire.attempts.len() == 2
    })?;
    drop(follower);
    let printed = novactl(trio, &["job", "logs", "loop"])?;
    ensure!(printed.wait_for(LIMIT).is_some_and(|status| status.success()), "{}", printed.printed());
    ensure!(printed.printed() == "again\n", "{}", printed.printed());
    Ok(())
}

/// Makes the job and fires it; the fire.
fn begin(trio: &Trio) -> Result<String> {
    let job = json!({
        "name": "loop", "schedule": "@yearly", "on_lease_lost": "kill", "max_retries": 1, "timeout": "10m",
        "target": {"type": "command", "command": ["/bin/sh", "-c", SCRIPT]},
    });
    trio.reach.on_api(async |api| {
        api.send(0, Method::POST, "/api/v1/jobs", Some(&job)).await?.into::<JobView>()?;
        let answer = api.send(1, Method::POST, "/api/v1/jobs/loop/execute", None).await?;
        Ok(answer.into::<ExecuteAccepted>()?.fire)
    })
}

/// Waits until the fire is so.
fn until(
    trio: &Trio,
    fire: &str,
    what: &str,
    so: impl Fn(&FireView) -> bool + Send + Sync,
) -> Result<FireView> {
    let path = format!("/api/v1/jobs/loop/fires/{fire}");
    let look = async |api: &novacron_tests::ledger::api::Api| -> Result<FireView> {
        api.insist(Method::GET, &path, None, LIMIT).await?.into()
    };
    let reached = trio.reach.wait_until(LIMIT, what, async |api| Ok(so(&look(api).await?)));
    let now = trio.reach.on_api(look)?;
    reached.with_context(|| format!("{now:?}"))?;
    Ok(now)
}

fn novactl(trio: &Trio, words: &[&str]) -> Result<Process> {
    let env = trio.reach.novactl_env(2)?;
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    trio.reach.lab.outside().spawn(bins::path("novactl")?, words, &env)
}

/// `novactl job logs --follow` shows lines of an attempt that has not ended.
fn see_what_it_prints(trio: &Trio, fire: &str) -> Result<Process> {
    let follower = novactl(trio, &["job", "logs", "loop", "--follow"])?;
    let shown = || follower.printed().lines().filter(|line| *line == "tick").count();
    let first = shown();
    trio.reach.wait_until(LIMIT, "more and more is shown", async |_| Ok(shown() >= first + 5))?;
    ensure!(follower.ended().is_none(), "it does not follow: {}", follower.printed());
    until(trio, fire, "it runs while it is shown", |fire| fire.state == FireState::Running)?;
    Ok(follower)
}

/// Which agent runs the fire's first try.
fn seat_of(trio: &Trio, fire: &FireView) -> Result<usize> {
    let host = fire.attempts[0].host;
    let hosts: Page<HostView> = trio.reach.on_api(async |api| api.get(0, "/api/v1/hosts").await)?;
    let host = hosts.items.iter().find(|one| Some(one.id) == host).context("the host of the first try")?;
    let seat = trio.seats.agents.iter().position(|seat| seat.node.name() == host.name);
    seat.with_context(|| format!("there is no agent {}", host.name))
}

/// An instant of the boot clock on the wall clock, Unix milliseconds. Nobody sets the wall clock meanwhile.
fn wall_ms(at: BootTime) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let left = |from: u64, to: u64| i64::try_from(to.saturating_sub(from)).unwrap_or(i64::MAX);
    let now = BootTime::now();
    wall + left(now.0, at.0) - left(at.0, now.0)
}
