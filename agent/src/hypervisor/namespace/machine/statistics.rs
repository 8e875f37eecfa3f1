//! What a machine has used since it was started: its cgroup's counters, its own disk's, and its network namespace's.

use super::life::Shared;
use crate::{clock, hypervisor::HvError};
use novacron_common::{
    ids::VmId,
    record::{NetworkTraffic, VmStatistics},
    units::ByteCount,
};

impl Shared {
    pub(super) fn statistics(&self, vm: VmId) -> Result<VmStatistics, HvError> {
        self.defined(vm)?;
        let at = clock::now();
        if !self.live().contains_key(&vm) {
            return Ok(VmStatistics::none(at));
        }
        let (used, run) = (self.group(vm).usage(), self.run_folder(vm));
        let disk = run.disk().ok().flatten();
        let init = run.init().ok().flatten();
        Ok(VmStatistics {
            at,
            cpu_ms: u64::try_from(used.cpu.as_millis()).unwrap_or(u64::MAX),
            memory: used.memory,
            processes: Some(used.pids),
            disk: disk.and_then(|disk| disk.since().ok()),
            network: init.and_then(network),
        })
    }
}

/// As the process with this number of the host sees it; it has ended if there is nothing to see.
fn network(init: i32) -> Option<NetworkTraffic> {
    cards(&std::fs::read_to_string(format!("/proc/{init}/net/dev")).ok()?)
}

/// Pure: the sum over all cards of `/proc/PID/net/dev` (`proc_pid_net(5)`) but the loopback.
fn cards(text: &str) -> Option<NetworkTraffic> {
    let cards = text.lines().filter_map(|line| line.split_once(':'));
    let cards = cards.filter(|(name, _)| name.trim() != "lo").filter_map(|(_, counters)| card(counters));
    cards.reduce(|a, b| NetworkTraffic {
        received: ByteCount(a.received.0.saturating_add(b.received.0)),
        packets_received: a.packets_received.saturating_add(b.packets_received),
        sent: ByteCount(a.sent.0.saturating_add(b.sent.0)),
        packets_sent: a.packets_sent.saturating_add(b.packets_sent),
    })
}

/// Eight counters of what was received, then as many of what was sent.
fn card(counters: &str) -> Option<NetworkTraffic> {
    let counters: Option<Vec<u64>> =
        counters.split_ascii_whitespace().map(|field| field.parse().ok()).collect();
    match counters?.as_slice() {
        [received, packets_received, _, _, _, _, _, _, sent, packets_sent, ..] => Some(NetworkTraffic {
            received: ByteCount(*received),
            packets_received: *packets_received,
            sent: ByteCount(*sent),
            packets_sent: *packets_sent,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs\n";
    const LOOPBACK: &str =
        "    lo:     900      9    0    0    0     0          0         0      900       9\n";

    #[test]
    fn all_cards_but_the_loopback_are_counted() {
        let two = "  eth0: 1000 10 0 0 0 0 0 0 70 7 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 2 0 0 0 0 0 0\n";
        let sum = NetworkTraffic {
            received: ByteCount(1005),
            packets_received: 11,
            sent: ByteCount(76),
            packets_sent: 9,
        };
        assert_eq!(cards(&format!("{HEAD}{LOOPBACK}{two}")), Some(sum));
    }

    #[test]
    fn a_machine_without_a_network_has_no_counters_of_one() {
        assert_eq!(cards(&format!("{HEAD}{LOOPBACK}")), None);
    }
}
