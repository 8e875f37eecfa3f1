//! Three real coordinators and some real agents, each on a node of its own, started as an administrator would do it. The
//! agents run no libvirt: `[hypervisor] enabled = false`, as on a host that is for jobs only.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use novacron_common::api::{ClusterView, HostState, HostView, Page};
use serde_json::Value;

use super::api::Api;
use crate::bins;
use crate::cluster::{AGENT_PORT, API_PORT, COORDINATOR_PORT, Program};
use crate::lab::{Lab, Node};

const COORDINATOR_CONFIG: &str = "/etc/novacron/coordinator.toml";
const AGENT_CONFIG: &str = "/etc/novacron/agent.toml";
/// Dev builds on a machine that is busy with other tests.
const READY_LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How it is set up.
#[derive(Debug, Clone)]
pub struct TrioOptions {
    /// Name of the lab.
    pub name: String,
    /// How many coordinators: 1, 3 or 5.
    pub coordinators: usize,
    /// How many agents.
    pub agents: usize,
    /// Where each coordinator serves plain HTTP besides, on its own loopback; `None`: nowhere.
    pub plain_port: Option<u16>,
    /// How long the lease of an attempt lasts, seconds; `None`: as it ships.
    pub lease_seconds: Option<u32>,
    /// `[log] level` of all programs.
    pub log: String,
}

impl TrioOptions {
    /// Three coordinators and three agents.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            coordinators: 3,
            agents: 3,
            plain_port: None,
            lease_seconds: None,
            log: "info".to_owned(),
        }
    }
}

/// A program on its node.
pub struct Seat {
    // Before its node: killed first.
    /// The program.
    pub program: Program,
    /// Where it runs.
    pub node: Node,
}

impl Seat {
    /// Starts the program again after it was killed.
    ///
    /// # Errors
    /// When it runs.
    pub fn start(&mut self) -> Result<()> {
        self.program.start(&self.node)
    }
}

/// The programs.
#[derive(Default)]
pub struct Seats {
    /// The coordinators.
    pub coordinators: Vec<Seat>,
    /// The agents.
    pub agents: Vec<Seat>,
}

impl Seats {
    /// What each program printed last, for the message of a failed test.
    #[must_use]
    pub fn last_words(&self, lines: usize) -> String {
        let seats = self.coordinators.iter().chain(&self.agents);
        let words = |seat: &Seat| (seat.node.name().to_owned(), seat.program.last_lines(lines));
        seats.map(words).map(|(name, said)| format!("--- {name} said last:\n{said}\n")).collect()
    }
}

/// How clients in the outside node reach the API, whatever is done to the programs meanwhile.
pub struct Reach {
    /// Where each coordinator's API is.
    pub servers: Vec<String>,
    /// The API token that `init` printed.
    pub token: String,
    /// The cluster's CA certificate, DER.
    pub ca: Vec<u8>,
    /// How many agents there are.
    agents: usize,
    /// The lab below; its outside node is where clients are.
    pub lab: Lab,
}

/// All of it.
pub struct Trio {
    // Before the lab: killed first.
    /// The programs.
    pub seats: Seats,
    /// The way to them.
    pub reach: Reach,
}

impl Trio {
    /// Starts everything and waits until all coordinators vote and all agents are up.
    ///
    /// # Errors
    /// When a program fails or is not ready in time.
    pub fn start(options: &TrioOptions) -> Result<Self> {
        let mut lab = Lab::new(&options.name)?;
        let mut founder = coordinator(&mut lab, 1, options)?;
        let words = ["init", "--config", COORDINATOR_CONFIG];
        let said = founder.node.exec(&program("novacron-coordinator")?, &words)?;
        let token = said.lines().find_map(|line| line.trim().strip_prefix("token:"));
        let token = token.context("init printed no token")?.trim().to_owned();
        let ca = fs::read(founder.node.dir().join("lib-novacron/coordinator/identity/ca.der"))
            .context("reading the CA's certificate")?;
        founder.start()?;
        let servers = vec![api_of(&founder)];
        let seats = Seats { coordinators: vec![founder], agents: Vec::new() };
        let mut trio = Self { seats, reach: Reach { servers, token, ca, agents: 0, lab } };
        for number in 2..=options.coordinators {
            trio.join_coordinator(number, options)?;
        }
        for number in 1..=options.agents {
            trio.join_agent(number, options)?;
        }
        trio.reach.wait_until_well(READY_LIMIT).context("at the start")?;
        Ok(trio)
    }

    fn join_coordinator(&mut self, number: usize, options: &TrioOptions) -> Result<()> {
        let mut seat = coordinator(&mut self.reach.lab, number, options)?;
        let token = self.reach.join_token("coordinator")?;
        let words = ["join", "--config", COORDINATOR_CONFIG, "--token", &token];
        seat.node.exec(&program("novacron-coordinator")?, &words)?;
        seat.start()?;
        self.reach.servers.push(api_of(&seat));
        self.seats.coordinators.push(seat);
        let voters = self.seats.coordinators.len();
        self.reach.wait_until(READY_LIMIT, "the new coordinator votes", async |api| {
            let view: ClusterView = api.get(0, "/api/v1/cluster").await?;
            Ok(view.coordinators.iter().filter(|coordinator| coordinator.voter).count() == voters)
        })
    }

    fn join_agent(&mut self, number: usize, options: &TrioOptions) -> Result<()> {
        let mut seat = agent(&mut self.reach.lab, number, options)?;
        let token = self.reach.join_token("agent")?;
        let words = ["join", "--config", AGENT_CONFIG, "--token", &token];
        seat.node.exec(&program("novacron-agent")?, &words)?;
        seat.start()?;
        self.seats.agents.push(seat);
        self.reach.agents += 1;
        Ok(())
    }
}

impl Reach {
    fn join_token(&self, role: &str) -> Result<String> {
        let body = serde_json::json!({ "role": role });
        let path = "/api/v1/hosts/join-tokens";
        let answer: Value = self.on_api(async |api| {
            api.insist(reqwest::Method::POST, path, Some(&body), READY_LIMIT).await?.into()
        })?;
        Ok(answer["token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// Runs `work` with a client of all coordinators, on a runtime in the outside node's network.
    ///
    /// # Errors
    /// What `work` returns.
    pub fn on_api<T: Send>(&self, work: impl AsyncFnOnce(&Api) -> Result<T> + Send) -> Result<T> {
        self.lab.outside().on_network(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { work(&Api::new(self.servers.clone(), &self.token, &self.ca)?).await })
        })
    }

    /// What `novactl` in the outside node finds one coordinator by.
    ///
    /// # Errors
    /// When the coordinator does not answer.
    pub fn novactl_env(&self, server: usize) -> Result<[(&'static str, String); 3]> {
        let view: ClusterView = self.on_api(async |api| api.get(server, "/api/v1/cluster").await)?;
        Ok([
            ("NOVACTL_SERVER", self.servers[server].clone()),
            ("NOVACTL_TOKEN", self.token.clone()),
            ("NOVACTL_CA_FINGERPRINT", view.ca_fingerprint),
        ])
    }

    /// Asks again and again until the answer is yes.
    ///
    /// # Errors
    /// When it is not within `limit`; the error carries the last fault, if the question itself failed.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        question: impl AsyncFn(&Api) -> Result<bool> + Send + Sync,
    ) -> Result<()> {
        self.on_api(async |api| {
            let deadline = Instant::now() + limit;
            loop {
                let answer = question(api).await;
                if matches!(answer, Ok(true)) {
                    return Ok(());
                }
                if Instant::now() > deadline {
                    answer.with_context(|| format!("asking whether {what}"))?;
                    bail!("not within {limit:?}: {what}");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Waits until each coordinator answers a read that needs a quorum, and each agent is up.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn wait_until_well(&self, limit: Duration) -> Result<()> {
        self.wait_until(limit, "all coordinators serve and all agents are up", async |api| {
            for server in 0..api.servers() {
                let hosts: Page<HostView> = api.get(server, "/api/v1/hosts?limit=1000").await?;
                if hosts.items.iter().filter(|host| host.state == HostState::Up).count() != self.agents {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// The index of the coordinator that leads, waiting until one says so of itself.
    ///
    /// # Errors
    /// When none does in time.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            if let Some(leader) = self.on_api(async |api| Ok(leader(api).await))? {
                return Ok(leader);
            }
            ensure!(Instant::now() < deadline, "no coordinator leads");
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// The coordinator that says of itself that it leads. Under a fault two may; then nobody is named.
async fn leader(api: &Api) -> Option<usize> {
    let mut found = Vec::new();
    for server in 0..api.servers() {
        let Ok(view) = api.get::<ClusterView>(server, "/api/v1/cluster").await else { continue };
        let own = view.coordinators.iter().find(|coordinator| coordinator.node == view.answered_by);
        if own.is_some_and(|own| own.leader) {
            found.push(server);
        }
    }
    match found[..] {
        [leader] => Some(leader),
        _ => None,
    }
}

fn api_of(seat: &Seat) -> String {
    format!("https://{}:{API_PORT}", seat.node.address())
}

fn program(name: &str) -> Result<String> {
    Ok(bins::path(name)?.display().to_string())
}

fn coordinator(lab: &mut Lab, number: usize, options: &TrioOptions) -> Result<Seat> {
    let node = lab.node(&format!("c{number}"))?;
    let address = node.address();
    let plain = options.plain_port.map(|port| format!("plain_loopback = \"127.0.0.1:{port}\"\n"));
    let jobs = options.lease_seconds.map(|seconds| format!("[jobs]\nlease_seconds = {seconds}\n"));
    let text = format!(
        "[coordinator]\nname = \"c{number}\"\nquic_advertise = \"{address}:{COORDINATOR_PORT}\"\n\
         [http]\nadvertise = \"{address}:{API_PORT}\"\n{}{}[log]\nlevel = \"{}\"\n",
        plain.unwrap_or_default(),
        jobs.unwrap_or_default(),
        options.log
    );
    fs::write(node.dir().join("etc-novacron/coordinator.toml"), text).context("writing coordinator.toml")?;
    let program = Program::new(bins::path("novacron-coordinator")?, &["run", "--config", COORDINATOR_CONFIG]);
    Ok(Seat { program, node })
}

fn agent(lab: &mut Lab, number: usize, options: &TrioOptions) -> Result<Seat> {
    let node = lab.node(&format!("a{number}"))?;
    let text = format!(
        "[agent]\nname = \"a{number}\"\nquic_advertise = \"{}:{AGENT_PORT}\"\n\
         [hypervisor]\nenabled = false\n[log]\nlevel = \"{}\"\n",
        node.address(),
        options.log
    );
    fs::write(node.dir().join("etc-novacron/agent.toml"), text).context("writing agent.toml")?;
    let program = Program::new(bins::path("novacron-agent")?, &["run", "--config", AGENT_CONFIG]);
    Ok(Seat { program, node })
}
