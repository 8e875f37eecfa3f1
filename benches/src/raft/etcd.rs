//! Three etcd members as Debian packages them, with default settings (each write is synced before it is acknowledged).

use super::{from, order};
use crate::{
    certificates::valid,
    load::{self, Report, Target},
};
use anyhow::{Context, Result, ensure};
use novacron_tests::{
    lab::{Lab, Node, Process},
    ledger::trio::Reach,
};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const MEMBERS: usize = 3;
const READY_LIMIT: Duration = Duration::from_secs(30);
/// An election takes a second by default; this is more.
const SETTLE: Duration = Duration::from_secs(3);

/// Whether clients and members talk over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Both do.
    On,
    /// Neither does.
    Off,
}

impl Tls {
    /// For names of runs.
    pub fn name(self) -> &'static str {
        match self {
            Self::On => "tls",
            Self::Off => "plain",
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::On => "https",
            Self::Off => "http",
        }
    }
}

/// The cluster.
pub struct Etcd {
    // Before their nodes: killed first.
    _processes: Vec<Process>,
    nodes: Vec<Node>,
    ca: Vec<u8>,
    /// How it was started.
    pub tls: Tls,
}

impl Etcd {
    /// Starts it on nodes of its own and waits until every member listens.
    pub fn start(lab: &mut Lab, tls: Tls) -> Result<Self> {
        let name = |number| format!("{}{number}", if tls == Tls::On { "e" } else { "p" });
        let nodes: Vec<Node> = (1..=MEMBERS).map(|number| lab.node(&name(number))).collect::<Result<_>>()?;
        let ca = give_certificates(&nodes)?;
        let url = |node: &Node, port: u16| format!("{}://{}:{port}", tls.scheme(), node.address());
        let members: Vec<String> =
            nodes.iter().map(|node| format!("{}={}", node.name(), url(node, PEER_PORT))).collect();
        let members = members.join(",");
        let mut processes = Vec::new();
        for node in &nodes {
            let mut words = vec![
                format!("--name={}", node.name()),
                "--data-dir=/var/lib/novacron/etcd".to_owned(),
                format!(
                    "--listen-client-urls={},{}://127.0.0.1:{CLIENT_PORT}",
                    url(node, CLIENT_PORT),
                    tls.scheme()
                ),
                format!("--advertise-client-urls={}", url(node, CLIENT_PORT)),
                format!("--listen-peer-urls={}", url(node, PEER_PORT)),
                format!("--initial-advertise-peer-urls={}", url(node, PEER_PORT)),
                format!("--initial-cluster={members}"),
                "--initial-cluster-state=new".to_owned(),
                "--logger=zap".to_owned(),
            ];
            if tls == Tls::On {
                words.extend(tls_words());
            }
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            processes.push(node.spawn("etcd", &words, &[])?);
        }
        wait_until_listening(lab, &nodes, &processes)?;
        Ok(Self { _processes: processes, nodes, ca, tls })
    }

    /// Drives it with the same client process as ours.
    pub fn run(&self, reach: &Reach, clients: usize, run: &str) -> Result<Report> {
        let url = |node: &Node| format!("{}://{}:{CLIENT_PORT}", self.tls.scheme(), node.address());
        let leader = self.leader()?;
        let servers = from(self.nodes.iter().map(url).collect(), leader);
        let mut order = order(Target::Etcd, servers, clients, run);
        match self.tls {
            Tls::On => {
                order.ca = Some(self.ca.iter().map(|byte| format!("{byte:02x}")).collect());
                load::run(reach.lab.outside(), &order)
            }
            // As ours: on the leader's own node, over its loopback.
            Tls::Off => {
                order.servers = vec![format!("http://127.0.0.1:{CLIENT_PORT}")];
                load::run(&self.nodes[leader], &order)
            }
        }
    }

    /// Which member leads.
    fn leader(&self) -> Result<usize> {
        let endpoint = format!("--endpoints={}://127.0.0.1:{CLIENT_PORT}", self.tls.scheme());
        let ca = "--cacert=/etc/novacron/ca.pem";
        for (number, node) in self.nodes.iter().enumerate() {
            let words = ["ETCDCTL_API=3", "etcdctl", &endpoint, ca, "endpoint", "status"];
            // endpoint, id, version, size, is leader, …
            if node.exec("/usr/bin/env", &words)?.split(", ").nth(4) == Some("true") {
                return Ok(number);
            }
        }
        anyhow::bail!("no member of etcd leads")
    }
}

fn tls_words() -> Vec<String> {
    let file = |name: &str| format!("/etc/novacron/{name}.pem");
    let (certificate, key, ca) = (file("member"), file("member-key"), file("ca"));
    vec![
        format!("--cert-file={certificate}"),
        format!("--key-file={key}"),
        format!("--peer-cert-file={certificate}"),
        format!("--peer-key-file={key}"),
        format!("--peer-trusted-ca-file={ca}"),
        "--peer-client-cert-auth=true".to_owned(),
    ]
}

fn wait_until_listening(lab: &Lab, nodes: &[Node], processes: &[Process]) -> Result<()> {
    let deadline = Instant::now() + READY_LIMIT;
    for (node, process) in nodes.iter().zip(processes) {
        let to = SocketAddr::from((node.address(), CLIENT_PORT));
        let knock = || TcpStream::connect_timeout(&to, Duration::from_secs(1)).context("connecting to etcd");
        while let Err(fault) = lab.outside().on_network(knock) {
            ensure!(
                Instant::now() < deadline && process.ended().is_none(),
                "{fault:#}: {}",
                process.printed()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    std::thread::sleep(SETTLE);
    Ok(())
}

/// A throw-away CA and one certificate for each member; returns the CA's (DER).
fn give_certificates(nodes: &[Node]) -> Result<Vec<u8>> {
    let key = KeyPair::generate()?;
    let mut params = valid("bench CA", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    for node in nodes {
        let key = KeyPair::generate()?;
        let mut params = valid(node.name(), vec![node.address().to_string(), "127.0.0.1".to_owned()])?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer)?;
        let folder = node.dir().join("etc-novacron");
        fs::write(folder.join("ca.pem"), ca.pem())?;
        fs::write(folder.join("member.pem"), certificate.pem())?;
        fs::write(folder.join("member-key.pem"), key.serialize_pem())?;
    }
    Ok(ca.der().to_vec())
}
