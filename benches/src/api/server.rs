//! A coordinator as its own process on loopback, in a folder that goes with it.

use crate::client::Client;
use anyhow::{Context, Result, bail};
use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// The process; killed when this is dropped.
pub struct Server {
    process: Child,
    url: String,
    token: String,
    folder: TempDir,
}

impl Server {
    /// Founds a cluster and runs it.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let quic = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let https = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.path().join("coordinator.toml");
        std::fs::write(&config, configuration(&folder, quic, https))?;
        let program = novacron_tests::bins::path("novacron-coordinator")?;
        let founded = Command::new(&program).arg("init").arg("--config").arg(&config).output()?;
        let said = String::from_utf8_lossy(&founded.stdout).into_owned();
        if !founded.status.success() {
            bail!("init failed: {}", String::from_utf8_lossy(&founded.stderr));
        }
        let token = said.lines().find_map(|line| line.strip_prefix("token: "));
        let token = token.context("init printed no token")?.to_owned();
        let log = std::fs::File::create(folder.path().join("log"))?;
        let process = Command::new(&program)
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { process, url: format!("https://{https}"), token, folder })
    }

    /// A client with the admin token.
    pub fn client(&self) -> Result<Client> {
        Client::new(&self.url, &self.token, &self.folder.path().join("data/identity"))
    }
}

fn configuration(folder: &TempDir, quic: SocketAddr, https: SocketAddr) -> String {
    let folder = folder.path().display();
    format!(
        "[coordinator]\nname = 'bench'\ndata_dir = '{folder}/data'\nseal_key = '{folder}/seal.key'\n\
         quic_listen = '{quic}'\n[http]\nlisten = '{https}'\n[log]\nlevel = 'warn'\n"
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
