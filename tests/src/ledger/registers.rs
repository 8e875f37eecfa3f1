//! Clients that write and read a few registers through all coordinators, while faults are done to these. A register is
//! the time-out of a job that never fires: a number that any client may set and read over the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use novacron_common::api::JobView;
use novacron_common::ids::JobId;
use novacron_common::splitmix::SplitMix64;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::api::Api;
use super::history::{Action, History, OPS_MAX, Op};

/// How long the API may take to make a register.
const LIMIT: Duration = Duration::from_secs(60);
/// The value at the beginning; clients write larger ones.
const INITIAL: u64 = 1;

/// How the registers are used.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Registers.
    pub registers: usize,
    /// Clients, each doing one thing at a time.
    pub clients: usize,
    /// Pause of a client between two operations.
    pub pause: Duration,
}

/// Makes the registers.
///
/// # Errors
/// When the API refuses.
pub async fn make(api: &Api, count: usize) -> Result<Vec<JobId>> {
    let mut registers = Vec::new();
    for number in 0..count {
        let body = json!({
            "name": format!("register-{number}"), "schedule": "0 0 1 1 *", "enabled": false, "timeout": INITIAL,
        });
        let answer = api.insist(Method::POST, "/api/v1/jobs", Some(&body), LIMIT).await?;
        registers.push(answer.into::<JobView>().context("making a register")?.id);
    }
    Ok(registers)
}

/// Uses the registers until `stop`; each history ends at [`OPS_MAX`] operations.
///
/// # Errors
/// When an answer is none that the API documents.
pub async fn record(
    api: &Api,
    registers: &[JobId],
    load: Load,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Vec<History>> {
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    let stopped = Arc::new(AtomicBool::new(false));
    for number in 0..load.clients {
        let client = Client {
            api: api.clone(),
            registers: registers.to_vec(),
            chance: SplitMix64::new(seed.wrapping_add(number as u64)),
            began,
            // No two clients write the same value.
            next_value: INITIAL + 1 + number as u64,
            step: load.clients as u64,
            ops_each: OPS_MAX / load.clients,
        };
        clients.spawn(client.run(load.pause, stopped.clone()));
    }
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stopped.store(true, Ordering::Relaxed);
    let mut histories = vec![History { initial: INITIAL, ops: Vec::new() }; registers.len()];
    while let Some(done) = clients.join_next().await {
        for (register, op) in done.context("a client panicked")?? {
            histories[register].ops.push(op);
        }
    }
    Ok(histories)
}

struct Client {
    api: Api,
    registers: Vec<JobId>,
    chance: SplitMix64,
    began: Instant,
    next_value: u64,
    step: u64,
    /// Most operations on each register.
    ops_each: usize,
}

impl Client {
    async fn run(mut self, pause: Duration, stop: Arc<AtomicBool>) -> Result<Vec<(usize, Op)>> {
        let mut ops: Vec<(usize, Op)> = Vec::new();
        let mut counts = vec![0; self.registers.len()];
        while !stop.load(Ordering::Relaxed) {
            let register = self.chance.index(self.registers.len());
            if counts[register] < self.ops_each {
                counts[register] += 1;
                ops.extend(self.operate(register).await?.map(|op| (register, op)));
            }
            tokio::time::sleep(pause).await;
        }
        Ok(ops)
    }

    async fn operate(&mut self, register: usize) -> Result<Option<Op>> {
        let path = format!("/api/v1/jobs/{}", self.registers[register]);
        let server = self.chance.index(self.api.servers());
        if self.chance.index(2) == 0 {
            self.write(server, &path).await
        } else {
            self.read(server, &path).await
        }
    }

    async fn write(&mut self, server: usize, path: &str) -> Result<Option<Op>> {
        let value = self.next_value;
        self.next_value += self.step;
        let asked = self.now();
        let answer = self.api.send(server, Method::PUT, path, Some(&json!({ "timeout": value }))).await;
        let answered = match answer {
            Ok(answer) if answer.status == 200 => Some(self.now()),
            // No leader, leader lost, time-out, no connection: it may happen all the same.
            Ok(answer) if answer.status == 503 || answer.status == 409 => None,
            Err(_) => None,
            Ok(other) => anyhow::bail!("PUT {path}: {other:?}"),
        };
        Ok(Some(Op { action: Action::Write(value), asked, answered }))
    }

    async fn read(&mut self, server: usize, path: &str) -> Result<Option<Op>> {
        let asked = self.now();
        match self.api.send(server, Method::GET, path, None).await {
            Ok(answer) if answer.status == 200 => {
                let view: JobView = answer.into()?;
                Ok(Some(Op { action: Action::Read(view.timeout), asked, answered: Some(self.now()) }))
            }
            Ok(answer) if answer.status == 503 => Ok(None),
            Err(_) => Ok(None),
            Ok(other) => anyhow::bail!("GET {path}: {other:?}"),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
