//! A coordinator that is cut off from the others, but not from clients: by default it answers 503 and nothing old; asked
//! for a stale read it answers, says how old that may be, and the linearizability check sees it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_common::api::JobView;
use novacron_tests::ledger::api::Api;
use novacron_tests::ledger::faults::{Fault, Step, Way};
use novacron_tests::ledger::history::{Action, History, Op};
use novacron_tests::ledger::trio::{Trio, TrioOptions};
use novacron_tests::ledger::{linear, registers};
use novacron_tests::require;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

const CUT: Step = Step { fault: Fault::CutFollower(Way::Both), hold: Duration::ZERO, pick: 0 };
const HEAL_LIMIT: Duration = Duration::from_secs(120);
const WRITTEN: u64 = 77;

/// One register and what was done to it.
struct Recorder<'a> {
    api: &'a Api,
    path: String,
    began: Instant,
    ops: Vec<Op>,
}

impl Recorder<'_> {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Writes through a coordinator that has a quorum.
    async fn write(&mut self, server: usize, value: u64) -> Result<()> {
        let asked = self.now();
        let answer =
            self.api.send(server, Method::PUT, &self.path, Some(&json!({ "timeout": value }))).await?;
        answer.into::<JobView>()?;
        self.ops.push(Op { action: Action::Write(value), asked, answered: Some(self.now()) });
        Ok(())
    }

    async fn read(&mut self, server: usize, query: &str) -> Result<u64> {
        let asked = self.now();
        let view: JobView = self.api.get(server, &format!("{}{query}", self.path)).await?;
        self.ops.push(Op { action: Action::Read(view.timeout), asked, answered: Some(self.now()) });
        Ok(view.timeout)
    }
}

#[test]
fn a_minority_answers_only_stale_reads_and_the_check_sees_them() -> Result<()> {
    require!(root, iptables);
    let mut options = TrioOptions::new("stale");
    options.agents = 0;
    let mut trio = Trio::start(&options)?;
    let register = trio.reach.on_api(async |api| registers::make(api, 1).await)?[0];
    let path = format!("/api/v1/jobs/{register}");
    let held = CUT.begin(&mut trio.seats, &trio.reach)?;
    let cut = held.coordinator().context("a follower is a coordinator")?;
    let (stale, fresh) = trio.reach.on_api(async |api| while_cut(api, &path, cut).await)?;
    held.end(&mut trio.seats)?;
    trio.reach.wait_until_well(HEAL_LIMIT)?;
    ensure!(linear::check(&fresh).is_ok(), "what was not stale was not linearizable: {fresh:?}");
    ensure!(linear::check(&stale).is_err(), "a stale read was taken for a true one: {stale:?}");
    trio.reach.on_api(async |api| {
        let view: JobView = api.get(cut, &path).await?;
        ensure!(view.timeout == WRITTEN, "healed, it still answers {}", view.timeout);
        Ok(())
    })
}

/// The history with the stale read, and the one without.
async fn while_cut(api: &Api, path: &str, cut: usize) -> Result<(History, History)> {
    let mut recorder = Recorder { api, path: path.to_owned(), began: Instant::now(), ops: Vec::new() };
    let quorum = (cut + 1) % api.servers();
    let initial = recorder.read(quorum, "").await?;
    recorder.write(quorum, WRITTEN).await?;
    ensure!(recorder.read(quorum, "").await? == WRITTEN, "the majority does not read its own write");
    let refused = api.send(cut, Method::GET, path, None).await?;
    ensure!(refused.status == 503, "the minority answered {refused:?}");
    let fresh = History { initial, ops: recorder.ops.clone() };
    ensure!(recorder.read(cut, "?stale=true").await? == initial, "a stale read that is not stale");
    Ok((History { initial, ops: recorder.ops }, fresh))
}
