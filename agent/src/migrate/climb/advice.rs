//! What a person is told when a copy is given up: which limit it was, by how much, and what would help.

use super::Look;
use novacron_common::{
    record::{Limit, MoveLimits, Strategy},
    units::ByteCount,
};

/// A copy that is given up.
pub(super) struct Case {
    /// What it had to keep to.
    pub limits: MoveLimits,
    /// What it could not keep to.
    pub limit: Limit,
    /// What it looked like last.
    pub look: Look,
    /// What a pause would have had to take, bytes.
    pub left: u64,
    /// Bytes a second.
    pub rate: u64,
}

/// Says it.
pub(super) fn advice(case: &Case) -> String {
    let helps = remedies(case).join(", or ");
    format!("{}. The machine runs on where it was. What would help: {helps}", what_happened(case))
}

fn what_happened(case: &Case) -> String {
    let Case { limits, limit, look, left, rate } = case;
    let at = match look.iteration {
        0 => "while its disks were copied".to_owned(),
        pass => format!("in pass {pass} over its memory"),
    };
    let (left, rate) = (ByteCount(*left), ByteCount(*rate));
    match limit {
        Limit::Deadline => {
            let seconds = seconds(limits.deadline_ms.unwrap_or_default());
            format!("the deadline of {seconds} passed {at}, with up to {left} left at {rate} a second")
        }
        Limit::MaxDowntime => {
            let pause = seconds(limits.pause_ms().into());
            format!(
                "it did not converge: the guest writes as fast as is sent, {at} up to {left} were left at {rate} a second, \
                 and a pause of {pause} is too short for that"
            )
        }
    }
}

fn remedies(case: &Case) -> Vec<String> {
    let Case { limits, limit, look, .. } = case;
    let mut remedies = Vec::new();
    if *limit == Limit::Deadline {
        remedies.push("a later deadline".to_owned());
    }
    if look.iteration == 0 {
        remedies.push("\"live\": false, as the guest writes to its disk faster than is sent".to_owned());
        return remedies;
    }
    if look.iteration == 1 {
        remedies.push("a faster link".to_owned());
        return remedies;
    }
    let pause = pause_needed(case);
    if let Some(pause) = pause.filter(|pause| *pause > limits.pause_ms().into()) {
        remedies.push(format!("max_downtime_ms {pause}"));
    }
    match limits.strategy {
        Strategy::Auto if limits.max_slowdown_pct < MoveLimits::SLOWDOWN_PCT_MAX => {
            remedies.push(format!("max_slowdown_pct above {}", limits.max_slowdown_pct));
        }
        Strategy::Precopy => remedies.push("strategy auto with max_slowdown_pct".to_owned()),
        Strategy::Auto | Strategy::StopAndCopy | Strategy::Postcopy => {}
    }
    if limits.strategy != Strategy::StopAndCopy || limits.max_downtime_ms.is_some() {
        let about = pause.map_or_else(String::new, |pause| format!(" (a pause of about {})", seconds(pause)));
        remedies.push(format!("strategy stop_and_copy without max_downtime_ms{about}"));
    }
    remedies.push("a faster link, or a time at which the guest is less busy".to_owned());
    remedies
}

/// The pause in which the rest could have been sent, with a quarter in hand, in whole tenths of a second; `None` if nothing
/// is known, or no hypervisor plans for one that long.
fn pause_needed(case: &Case) -> Option<u64> {
    let millis = (u128::from(case.left) * 1250).checked_div(u128::from(case.rate))?;
    let tenths = millis.div_ceil(100) * 100;
    u64::try_from(tenths).ok().filter(|pause| *pause <= MoveLimits::PAUSE_MS_MAX.into())
}

fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
