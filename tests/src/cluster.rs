//! NovaCron's own programs in the lab: a coordinator outside, an agent on each host, and `novactl` to talk to them.
//!
//! Everything goes through the public command lines and configuration files, as an administrator would do it.

mod config;
mod echo;
mod machine;
mod manager;
mod moves;
mod program;
mod remains;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use novacron_common::record::Accel;
use serde_json::Value;

use crate::bins;
use crate::lab::{Host, HostOptions, Lab, addr};
pub use echo::{Echo, EchoReport};
pub use machine::{Console, GuestOptions, Machine, TemplateOptions, machine_path};
pub use program::Program;
use program::last_lines;

/// The coordinators' port for agents and each other (QUIC).
pub const COORDINATOR_PORT: u16 = 8091;
/// The agents' port for everything between processes (QUIC). Nothing else may be seen between hosts.
pub const AGENT_PORT: u16 = 8092;
/// The HTTPS API.
pub const API_PORT: u16 = 8090;

const COORDINATOR_CONFIG: &str = "/etc/novacron/coordinator.toml";
const AGENT_CONFIG: &str = "/etc/novacron/agent.toml";
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Name of the lab.
    pub name: String,
    /// The hosts.
    pub hosts: Vec<(String, HostOptions)>,
    /// How long certificates are valid; `None`: the product's default.
    pub certificate_seconds: Option<u32>,
    /// Where agents find libvirtd's socket for the control lane of a migration; `None`: libvirtd's own. A test that
    /// wants to see or break that lane puts a relay there.
    pub control_socket: Option<String>,
    /// How the hosts run KVM machines. TCG works everywhere.
    pub accel: Accel,
    /// The processor that KVM guests see; `None`: the host's own.
    pub cpu_model: Option<String>,
    /// On how many channels memory crosses (`migration.channels`); `None`: as the agents find right.
    pub channels: Option<u8>,
}

impl ClusterOptions {
    /// Two hosts, `h1` and `h2`, whose QEMUs run as root.
    #[must_use]
    pub fn two_hosts(name: &str) -> Self {
        let host = |name: &str| (name.to_owned(), HostOptions::default());
        Self {
            name: name.to_owned(),
            hosts: vec![host("h1"), host("h2")],
            certificate_seconds: None,
            control_socket: None,
            accel: Accel::Tcg,
            cpu_model: None,
            channels: None,
        }
    }
}

/// A host and its agent.
pub struct Member {
    /// The agent; first, so that it is killed before its host.
    pub agent: Program,
    /// The host.
    pub host: Host,
}

/// What a client needs to reach the API.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://address:port`.
    pub server: String,
    /// Fingerprint of the cluster's CA, in hex.
    pub ca_fingerprint: String,
    /// API token.
    pub token: String,
}

/// A running cluster.
pub struct Cluster {
    /// The coordinator, in the outside node.
    pub coordinator: Program,
    /// The hosts with their agents.
    pub members: Vec<Member>,
    /// How to reach the API from the outside node.
    pub access: Access,
    /// The lab below.
    pub lab: Lab,
}

impl Cluster {
    /// Starts everything and waits until all hosts are up.
    ///
    /// # Errors
    /// When a program fails or the hosts do not come up in time; the error carries what was said last.
    pub fn start(options: &ClusterOptions) -> Result<Self> {
        let mut lab = Lab::new(&options.name)?;
        let config = config::coordinator(options);
        write(&lab.outside().dir().join("etc-novacron/coordinator.toml"), &config)?;
        let coordinator = bins::path("novacron-coordinator")?;
        let coordinator_path = coordinator.display().to_string();
        let said = lab.outside().exec(&coordinator_path, &["init", "--config", COORDINATOR_CONFIG])?;
        let access = access(&said)?;
        let mut coordinator = Program::new(coordinator, &["run", "--config", COORDINATOR_CONFIG]);
        coordinator.start(lab.outside())?;
        wait_for_api(&lab)?;
        let mut members = Vec::new();
        for (name, host_options) in &options.hosts {
            let host = lab.host(name, *host_options)?;
            members.push(enroll(&lab, &access, host, options)?);
        }
        let cluster = Self { coordinator, members, access, lab };
        cluster.wait_for_hosts()?;
        Ok(cluster)
    }

    /// Runs `novactl` in the outside node and returns its answer as JSON (`null` if it printed nothing).
    ///
    /// # Errors
    /// When it fails; the error carries what it said.
    pub fn novactl(&self, args: &[&str]) -> Result<Value> {
        novactl(&self.lab, &self.access, args)
    }

    /// Runs `novactl` in the outside node and returns what it printed.
    ///
    /// # Errors
    /// When it fails; the error carries what it said.
    pub fn novactl_said(&self, args: &[&str]) -> Result<String> {
        novactl_said(&self.lab, &self.access, args)
    }

    /// The member whose host has this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn member(&mut self, name: &str) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.host.name() == name);
        found.with_context(|| format!("no host {name} in this cluster"))
    }

    /// Kills the coordinator with SIGKILL and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart_coordinator(&mut self) -> Result<()> {
        self.coordinator.kill9()?;
        self.start_coordinator()
    }

    /// Starts the coordinator again after it was killed.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn start_coordinator(&mut self) -> Result<()> {
        self.coordinator.start(self.lab.outside())?;
        wait_for_api(&self.lab)
    }

    /// Kills a host's agent with SIGKILL.
    ///
    /// # Errors
    /// When there is no such host or its agent does not run.
    pub fn kill_agent(&mut self, host: &str) -> Result<()> {
        self.member(host)?.agent.kill9()
    }

    /// Asks a host's agent to stop, and starts it again, as `systemctl restart` does.
    ///
    /// # Errors
    /// When there is no such host, or its agent does not stop well.
    pub fn restart_agent(&mut self, host: &str) -> Result<()> {
        let member = self.member(host)?;
        member.agent.stop()?;
        member.agent.start(member.host.node())
    }

    /// How many descriptors a host's agent has left to a successor that has not taken them.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn left_descriptors(&mut self, host: &str) -> Result<usize> {
        Ok(self.member(host)?.agent.handed_over())
    }

    /// Starts a host's agent again.
    ///
    /// # Errors
    /// When there is no such host or its agent runs already.
    pub fn start_agent(&mut self, host: &str) -> Result<()> {
        let member = self.member(host)?;
        member.agent.start(member.host.node())
    }

    /// Pulls a host's plug, boots it again and starts its agent, as systemd would.
    ///
    /// # Errors
    /// When there is no such host or it does not come up.
    pub fn power_cycle(&mut self, host: &str) -> Result<()> {
        let found = self.members.iter_mut().find(|member| member.host.name() == host);
        let member = found.with_context(|| format!("no host {host}"))?;
        member.host.crash();
        self.lab.boot(&mut member.host)?;
        member.agent.start(member.host.node())
    }

    /// Waits until the coordinator reports every host as up.
    ///
    /// # Errors
    /// When they are not within a minute.
    pub fn wait_for_hosts(&self) -> Result<()> {
        let wanted = self.members.len();
        self.wait_until(READY_LIMIT, "all hosts are up", |cluster| {
            let hosts = items(cluster.novactl(&["host", "list"])?);
            Ok(hosts.iter().filter(|host| host["state"] == "up").count() == wanted)
        })
    }

    /// Asks again and again until the answer is yes.
    ///
    /// # Errors
    /// When it is not within `limit`; the error carries the last fault, if the question itself failed.
    pub fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        question: impl Fn(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let answer = question(self);
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                answer.with_context(|| format!("asking whether {what}"))?;
                bail!("not within {limit:?}: {what}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Cluster {
    /// What our programs printed last, each at most `lines` lines: for the message of a failed test.
    #[must_use]
    pub fn last_words(&self, lines: usize) -> String {
        let agents =
            self.members.iter().map(|member| (format!("agent on {}", member.host.name()), &member.agent));
        let all = std::iter::once(("coordinator".to_owned(), &self.coordinator)).chain(agents);
        let programs =
            all.map(|(name, program)| format!("--- the {name} said last:\n{}\n", program.last_lines(lines)));
        let hypervisors = self.members.iter().flat_map(|member| hypervisor_logs(&member.host, lines));
        programs.chain(hypervisors).collect()
    }

    /// What is left of a deleted machine: domains, files, sockets of migrations, reservations. Empty: nothing.
    ///
    /// # Errors
    /// When a host or the API cannot be asked.
    pub fn remains_of(&self, machine: &Machine) -> Result<Vec<String>> {
        let mut remains = Vec::new();
        for member in &self.members {
            remains.extend(remains::on_host(&member.host, &machine.id)?);
        }
        remains.extend(remains::in_ledger(self)?);
        Ok(remains)
    }

    /// Room that is reserved on a host on which no machine is placed, and sockets of migrations. Empty: nothing.
    ///
    /// # Errors
    /// When a host or the API cannot be asked.
    pub fn idle_reservations_and_sockets(&self) -> Result<Vec<String>> {
        let mut left = remains::in_ledger(self)?;
        for member in &self.members {
            left.extend(remains::sockets(&member.host)?);
        }
        Ok(left)
    }

    /// What a host that should have nothing of the machine has of it. Empty: nothing.
    ///
    /// # Errors
    /// When there is no such host or it cannot be asked.
    pub fn leftovers_on(&self, host: &str, machine: &Machine) -> Result<Vec<String>> {
        let found = self.members.iter().find(|member| member.host.name() == host);
        remains::on_host(&found.with_context(|| format!("no host {host}"))?.host, &machine.id)
    }

    /// Lets everything live on after this process, and says where it is.
    #[must_use]
    pub fn keep(mut self) -> std::path::PathBuf {
        self.coordinator.detach();
        for member in &mut self.members {
            member.agent.detach();
            member.host.detach_libvirtd();
        }
        let mut hosts: Vec<&mut Host> = self.members.iter_mut().map(|member| &mut member.host).collect();
        self.lab.keep(&mut hosts)
    }
}

/// The entries of a list, whether it came as a page or bare.
#[must_use]
pub fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Array(items) => items,
        Value::Object(mut page) => {
            page.remove("items").and_then(|items| items.as_array().cloned()).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

fn enroll(lab: &Lab, access: &Access, host: Host, options: &ClusterOptions) -> Result<Member> {
    let config = config::agent(&host, options)?;
    write(&host.dir().join("etc-novacron/agent.toml"), &config)?;
    let answer = novactl(lab, access, &["host", "token"])?;
    let token = answer["token"].as_str().with_context(|| format!("no join token in {answer}"))?;
    let agent = bins::path("novacron-agent")?;
    host.exec(&agent.display().to_string(), &["join", "--config", AGENT_CONFIG, "--token", token])?;
    let mut agent = Program::new(agent, &["run", "--config", AGENT_CONFIG]);
    agent.start(host.node())?;
    Ok(Member { agent, host })
}

impl Access {
    /// The arguments by which `novactl` finds the API and answers in JSON.
    #[must_use]
    pub fn arguments(&self) -> [String; 4] {
        [
            format!("--server={}", self.server),
            format!("--ca-fingerprint={}", self.ca_fingerprint),
            format!("--token={}", self.token),
            "--output=json".to_owned(),
        ]
    }
}

fn novactl_said(lab: &Lab, access: &Access, args: &[&str]) -> Result<String> {
    let program = bins::path("novactl")?.display().to_string();
    let global = access.arguments();
    let words: Vec<&str> = global.iter().map(String::as_str).chain(args.iter().copied()).collect();
    // The token is in the arguments: a failure names the rest only.
    let output = lab.outside().output(&program, &words)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "novactl {args:?}: {}: {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn novactl(lab: &Lab, access: &Access, args: &[&str]) -> Result<Value> {
    let said = novactl_said(lab, access, args)?;
    if said.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&said).with_context(|| format!("novactl {args:?} printed no JSON: {said}"))
}

/// Reads what `init` prints: lines `token: …` and `ca: …`.
fn access(said: &str) -> Result<Access> {
    let field = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned()).with_context(|| format!("`init` printed no {name}: {said}"))
    };
    let server = format!("https://{}:{API_PORT}", addr::OUTSIDE_LAN);
    Ok(Access { server, ca_fingerprint: field("ca")?, token: field("token")? })
}

fn wait_for_api(lab: &Lab) -> Result<()> {
    let to = SocketAddr::from((addr::OUTSIDE_LAN, API_PORT));
    let deadline = Instant::now() + READY_LIMIT;
    let knock =
        || std::net::TcpStream::connect_timeout(&to, Duration::from_secs(1)).context("connecting to the API");
    while let Err(fault) = lab.outside().on_network(knock) {
        if Instant::now() > deadline {
            return Err(fault.context("the coordinator did not come up"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// What a host's libvirtd and its QEMUs wrote last.
fn hypervisor_logs(host: &Host, lines: usize) -> Vec<String> {
    let Some(folder) = host.outside_path(Path::new("/var/log/libvirt")) else { return Vec::new() };
    let logs = [folder.join("qemu"), folder].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let mut files: Vec<_> =
        logs.flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    let tell = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&std::fs::read(&path).ok()?).into_owned();
        Some(format!("--- {name} on {} ends with:\n{}\n", host.name(), last_lines(&text, lines)))
    };
    files.into_iter().filter_map(tell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_what_init_prints() {
        let access = access("cluster: c1\nca: 00ff\n token: nva1.abc.def\n").unwrap();
        assert_eq!((access.ca_fingerprint.as_str(), access.token.as_str()), ("00ff", "nva1.abc.def"));
        assert!(super::access("token: x").unwrap_err().to_string().contains("no ca"));
    }

    #[test]
    fn a_list_is_taken_bare_or_as_a_page() {
        assert_eq!(items(json!([1, 2])), [json!(1), json!(2)]);
        assert_eq!(items(json!({"items": [3], "next": null})), [json!(3)]);
        assert!(items(json!(null)).is_empty());
    }
}
