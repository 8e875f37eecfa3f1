//! `agent.toml`: [raw] as written, then checked as a whole, so that every fault is shown at once and nothing is
//! bound before all is well.

mod raw;

use crate::{
    attempt::Settings,
    hypervisor::{
        libvirt::{AccelSetting, CpuModel},
        namespace::Volumes,
    },
    migrate::{channels::Channels, checkpoint::Limits},
};
use novacron_common::{
    config::{self, ConfigError},
    spec::{Faults, Name},
    units::ByteCount,
};
use novacron_transport::Sharing;
use raw::RawConfig;
use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

/// libvirt's keep-alive between the two libvirtd of a migration, as shipped: 6 × 5 s (`keepalive_interval` and
/// `keepalive_count` in qemu.conf).
const LIBVIRT_KEEP_ALIVE_SECONDS: u64 = 30;

const DAY_SECONDS: u64 = 86_400;
/// What checkpoints leave free of the disk, whatever they may take.
const CHECKPOINT_RESERVE: ByteCount = ByteCount::gib(2);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("could not read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// It is not TOML, or has a key that nobody knows.
    #[error("{} cannot be used", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        cause: ConfigError,
    },
    /// Its values do not fit.
    #[error("{} cannot be used", path.display())]
    Check {
        /// Which.
        path: PathBuf,
        /// Every fault.
        #[source]
        faults: Faults,
    },
}

/// The agent's configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The host's name.
    pub name: Name,
    /// Where everything that must last is kept.
    pub data_dir: PathBuf,
    /// What is bound.
    pub quic_listen: SocketAddr,
    /// What others are told.
    pub quic_advertise: SocketAddr,
    /// RAM that is not given to machines.
    pub memory_reserve: ByteCount,
    /// Where Prometheus finds the agent's figures: loopback only, since there is no token on it.
    pub metrics_listen: Option<SocketAddr>,
    /// The bridge for machines that name none.
    pub bridge: String,
    /// The interface that is attached to it.
    pub uplink: Option<String>,
    /// Images.
    pub images: ImagesConfig,
    /// KVM machines; `None` if they are switched off.
    pub hypervisor: Option<HypervisorConfig>,
    /// Whether namespace machines are offered.
    pub namespace: bool,
    /// Folders of this host that namespace machines may be shown.
    pub volume_folders: Vec<PathBuf>,
    /// Of a volume that is made for one.
    pub volume_size: ByteCount,
    /// Attempts of jobs at once.
    pub attempts_max: u32,
    /// Hosts and networks that jobs may call over HTTP although they are private.
    pub jobs_url_allow: Vec<String>,
    /// Folder of the root file systems that the commands of jobs may ask for by name.
    pub jobs_roots: PathBuf,
    /// Folder for the sockets of migrations.
    pub run_dir: PathBuf,
    /// How long a migration whose link was lost waits for it.
    pub link_grace: Duration,
    /// What all migrations away from this host may take of its link, Mbit/s; `None`: all that they can get.
    pub bandwidth_mbit: Option<NonZeroU32>,
    /// What migrations take of a link beside other traffic.
    pub sharing: Sharing,
    /// On how many channels the memory of a machine that moves crosses.
    pub channels: Channels,
    /// What is kept of machines that left.
    pub checkpoints: Limits,
    /// `tracing` filter.
    pub log_level: String,
    /// Whether the log is JSON.
    pub log_json: bool,
}

/// Where images may come from.
#[derive(Debug, Clone)]
pub struct ImagesConfig {
    /// Local paths must lie under one of these.
    pub folders: Vec<PathBuf>,
    /// Hosts and networks that are allowed although they are private.
    pub url_allow: Vec<String>,
    /// Largest image.
    pub size_max: ByteCount,
    /// Longest fetch.
    pub timeout: Duration,
}

/// How libvirt is reached.
#[derive(Debug, Clone)]
pub struct HypervisorConfig {
    /// For libvirt's client library.
    pub uri: String,
    /// For the control lane of a migration.
    pub socket: PathBuf,
    /// How machines run.
    pub accel: AccelSetting,
    /// The processor that KVM guests see.
    pub cpu_model: CpuModel,
    /// Whom QEMU runs as, if not as root (libvirt's `user` in qemu.conf).
    pub qemu_user: Option<String>,
}

impl Config {
    /// Reads `path`, with `NOVACRON_SECTION__KEY` of the environment on top.
    ///
    /// # Errors
    /// [`LoadError`] names every fault.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| LoadError::Read { path: path.to_owned(), cause })?;
        let raw = config::parse::<RawConfig>(&text, std::env::vars())
            .map_err(|cause| LoadError::Parse { path: path.to_owned(), cause })?;
        Self::check(raw, &hostname()).map_err(|faults| LoadError::Check { path: path.to_owned(), faults })
    }

    fn check(raw: RawConfig, hostname: &str) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let name = faults.take("agent.name", raw.agent.name.as_deref().unwrap_or(hostname).parse::<Name>());
        let advertise = raw.agent.quic_advertise.unwrap_or(raw.agent.quic_listen);
        if advertise.ip().is_unspecified() {
            faults.add(
                "agent.quic_advertise",
                "is needed where quic_listen is not one address: give this host's own",
            );
        }
        if raw.agent.metrics_listen.is_some_and(|a| !a.ip().is_loopback()) {
            faults.add("agent.metrics_listen", "must be a loopback address: it serves without a token");
        }
        for (field, name) in
            [("network.bridge", Some(&raw.network.bridge)), ("network.uplink", raw.network.uplink.as_ref())]
        {
            if name.is_some_and(|n| n.is_empty() || n.len() > 15 || n.parse::<Name>().is_err()) {
                faults.add(field, "is no name of a network interface (1 to 15 characters)");
            }
        }
        for folder in raw.namespace.volume_folders.iter().filter(|f| !f.is_absolute()) {
            faults.add("namespace.volume_folders", format!("{} is not an absolute path", folder.display()));
        }
        let own = &raw.agent.data_dir;
        for folder in raw.namespace.volume_folders.iter().filter(|f| own.starts_with(f) || f.starts_with(own))
        {
            let why = format!(
                "{} has this agent's own files in it: keys and other machines' disks",
                folder.display()
            );
            faults.add("namespace.volume_folders", why);
        }
        if !Volumes::SIZE_MB.contains(&raw.namespace.volume_size_mb) {
            let (least, most) = (Volumes::SIZE_MB.start(), Volumes::SIZE_MB.end());
            faults.add("namespace.volume_size_mb", format!("must be {least} to {most}"));
        }
        for folder in raw.images.folders.iter().filter(|f| !f.is_absolute()) {
            faults.add("images.folders", format!("{} is not an absolute path", folder.display()));
        }
        let lists = [("images.url_allow", &raw.images.url_allow), ("jobs.url_allow", &raw.jobs.url_allow)];
        for (field, allowed) in
            lists.into_iter().flat_map(|(field, list)| list.iter().map(move |a| (field, a)))
        {
            if !is_host_or_network(allowed) {
                faults
                    .add(field, format!("{allowed:?} is neither a host name nor a network like 10.0.0.0/8"));
            }
        }
        if !raw.jobs.roots.is_absolute() {
            faults.add("jobs.roots", format!("{} is not an absolute path", raw.jobs.roots.display()));
        }
        if !(1..=Settings::LIVE_MAX).contains(&raw.jobs.attempts_max) {
            faults.add("jobs.attempts_max", format!("must be 1 to {}", Settings::LIVE_MAX));
        }
        if raw.migration.run_dir.as_os_str().len() > 40 {
            faults.add(
                "migration.run_dir",
                "is longer than 40 bytes: UNIX socket paths below it must stay under 108",
            );
        }
        let grace = raw.migration.link_grace_seconds;
        if !(1..LIBVIRT_KEEP_ALIVE_SECONDS).contains(&grace) {
            faults.add(
                "migration.link_grace_seconds",
                format!(
                    "must be 1 to {}: after {LIBVIRT_KEEP_ALIVE_SECONDS} s of silence libvirt ends a migration itself",
                    LIBVIRT_KEEP_ALIVE_SECONDS - 1
                ),
            );
        }
        if raw.migration.checkpoint_days == 0 {
            faults.add("migration.checkpoint_days", "must be at least 1; checkpoint_mib = 0 keeps none");
        }
        let hypervisor = raw.hypervisor.enabled.then_some(HypervisorConfig {
            uri: raw.hypervisor.libvirt_uri,
            socket: raw.hypervisor.libvirt_socket,
            accel: raw.hypervisor.accel,
            cpu_model: raw.hypervisor.cpu_model,
            qemu_user: raw.hypervisor.qemu_user,
        });
        let config = name.map(|name| Self {
            name,
            data_dir: raw.agent.data_dir,
            quic_listen: raw.agent.quic_listen,
            quic_advertise: advertise,
            memory_reserve: ByteCount::mib(raw.agent.memory_reserve_mb),
            metrics_listen: raw.agent.metrics_listen,
            bridge: raw.network.bridge,
            uplink: raw.network.uplink,
            images: ImagesConfig {
                folders: raw.images.folders,
                url_allow: raw.images.url_allow,
                size_max: ByteCount::gib(raw.images.size_max_gb),
                timeout: Duration::from_secs(raw.images.timeout_seconds),
            },
            hypervisor,
            namespace: raw.namespace.enabled,
            volume_folders: raw.namespace.volume_folders,
            volume_size: ByteCount::mib(raw.namespace.volume_size_mb),
            attempts_max: raw.jobs.attempts_max,
            jobs_url_allow: raw.jobs.url_allow,
            jobs_roots: raw.jobs.roots,
            run_dir: raw.migration.run_dir,
            link_grace: Duration::from_secs(raw.migration.link_grace_seconds),
            bandwidth_mbit: raw.migration.bandwidth_mbit,
            sharing: if raw.migration.yields { Sharing::Yielding } else { Sharing::Fair },
            channels: raw.migration.channels,
            checkpoints: Limits {
                total: ByteCount::mib(raw.migration.checkpoint_mib.into()),
                age: Duration::from_secs(u64::from(raw.migration.checkpoint_days) * DAY_SECONDS),
                reserve: CHECKPOINT_RESERVE,
            },
            log_level: raw.log.level,
            log_json: raw.log.json,
        });
        faults.into_result(config)
    }

    /// Where the certificate is kept.
    pub fn identity_dir(&self) -> PathBuf {
        self.data_dir.join("identity")
    }
}

fn is_host_or_network(text: &str) -> bool {
    text.parse::<ipnet::IpNet>().is_ok() || text.parse::<IpAddr>().is_ok() || text.parse::<Name>().is_ok()
}

fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, Faults> {
        Config::check(config::parse(text, []).unwrap(), "node-1")
    }

    #[test]
    fn an_advertised_address_is_enough() {
        let config = check("[agent]\nquic_advertise = '10.0.0.1:8092'").unwrap();
        assert_eq!((config.name.as_str(), config.bridge.as_str()), ("node-1", "novabr0"));
    }

    #[test]
    fn a_lost_link_is_waited_for_shorter_than_libvirt_waits() {
        let with = |grace: &str| format!("[agent]\nquic_advertise = '10.0.0.1:8092'\n[migration]\n{grace}");
        assert_eq!(check(&with("")).unwrap().link_grace, Duration::from_secs(15));
        assert_eq!(check(&with("link_grace_seconds = 29")).unwrap().link_grace, Duration::from_secs(29));
        for refused in ["link_grace_seconds = 30", "link_grace_seconds = 0"] {
            let faults = check(&with(refused)).unwrap_err();
            assert!(faults.to_string().contains("link_grace_seconds"), "{faults}");
        }
    }

    #[test]
    fn checkpoints_are_bounded_by_size_and_age_and_can_be_left_out() {
        let with = |keys: &str| format!("[agent]\nquic_advertise = '10.0.0.1:8092'\n[migration]\n{keys}");
        let usual = check(&with("")).unwrap().checkpoints;
        assert_eq!((usual.total, usual.age.as_secs()), (ByteCount::gib(4), 7 * 86_400));
        assert_eq!(check(&with("checkpoint_mib = 0")).unwrap().checkpoints.total, ByteCount(0));
        let faults = check(&with("checkpoint_days = 0")).unwrap_err().to_string();
        assert!(faults.contains("checkpoint_days"), "{faults}");
    }

    #[test]
    fn no_machine_is_shown_what_the_agent_keeps() {
        let with = |keys: &str| {
            format!(
                "[agent]\nquic_advertise = '10.0.0.1:8092'\ndata_dir = '/var/lib/nova'\n[namespace]\n{keys}"
            )
        };
        let usual = check(&with("")).unwrap();
        assert_eq!((usual.volume_folders.len(), usual.volume_size), (0, ByteCount::gib(1)));
        let given = check(&with("volume_folders = ['/srv', '/var/lib/nova-data']\nvolume_size_mb = 16"));
        assert_eq!(given.unwrap().volume_folders.len(), 2);
        for wrong in [
            "volume_folders = ['/']",
            "volume_folders = ['/var/lib']",
            "volume_folders = ['/var/lib/nova/volumes']",
            "volume_folders = ['srv']",
            "volume_size_mb = 15",
        ] {
            let faults = check(&with(wrong)).unwrap_err();
            assert!(faults.to_string().contains("namespace.volume_"), "{wrong}: {faults}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let text = "[agent]\nname = 'a b'\nmetrics_listen = '0.0.0.0:9'\n[images]\nfolders = ['x']\nurl_allow = ['<>']\n\
                    [jobs]\nurl_allow = ['a b']\nroots = 'x'\nattempts_max = 0\n[migration]\nlink_grace_seconds = 30";
        let fields: Vec<_> = check(text).unwrap_err().0.into_iter().map(|f| f.field).collect();
        let expected = [
            "agent.name",
            "agent.quic_advertise",
            "agent.metrics_listen",
            "images.folders",
            "images.url_allow",
            "jobs.url_allow",
            "jobs.roots",
            "jobs.attempts_max",
            "migration.link_grace_seconds",
        ];
        assert_eq!(fields, expected);
    }
}
