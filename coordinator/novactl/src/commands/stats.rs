//! What machines use: two looks, and what lies between them.

use super::{Context, segment};
use crate::{
    cli::VmStatsArgs,
    error::CtlError,
    output::{self, Row, word},
};
use novacron_common::{
    api::VmStats,
    record::{DiskTraffic, NetworkTraffic},
    units::ByteCount,
};
use serde::{Serialize, Serializer};
use std::{collections::HashMap, time::Duration};
use tokio::time::sleep;

/// Between the two looks where nothing is said: less, and the clock's grain shows.
const APART: Duration = Duration::from_secs(1);

/// A look at a machine, and the one before.
struct Seen {
    now: VmStats,
    before: Option<VmStats>,
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.now.serialize(serializer)
    }
}

impl Row for Seen {
    const TITLES: &'static [&'static str] = &[
        "name",
        "state",
        "cpu",
        "cpu time",
        "memory",
        "processes",
        "disk read/written",
        "net received/sent",
    ];
    fn cells(&self) -> Vec<String> {
        let used = &self.now.used;
        let dash = || "-".to_owned();
        let disk = |disk: DiskTraffic| format!("{} / {}", disk.read, disk.written);
        let network = |net: NetworkTraffic| format!("{} / {}", net.received, net.sent);
        vec![
            self.now.name.clone(),
            word(&self.now.state),
            self.before.as_ref().and_then(|before| busy(before, &self.now)).unwrap_or_else(dash),
            format!("{}.{:01}s", used.cpu_ms / 1000, used.cpu_ms % 1000 / 100),
            share(used.memory, self.now.memory_limit),
            used.processes.map_or_else(dash, |count| count.to_string()),
            used.disk.map_or_else(dash, disk),
            used.network.map_or_else(dash, network),
        ]
    }
}

/// Pure: the processor time between two looks in hundredths of one processor; none where the machine was started anew in between.
fn busy(before: &VmStats, now: &VmStats) -> Option<String> {
    let passed = u64::try_from(now.used.at.0.checked_sub(before.used.at.0)?).ok().filter(|ms| *ms > 0)?;
    let used = now.used.cpu_ms.checked_sub(before.used.cpu_ms)?;
    let tenths = used * 1000 / passed;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

fn share(used: ByteCount, limit: ByteCount) -> String {
    format!("{used} / {limit}")
}

/// Shows them once, or again and again until it is interrupted.
pub async fn run(context: &Context, args: VmStatsArgs) -> Result<(), CtlError> {
    let mut before = look(context, &args.vms).await?;
    loop {
        sleep(args.every.map_or(APART, |seconds| Duration::from_secs(seconds.into()))).await;
        let now = look(context, &args.vms).await?;
        let mut known: HashMap<_, _> = before.into_iter().map(|seen| (seen.id, seen)).collect();
        let seen: Vec<Seen> =
            now.iter().map(|now| Seen { now: now.clone(), before: known.remove(&now.id) }).collect();
        output::list(&seen, context.format)?;
        if args.every.is_none() {
            return Ok(());
        }
        before = now;
    }
}

async fn look(context: &Context, vms: &[String]) -> Result<Vec<VmStats>, CtlError> {
    let mut seen = Vec::with_capacity(vms.len());
    for vm in vms {
        seen.push(context.client.get(&format!("/api/v1/vms/{}/stats", segment(vm))).await?);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{
        ids::{HostId, VmId},
        record::{VmState, VmStatistics},
        units::UnixMillis,
    };

    fn look(at: i64, cpu_ms: u64) -> VmStats {
        VmStats {
            id: VmId::from_u128(1),
            name: "box".into(),
            state: VmState::Running,
            host: HostId::from_u128(1),
            cpus: 2,
            memory_limit: ByteCount::mib(64),
            used: VmStatistics { cpu_ms, ..VmStatistics::none(UnixMillis(at)) },
        }
    }

    #[test]
    fn two_busy_processors_are_two_hundred_percent() {
        assert_eq!(busy(&look(1000, 500), &look(3000, 4500)).unwrap(), "200.0%");
        assert_eq!(busy(&look(1000, 500), &look(2000, 501)).unwrap(), "0.1%");
    }

    #[test]
    fn a_new_life_or_a_clock_that_was_set_back_have_no_share() {
        assert_eq!(busy(&look(1000, 500), &look(2000, 3)), None);
        assert_eq!(busy(&look(2000, 500), &look(1000, 600)), None);
        assert_eq!(busy(&look(1000, 500), &look(1000, 600)), None);
    }
}
