//! The configuration files of the lab's cluster.

use anyhow::Result;
use novacron_common::record::Accel;
use toml::{Table, Value};

use super::{AGENT_PORT, API_PORT, COORDINATOR_PORT, ClusterOptions};
use crate::bins;
use crate::lab::{Host, QemuUser, addr};

/// What the lab's agents log, for who looks into a run (`novacron_transport=debug,info`); their default where it is not set.
const LOG_LEVEL: &str = "NOVACRON_LAB_LOG";

/// `coordinator.toml` for the coordinator in the outside node.
pub fn coordinator(options: &ClusterOptions) -> String {
    let mut config = Table::new();
    let address = addr::OUTSIDE_LAN;
    set(&mut config, "coordinator", "name", "c1");
    set(&mut config, "coordinator", "quic_listen", format!("0.0.0.0:{COORDINATOR_PORT}"));
    set(&mut config, "coordinator", "quic_advertise", format!("{address}:{COORDINATOR_PORT}"));
    set(&mut config, "http", "listen", format!("0.0.0.0:{API_PORT}"));
    set(&mut config, "http", "advertise", format!("{address}:{API_PORT}"));
    if let Some(seconds) = options.certificate_seconds {
        set(&mut config, "certificates", "validity_seconds", i64::from(seconds));
    }
    config.to_string()
}

/// `agent.toml` for a host's agent.
pub fn agent(host: &Host, options: &ClusterOptions) -> Result<String> {
    let mut config = Table::new();
    set(&mut config, "agent", "name", host.name());
    set(&mut config, "agent", "quic_listen", format!("0.0.0.0:{AGENT_PORT}"));
    set(&mut config, "agent", "quic_advertise", format!("{}:{AGENT_PORT}", host.address()));
    set(&mut config, "network", "uplink", "eth1");
    let accel = match options.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "tcg",
    };
    set(&mut config, "hypervisor", "accel", accel);
    if let Some(model) = &options.cpu_model {
        set(&mut config, "hypervisor", "cpu_model", model.as_str());
    }
    if host.qemu_user() == QemuUser::LibvirtQemu {
        set(&mut config, "hypervisor", "qemu_user", "libvirt-qemu");
    }
    if let Some(channels) = options.channels {
        set(&mut config, "migration", "channels", i64::from(channels));
    }
    if let Some(socket) = &options.control_socket {
        set(&mut config, "hypervisor", "libvirt_socket", socket.as_str());
    }
    if let Ok(level) = std::env::var(LOG_LEVEL) {
        set(&mut config, "log", "level", level);
    }
    // The guest's kernel, initramfs and empty disks are where they were built: the hosts see the machine's files.
    let images = bins::lab_dir()?.display().to_string();
    set(&mut config, "images", "folders", vec![Value::from(images)]);
    Ok(config.to_string())
}

fn set(config: &mut Table, section: &str, key: &str, value: impl Into<Value>) {
    let section = config.entry(section).or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coordinators_file_is_toml_with_its_certificate_lifetime() {
        let options = ClusterOptions { certificate_seconds: Some(60), ..ClusterOptions::two_hosts("t") };
        let config: Table = coordinator(&options).parse().unwrap();
        assert_eq!(config["certificates"]["validity_seconds"].as_integer(), Some(60));
        assert_eq!(config["http"]["advertise"].as_str(), Some("10.90.0.1:8090"));
    }
}
