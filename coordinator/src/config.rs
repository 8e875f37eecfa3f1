//! `coordinator.toml`, as written and as checked. All faults are reported at once, before any port is bound.

use novacron_common::{
    config::{self, ConfigError},
    spec::{Faults, Name},
};
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

const DATA_DIR: &str = "/var/lib/novacron/coordinator";
const SEAL_KEY: &str = "/etc/novacron/seal.key";
const QUIC_LISTEN: &str = "0.0.0.0:8091";
const HTTP_LISTEN: &str = "0.0.0.0:8090";
const VALIDITY_SECONDS: u64 = 24 * 3600;
/// Shorter ones would be renewed all the time; tests use 3 seconds.
const VALIDITY_SECONDS_MIN: u64 = 2;
/// An administrator who needs longer ones has misunderstood what they are for.
const VALIDITY_SECONDS_MAX: u64 = 90 * 24 * 3600;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("could not read {path}: {cause}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason. Shown above because this error is printed before there is a log.
        cause: std::io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("{path}: {cause}", path = path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// The parser's reason.
        cause: ConfigError,
    },
    /// Values that cannot be used; every one of them.
    #[error("{path} cannot be used:{list}", path = path.display(), list = list(faults))]
    Values {
        /// Which.
        path: PathBuf,
        /// Each with its key.
        faults: Faults,
    },
}

fn list(faults: &Faults) -> String {
    faults.0.iter().map(|fault| format!("\n  {fault}")).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawConfig {
    coordinator: RawCoordinator,
    http: RawHttp,
    certificates: RawCertificates,
    jobs: RawJobs,
    log: RawLog,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCoordinator {
    name: Option<String>,
    data_dir: Option<PathBuf>,
    quic_listen: Option<String>,
    quic_advertise: Option<String>,
    seal_key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    listen: Option<String>,
    advertise: Option<String>,
    plain_loopback: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCertificates {
    validity_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawJobs {
    lease_seconds: Option<u64>,
    attempts_per_host: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: Option<String>,
    format: Option<String>,
}

/// Where a service is bound, and where others are told to find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Bound.
    pub listen: SocketAddr,
    /// Told.
    pub advertise: SocketAddr,
}

/// The HTTP API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpConfig {
    /// HTTPS.
    pub listen: SocketAddr,
    /// Where clients and other coordinators are told to find it.
    pub advertise: SocketAddr,
    /// Plain HTTP, on a loopback address only.
    pub plain_loopback: Option<SocketAddr>,
}

/// How attempts are given to hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobsConfig {
    /// How long an attempt that kills itself lives on without word from a leader.
    pub lease: Duration,
    /// Attempts that run on one host at a time; more wait, the highest priority first.
    pub attempts_per_host: u32,
}

impl JobsConfig {
    /// How long after its last grant an attempt is certain to be gone. The margin covers clocks whose rates differ by
    /// up to 5 %, and the two seconds within which a supervisor that was woken late kills its cgroup.
    pub fn lease_over(&self) -> Duration {
        self.lease + self.lease / 20 + Duration::from_secs(2)
    }
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self { lease: Duration::from_secs(30), attempts_per_host: 64 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people and the journal.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `tracing` directives, such as `info` or `info,novacron_coordinator=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This coordinator's name.
    pub name: Name,
    /// Where everything is kept but the seal key.
    pub data_dir: PathBuf,
    /// The key that seals the CA's key: not on the ledger's disk.
    pub seal_key: PathBuf,
    /// QUIC, for agents and coordinators.
    pub quic: Listen,
    /// The HTTP API.
    pub http: HttpConfig,
    /// How long certificates are good for; they are renewed half-way.
    pub certificate_validity: Duration,
    /// How attempts are given to hosts.
    pub jobs: JobsConfig,
    /// The log.
    pub log: LogConfig,
}

impl Config {
    /// Reads `path`; `NOVACRON_SECTION__KEY` in the environment overrides.
    ///
    /// # Errors
    /// [`ConfigFault`] with every fault.
    pub fn load(path: &Path) -> Result<Self, ConfigFault> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|cause| ConfigFault::Read { path: path.to_owned(), cause })?;
        let raw = config::parse(&text, std::env::vars());
        let raw: RawConfig = raw.map_err(|cause| ConfigFault::Parse { path: path.to_owned(), cause })?;
        Self::check(raw).map_err(|faults| ConfigFault::Values { path: path.to_owned(), faults })
    }

    fn check(raw: RawConfig) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let name = name(raw.coordinator.name, &mut faults);
        let data_dir = folder("coordinator.data_dir", raw.coordinator.data_dir, DATA_DIR, &mut faults);
        let seal_key = folder("coordinator.seal_key", raw.coordinator.seal_key, SEAL_KEY, &mut faults);
        let quic = (raw.coordinator.quic_listen, raw.coordinator.quic_advertise);
        let quic =
            listen(["coordinator.quic_listen", "coordinator.quic_advertise"], quic, QUIC_LISTEN, &mut faults);
        let https = (raw.http.listen, raw.http.advertise);
        let https = listen(["http.listen", "http.advertise"], https, HTTP_LISTEN, &mut faults);
        let plain_loopback = loopback(raw.http.plain_loopback, &mut faults);
        let certificate_validity = validity(raw.certificates.validity_seconds, &mut faults);
        let jobs = jobs(&raw.jobs, &mut faults);
        let log = log(raw.log, &mut faults);
        let config = name.zip(quic).zip(https).zip(log).map(|(((name, quic), https), log)| Self {
            name,
            data_dir,
            seal_key,
            quic,
            http: HttpConfig { listen: https.listen, advertise: https.advertise, plain_loopback },
            certificate_validity,
            jobs,
            log,
        });
        faults.into_result(config)
    }

    /// The ledger's files.
    pub fn ledger_dir(&self) -> PathBuf {
        self.data_dir.join("ledger")
    }

    /// This coordinator's certificate and key.
    pub fn identity_dir(&self) -> PathBuf {
        self.data_dir.join("identity")
    }
}

fn name(given: Option<String>, faults: &mut Faults) -> Option<Name> {
    let Some(given) = given else {
        faults.add("coordinator.name", "is missing: give this coordinator a name, e.g. name = \"c1\"");
        return None;
    };
    faults.take("coordinator.name", given.parse::<Name>())
}

fn folder(key: &str, given: Option<PathBuf>, default: &str, faults: &mut Faults) -> PathBuf {
    let path = given.unwrap_or_else(|| default.into());
    if !path.is_absolute() {
        faults.add(key, format!("{} is relative: give an absolute path", path.display()));
    }
    path
}

fn address(key: &str, text: &str, faults: &mut Faults) -> Option<SocketAddr> {
    let parsed = text.parse::<SocketAddr>();
    if parsed.is_err() {
        faults.add(
            key,
            format!("{text:?} is not an address with port, such as 10.0.0.5:8091 or [fd00::5]:8091"),
        );
    }
    parsed.ok()
}

/// The advertised address is the bound one, unless that is "every address", which nobody can dial.
fn listen(
    [listen_key, advertise_key]: [&str; 2],
    (listen, advertise): (Option<String>, Option<String>),
    default: &str,
    faults: &mut Faults,
) -> Option<Listen> {
    let listen = address(listen_key, listen.as_deref().unwrap_or(default), faults)?;
    let advertise = match advertise {
        Some(text) => address(advertise_key, &text, faults)?,
        None => listen,
    };
    if advertise.ip().is_unspecified() || advertise.port() == 0 {
        let reason =
            format!("{advertise} cannot be dialled: give the address under which others reach this machine");
        faults.add(advertise_key, reason);
        return None;
    }
    Some(Listen { listen, advertise })
}

fn jobs(raw: &RawJobs, faults: &mut Faults) -> JobsConfig {
    let usual = JobsConfig::default();
    let lease = raw.lease_seconds.map_or(usual.lease, Duration::from_secs);
    if !(5..=3600).contains(&lease.as_secs()) {
        faults.add("jobs.lease_seconds", "must be 5 to 3600");
    }
    let attempts_per_host = raw.attempts_per_host.unwrap_or(usual.attempts_per_host);
    if !(1..=10_000).contains(&attempts_per_host) {
        faults.add("jobs.attempts_per_host", "must be 1 to 10000");
    }
    JobsConfig { lease, attempts_per_host }
}

fn loopback(given: Option<String>, faults: &mut Faults) -> Option<SocketAddr> {
    let found = address("http.plain_loopback", &given?, faults)?;
    if !found.ip().is_loopback() {
        let reason =
            format!("{found} is no loopback address: plain HTTP carries tokens; use 127.0.0.1 or [::1]");
        faults.add("http.plain_loopback", reason);
    }
    Some(found)
}

fn validity(given: Option<u64>, faults: &mut Faults) -> Duration {
    let seconds = given.unwrap_or(VALIDITY_SECONDS);
    if !(VALIDITY_SECONDS_MIN..=VALIDITY_SECONDS_MAX).contains(&seconds) {
        let reason =
            format!("{seconds} is out of range: {VALIDITY_SECONDS_MIN} to {VALIDITY_SECONDS_MAX} (90 days)");
        faults.add("certificates.validity_seconds", reason);
    }
    Duration::from_secs(seconds)
}

fn log(raw: RawLog, faults: &mut Faults) -> Option<LogConfig> {
    let level = raw.level.unwrap_or_else(|| "info".into());
    if let Err(error) = level.parse::<tracing_subscriber::EnvFilter>() {
        faults.add("log.level", format!("{level:?}: {error}; use error, warn, info, debug or trace"));
    }
    let format = match raw.format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            faults.add("log.format", format!("{other:?} is unknown: use \"text\" or \"json\""));
            return None;
        }
    };
    Some(LogConfig { level, format })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, Faults> {
        Config::check(config::parse(text, []).unwrap())
    }

    #[test]
    fn a_short_file_is_enough() {
        let text = "[coordinator]\nname = 'c1'\nquic_advertise = '10.0.0.1:8091'\n[http]\nadvertise = '10.0.0.1:8090'\n";
        let config = check(text).unwrap();
        assert_eq!(config.quic.listen, "0.0.0.0:8091".parse().unwrap());
        assert_eq!(config.http.advertise, "10.0.0.1:8090".parse().unwrap());
        assert_eq!(config.certificate_validity, Duration::from_secs(86_400));
        assert_eq!(config.data_dir, PathBuf::from(DATA_DIR));
    }

    #[test]
    fn every_fault_is_reported_with_its_key() {
        let text = "[coordinator]\nname = '../x'\ndata_dir = 'here'\nquic_listen = 'nonsense'\n\
                    [http]\nplain_loopback = '10.0.0.1:80'\n[certificates]\nvalidity_seconds = 1\n\
                    [log]\nlevel = 'info,=x'\nformat = 'xml'\n";
        let faults = check(text).unwrap_err();
        let keys: Vec<&str> = faults.0.iter().map(|f| f.field.as_str()).collect();
        let expected = [
            "coordinator.name",
            "coordinator.data_dir",
            "coordinator.quic_listen",
            "http.advertise",
            "http.plain_loopback",
            "certificates.validity_seconds",
            "log.level",
            "log.format",
        ];
        assert_eq!(keys, expected, "{faults}");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_known_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coordinator.toml");
        std::fs::write(&path, "[coordinator]\nname = 'c1'\nquic_lisen = '127.0.0.1:1'\n").unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains("did you mean `quic_listen`?"), "{error}");
    }
}
