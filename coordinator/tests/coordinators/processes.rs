//! The program itself, as an administrator runs it: exit codes, `init`, `join`, `run`, SIGKILL of the leader,
//! SIGTERM. HTTPS with the CA pinned, as `novactl` does it.

use crate::support::{A_WHILE, eventually, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use novacron_common::api::{
    ClusterView, JoinTokenCreate, JoinTokenCreated, JoinTokenRole, TokenCreate, TokenCreated,
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_novacron-coordinator");

/// A coordinator's folder and, while it runs, its process.
pub struct Process {
    pub folder: TempDir,
    pub api: SocketAddr,
    /// What its environment has besides, while it runs.
    pub env: Vec<(&'static str, PathBuf)>,
    child: Option<Child>,
}

impl Process {
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (quic, api, path) = (free_port(), free_port(), folder.path().display().to_string());
        let text = format!(
            "[coordinator]\nname = '{name}'\ndata_dir = '{path}/data'\nquic_listen = '{quic}'\nseal_key = '{path}/seal.key'\n\
             [http]\nlisten = '{api}'\n[log]\nlevel = 'warn'\n"
        );
        fs::write(folder.path().join("coordinator.toml"), text).unwrap();
        Self { folder, api, env: Vec::new(), child: None }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg(verb).arg("--config").arg(self.folder.path().join("coordinator.toml"));
        command
    }

    pub fn output(&self, verb: &str, more: &[&str]) -> Output {
        self.command(verb).args(more).output().unwrap()
    }

    pub fn run(&mut self) {
        let mut command = self.command("run");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdout(Stdio::null()).spawn().unwrap());
    }

    pub fn signal(&mut self, signal: Signal) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The API of one coordinator, with the token that `init` printed.
pub struct Api {
    pub client: reqwest::Client,
    pub token: String,
}

impl Api {
    /// From what `init` printed and the CA certificate that it kept.
    pub fn new(printed: &str, founder: &Process) -> Self {
        let line = |name: &str| printed.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        let ca = fs::read(founder.folder.path().join("data/identity/ca.der")).unwrap();
        let fingerprint = novacron_coordinator::identity::sha256(&ca).to_string();
        assert_eq!(line("ca:"), fingerprint);
        assert_eq!(line("api:"), format!("https://{}", founder.api));
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let pinned = reqwest::Certificate::from_der(&ca).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([pinned]).timeout(A_WHILE);
        Self { client: client.build().unwrap(), token: line("token:") }
    }

    pub async fn cluster(&self, of: &Process) -> Option<ClusterView> {
        self.get(of, "/api/v1/cluster").await
    }

    pub async fn get<B: serde::de::DeserializeOwned>(&self, from: &Process, path: &str) -> Option<B> {
        let asked = self.client.get(format!("https://{}{path}", from.api)).bearer_auth(&self.token);
        let answer = asked.send().await.ok()?;
        if !answer.status().is_success() {
            // Whoever unwraps this wants to know why.
            eprintln!(
                "GET {path} of {}: {} {}",
                from.api,
                answer.status(),
                answer.text().await.unwrap_or_default()
            );
            return None;
        }
        answer.json().await.ok()
    }

    pub async fn post<A: serde::Serialize, B: serde::de::DeserializeOwned>(
        &self,
        to: &Process,
        path: &str,
        body: &A,
    ) -> Option<B> {
        let asked = self.client.post(format!("https://{}{path}", to.api)).bearer_auth(&self.token).json(body);
        asked.send().await.ok()?.error_for_status().ok()?.json().await.ok()
    }

    /// A small write.
    pub async fn write(&self, to: &Process) -> bool {
        let body = TokenCreate { name: "test".into(), role: Default::default() };
        self.post::<_, TokenCreated>(to, "/api/v1/tokens", &body).await.is_some()
    }
}

#[test]
fn a_configuration_that_cannot_be_used_exits_with_78_and_says_everything() {
    let process = Process::new("c1");
    let path = process.folder.path().join("coordinator.toml");
    fs::write(&path, "[coordinator]\nname = 'a b'\nquic_listen = 'x'\n").unwrap();
    let output = process.output("run", &[]);
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr);
    for key in ["coordinator.name", "coordinator.quic_listen", "http.advertise"] {
        assert!(text.contains(key), "{key} is missing in {text}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(process.output("run", &[]).status.code(), Some(78));
}

#[test]
fn running_before_a_cluster_exists_says_what_to_do() {
    let process = Process::new("c1");
    let output = process.output("run", &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run `init` or `join` first"));
    let output = process.output("join", &["--token", "nonsense"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a join token"));
}

pub async fn joined(founder: &Process, api: &Api, name: &str) -> Process {
    joined_as(Process::new(name), founder, api).await
}

pub async fn joined_as(mut process: Process, founder: &Process, api: &Api) -> Process {
    let asked = JoinTokenCreate { role: JoinTokenRole::Coordinator, ..JoinTokenCreate::default() };
    let token: JoinTokenCreated = api.post(founder, "/api/v1/hosts/join-tokens", &asked).await.unwrap();
    let output = process.output("join", &["--token", &token.token]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    process.run();
    process
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_survive_sigkill_of_the_leader_and_end_well_on_sigterm() {
    let mut founder = Process::new("c1");
    let printed = founder.output("init", &[]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &founder);
    founder.run();
    eventually("the founder serves", async || api.write(&founder).await).await;
    let mut second = joined(&founder, &api, "c2").await;
    let third = joined(&founder, &api, "c3").await;
    let voters = async |view: Option<ClusterView>| {
        view.map_or(0, |v| v.coordinators.iter().filter(|c| c.voter).count())
    };
    eventually("all three vote", async || voters(api.cluster(&third).await).await == 3).await;

    let killed = founder.signal(Signal::SIGKILL);
    assert_eq!(killed.signal(), Some(9));
    let began = Instant::now();
    eventually("the survivors commit", async || api.write(&second).await).await;
    println!("first write through HTTPS after SIGKILL of the leader: {:?}", began.elapsed());
    // It may hear of the new leader a little later.
    eventually("the other survivor commits", async || api.write(&third).await).await;

    founder.run();
    eventually("the founder is back", async || api.write(&founder).await).await;
    let ended = second.signal(Signal::SIGTERM);
    assert_eq!(ended.code(), Some(0), "SIGTERM is no failure");
    eventually("two of three are a majority", async || api.write(&third).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_coordinator_serves_again_after_sigkill() {
    let mut process = Process::new("c1");
    let printed = process.output("init", &[]);
    let api = Api::new(&String::from_utf8_lossy(&printed.stdout), &process);
    process.run();
    eventually("it serves", async || api.write(&process).await).await;
    process.signal(Signal::SIGKILL);
    process.run();
    let began = Instant::now();
    eventually("it serves again", async || api.write(&process).await).await;
    println!("first write through HTTPS after a restart: {:?}", began.elapsed());
}
