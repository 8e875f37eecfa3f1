//! What a machine has used since it was started, as libvirt counts it.

use super::connection::Connection;
use crate::{
    clock,
    hypervisor::{HvError, Usage},
};
use novacron_common::{
    ids::VmId,
    record::{DiskTraffic, NetworkTraffic, VmStatistics},
    spec::MacAddress,
    units::ByteCount,
};
use std::time::Duration;
use virt::{
    domain::{BlockStats, Domain, InterfaceStats},
    error::Error as VirtError,
    sys,
};

/// To libvirt the sum over all disks.
const ALL_DISKS: &str = "";

/// See [`crate::hypervisor::Hypervisor::usage`].
pub(super) async fn usage(connection: &Connection, vm: VmId) -> Result<Usage, HvError> {
    let usage = |domain: &Domain| if domain.is_active()? { used(domain) } else { Ok(Usage::default()) };
    connection.on_domain(vm, "measure", usage).await
}

fn used(domain: &Domain) -> Result<Usage, VirtError> {
    let resident = domain.memory_stats(0)?;
    let resident = resident.iter().find(|stat| stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS);
    Ok(Usage {
        cpu: Duration::from_nanos(domain.info()?.cpu_time),
        memory: resident.map_or_else(ByteCount::default, |stat| ByteCount::kib(stat.val)),
    })
}

/// See [`crate::hypervisor::Hypervisor::statistics`].
pub(super) async fn of(connection: &Connection, vm: VmId) -> Result<VmStatistics, HvError> {
    let card = MacAddress::of_vm(vm).to_string();
    let statistics = move |domain: &Domain| {
        let nothing = VmStatistics::none(clock::now());
        if !domain.is_active()? {
            return Ok(nothing);
        }
        let used = used(domain)?;
        Ok(VmStatistics {
            cpu_ms: u64::try_from(used.cpu.as_millis()).unwrap_or(u64::MAX),
            memory: used.memory,
            // A machine need not have either.
            disk: domain.block_stats(ALL_DISKS).ok().map(|disk| disk_traffic(&disk)),
            network: domain.interface_stats(&card).ok().map(|card| network_traffic(&card)),
            ..nothing
        })
    };
    connection.on_domain(vm, "measure", statistics).await
}

fn disk_traffic(disk: &BlockStats) -> DiskTraffic {
    DiskTraffic {
        read: ByteCount(counted(disk.rd_bytes)),
        reads: counted(disk.rd_req),
        written: ByteCount(counted(disk.wr_bytes)),
        writes: counted(disk.wr_req),
    }
}

fn network_traffic(card: &InterfaceStats) -> NetworkTraffic {
    NetworkTraffic {
        received: ByteCount(counted(card.rx_bytes)),
        packets_received: counted(card.rx_packets),
        sent: ByteCount(counted(card.tx_bytes)),
        packets_sent: counted(card.tx_packets),
    }
}

/// To libvirt -1 is what is not counted.
fn counted(counter: i64) -> u64 {
    u64::try_from(counter).unwrap_or_default()
}
