//! Where the server's address, its CA's fingerprint and the token come from: flags, then `NOVACTL_…` in the
//! environment (clap reads both), then the file.

use crate::{cli::Connection, error::CtlError};
use novacron_common::spec::Sha256Digest;
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// `novactl.toml`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// `https://host:8090`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// SHA-256 of the cluster's CA certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_fingerprint: Option<String>,
    /// An API token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// What a command needs to talk to the cluster.
#[derive(Clone)]
pub struct Settings {
    /// Without a trailing slash.
    pub server: String,
    /// The pinned CA; needed for https.
    pub ca: Option<Sha256Digest>,
    /// The token.
    pub token: String,
}

impl Settings {
    /// Flags and environment over the file.
    pub fn resolve(connection: &Connection) -> Result<Self, CtlError> {
        let file = File::read(&path(connection))?;
        let server =
            connection.server.clone().or(file.server).unwrap_or_else(|| "https://127.0.0.1:8090".into());
        let server = server.trim_end_matches('/').to_owned();
        let fingerprint = connection.ca_fingerprint.clone().or(file.ca_fingerprint);
        let ca = fingerprint
            .map(|text| text.parse().map_err(|e| CtlError::Settings(format!("the CA fingerprint {e}"))))
            .transpose()?;
        if ca.is_none() && server.starts_with("https://") {
            let hint =
                "give --ca-fingerprint (printed by `novacron-coordinator init`), or run `novactl login`";
            return Err(CtlError::Settings(format!("the CA of {server} is not known: {hint}")));
        }
        let missing = || {
            CtlError::Settings(
                "there is no token: give --token, set NOVACTL_TOKEN, or run `novactl login`".into(),
            )
        };
        let token = connection.token.clone().or(file.token).ok_or_else(missing)?;
        Ok(Self { server, ca, token })
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, CtlError> {
        match fs::read_to_string(path) {
            Ok(text) => novacron_common::config::parse(&text, [])
                .map_err(|e| CtlError::Settings(format!("{}: {e}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(cause) => Err(CtlError::Local { doing: format!("read {}", path.display()), cause }),
        }
    }

    /// Writes it, readable by this user only.
    pub fn write(&self, path: &Path) -> Result<(), CtlError> {
        let failed = || CtlError::local(format!("write {}", path.display()));
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed())?;
        }
        let text = toml::to_string(self).map_err(|e| CtlError::Settings(e.to_string()))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(failed())?;
        std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed())
    }
}

/// `--config`, or `novacron/novactl.toml` in the user's configuration folder (XDG base directories).
pub fn path(connection: &Connection) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".config");
    connection.config.clone().unwrap_or_else(|| {
        std::env::var_os("XDG_CONFIG_HOME").map_or_else(home, PathBuf::from).join("novacron/novactl.toml")
    })
}
