//! How hard QEMU may push a copy: the pause that it plans for, and how much of a guest's processors' time it withholds.
//!
//! libvirt passes on where the throttle begins and how it grows, but not where it ends: QEMU goes to 99 percent. So its
//! end is told to QEMU itself (`max-cpu-throttle`), before the move: during one libvirt lets no such command pass. It stays
//! as it was told, and means nothing in a move that does not throttle.

use super::{super::HvError, Libvirt};
use novacron_common::{ids::VmId, record::MoveLimits};
use serde_json::{Value, json};
use virt::{domain::Domain, error::Error as VirtError};

/// Where QEMU's throttle begins and by what it grows, percent: its own defaults.
const FIRST_PCT: u8 = MoveLimits::SLOWDOWN_FIRST_PCT;
const INCREMENT_PCT: u8 = MoveLimits::SLOWDOWN_MORE_PCT;

/// A throttle (`auto-converge`), in percent of the guest's processors' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Where it begins.
    pub first: u8,
    /// By what it grows, each time that it does not do.
    pub increment: u8,
    /// Where it ends.
    pub last: u8,
}

impl Throttle {
    /// One that ends at `percent`; `None` if that is nothing.
    pub fn up_to(percent: u8) -> Option<Self> {
        (percent > 0).then_some(Self {
            first: FIRST_PCT.min(percent),
            increment: INCREMENT_PCT,
            last: percent,
        })
    }

    /// Both ends in one command: QEMU refuses an end that lies before the beginning.
    fn command(self) -> String {
        let arguments = json!({ "cpu-throttle-initial": self.first, "max-cpu-throttle": self.last });
        json!({ "execute": "migrate-set-parameters", "arguments": arguments }).to_string()
    }
}

/// QEMU did not take a parameter.
#[derive(Debug, thiserror::Error)]
#[error("QEMU refuses: {0}")]
struct Refused(String);

/// An answer without an error. libvirt passes on QEMU's refusals as answers.
fn taken(answer: &str) -> Result<(), Refused> {
    let said: Value = serde_json::from_str(answer).map_err(|_| Refused(answer.to_owned()))?;
    match said.get("return") {
        Some(_) => Ok(()),
        None => Err(Refused(said["error"]["desc"].as_str().unwrap_or(answer).to_owned())),
    }
}

impl Libvirt {
    /// Tells QEMU the longest pause that it may plan for, in this move or the next, milliseconds
    /// (`virDomainMigrateSetMaxDowntime`).
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's.
    pub async fn allow_downtime(&self, vm: VmId, pause_ms: u32) -> Result<(), HvError> {
        let allow = move |domain: &Domain| domain.migrate_set_max_downtime(pause_ms.into(), 0);
        self.connection.on_domain(vm, "allow a pause of", allow).await
    }

    /// Tells QEMU where the throttle of the next move ends.
    ///
    /// # Errors
    /// [`HvError::Unknown`], libvirt's, or QEMU's refusal.
    pub async fn bound_throttle(&self, vm: VmId, throttle: Throttle) -> Result<(), HvError> {
        let doing = "bound the throttle of";
        let command = throttle.command();
        let tell =
            move |domain: &Domain| -> Result<String, VirtError> { domain.qemu_monitor_command(&command, 0) };
        let answer = self.connection.on_domain(vm, doing, tell).await?;
        taken(&answer).map_err(|refused| HvError::failed(format!("{doing} {vm}"), refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_throttle_ends_where_it_is_told_and_never_begins_behind_that() {
        assert_eq!(Throttle::up_to(0), None);
        assert_eq!(Throttle::up_to(5), Some(Throttle { first: 5, increment: 10, last: 5 }));
        let throttle = Throttle::up_to(99).unwrap();
        assert_eq!((throttle.first, throttle.last), (20, 99));
        let command: Value = serde_json::from_str(&throttle.command()).unwrap();
        assert_eq!(command["arguments"], json!({ "cpu-throttle-initial": 20, "max-cpu-throttle": 99 }));
    }

    #[test]
    fn a_refusal_is_no_consent() {
        assert!(taken(r#"{"return":{},"id":"libvirt-7"}"#).is_ok());
        let refused =
            taken(r#"{"id":"x","error":{"class":"GenericError","desc":"out of range"}}"#).unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refuses: out of range");
        assert!(taken("what").is_err());
    }
}
