//! `agent.toml` as it is written, with what counts where it says nothing.

use crate::{
    attempt::Settings,
    hypervisor::{
        libvirt::{AccelSetting, CpuModel},
        namespace::Volumes,
    },
    migrate::channels::Channels,
};
use serde::Deserialize;
use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    pub agent: RawAgent,
    pub network: RawNetwork,
    pub images: RawImages,
    pub hypervisor: RawHypervisor,
    pub namespace: RawNamespace,
    pub jobs: RawJobs,
    pub migration: RawMigration,
    pub log: RawLog,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawAgent {
    pub name: Option<String>,
    pub data_dir: PathBuf,
    pub quic_listen: SocketAddr,
    pub quic_advertise: Option<SocketAddr>,
    pub memory_reserve_mb: u64,
    pub metrics_listen: Option<SocketAddr>,
}

impl Default for RawAgent {
    fn default() -> Self {
        Self {
            name: None,
            data_dir: "/var/lib/novacron/agent".into(),
            quic_listen: SocketAddr::from(([0, 0, 0, 0], 8092)),
            quic_advertise: None,
            memory_reserve_mb: 512,
            metrics_listen: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNetwork {
    pub bridge: String,
    pub uplink: Option<String>,
}

impl Default for RawNetwork {
    fn default() -> Self {
        Self { bridge: "novabr0".into(), uplink: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawImages {
    pub folders: Vec<PathBuf>,
    pub url_allow: Vec<String>,
    pub size_max_gb: u64,
    pub timeout_seconds: u64,
}

impl Default for RawImages {
    fn default() -> Self {
        Self {
            folders: vec!["/var/lib/novacron/import".into()],
            url_allow: Vec::new(),
            size_max_gb: 64,
            timeout_seconds: 1800,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHypervisor {
    pub enabled: bool,
    pub libvirt_uri: String,
    pub libvirt_socket: PathBuf,
    pub accel: AccelSetting,
    pub cpu_model: CpuModel,
    pub qemu_user: Option<String>,
}

impl Default for RawHypervisor {
    fn default() -> Self {
        Self {
            enabled: true,
            libvirt_uri: "qemu:///system".into(),
            libvirt_socket: "/run/libvirt/libvirt-sock".into(),
            accel: AccelSetting::Auto,
            cpu_model: CpuModel::Host,
            qemu_user: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNamespace {
    pub enabled: bool,
    pub volume_folders: Vec<PathBuf>,
    pub volume_size_mb: u64,
}

impl Default for RawNamespace {
    fn default() -> Self {
        Self { enabled: true, volume_folders: Vec::new(), volume_size_mb: Volumes::SIZE_USUAL.as_mib() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawJobs {
    pub attempts_max: u32,
    pub url_allow: Vec<String>,
    pub roots: PathBuf,
}

impl Default for RawJobs {
    fn default() -> Self {
        Self { attempts_max: 512, url_allow: Vec::new(), roots: Settings::ROOTS.into() }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawMigration {
    pub run_dir: PathBuf,
    pub link_grace_seconds: u64,
    pub bandwidth_mbit: Option<NonZeroU32>,
    #[serde(rename = "yield")]
    pub yields: bool,
    pub channels: Channels,
    pub checkpoint_mib: u32,
    pub checkpoint_days: u32,
}

impl Default for RawMigration {
    fn default() -> Self {
        Self {
            run_dir: "/run/novacron".into(),
            link_grace_seconds: 15,
            bandwidth_mbit: None,
            yields: false,
            channels: Channels::Auto,
            checkpoint_mib: 4096,
            checkpoint_days: 7,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    pub level: String,
    pub json: bool,
}

impl Default for RawLog {
    fn default() -> Self {
        Self { level: "info".into(), json: false }
    }
}
