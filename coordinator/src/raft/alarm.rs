//! Tells the cluster when this coordinator's clock is off, and when it is right again.

use super::{clock::ClockVerdict, ledger::Inner};
use novacron_core::{CommandBody, command::ClockAlarm};
use novacron_runtime::time::sleep;
use std::{sync::Arc, time::Duration};

/// How often the clock is judged.
const PERIOD: Duration = Duration::from_secs(1);
/// An alarm is told anew when it has changed by more than this, milliseconds.
const CHANGE_MIN_MS: u64 = 250;

/// Watches the clock until the node stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut before = ClockVerdict::Unknown;
    loop {
        sleep(PERIOD).await;
        let verdict = inner.clock();
        let known = inner.machine.read(|state| state.alarms().get(&inner.node).map(|a| a.median_ahead_ms));
        // Twice the same: one odd sample is no alarm.
        if agrees(before, verdict)
            && let Some(median_ahead_ms) = news(verdict, known)
        {
            tell(&inner, median_ahead_ms).await;
        }
        before = verdict;
    }
}

const fn agrees(one: ClockVerdict, other: ClockVerdict) -> bool {
    one.may_fire() == other.may_fire()
}

/// What the ledger should be told, if it is not `known` there.
fn news(verdict: ClockVerdict, known: Option<i64>) -> Option<Option<i64>> {
    match (verdict, known) {
        (ClockVerdict::Unknown, _) | (ClockVerdict::Agrees, None) => None,
        (ClockVerdict::Agrees, Some(_)) => Some(None),
        (ClockVerdict::Off { median_ahead_ms }, known) => {
            let same = known.is_some_and(|known| known.abs_diff(median_ahead_ms) <= CHANGE_MIN_MS);
            (!same).then_some(Some(median_ahead_ms))
        }
    }
}

async fn tell(inner: &Inner, median_ahead_ms: Option<i64>) {
    match median_ahead_ms {
        Some(ms) => tracing::warn!(median_ahead_ms = ms, "this coordinator's clock is off: it fires nothing"),
        None => tracing::info!("this coordinator's clock is right again"),
    }
    let alarm = CommandBody::ClockAlarm(ClockAlarm { node: inner.node, median_ahead_ms });
    if let Err(error) = inner.commit(|| vec![alarm.clone()]).await {
        tracing::debug!(%error, "the alarm was not committed; it will be tried again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_once_and_taken_back_once() {
        let off = |median_ahead_ms| ClockVerdict::Off { median_ahead_ms };
        assert_eq!(news(off(900), None), Some(Some(900)));
        assert_eq!(news(off(910), Some(900)), None);
        assert_eq!(news(off(2000), Some(900)), Some(Some(2000)));
        assert_eq!(news(ClockVerdict::Agrees, Some(900)), Some(None));
        assert_eq!(news(ClockVerdict::Agrees, None), None);
        assert_eq!(news(ClockVerdict::Unknown, Some(900)), None, "nothing is known: nothing is told");
    }
}
