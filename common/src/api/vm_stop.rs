//! How a machine is stopped, over HTTP.

use crate::spec::{Faults, MachineKind, Signal, StopTerms};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/v1/vms/{id}/stop` and `/restart`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VmStop {
    /// Seconds that the guest is given to shut down before its power is cut (default 30; 0 cuts at once).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u32>,
    /// What a namespace machine's command is sent, to end on (default: what its image names, or else TERM; KILL ends it at once). A
    /// KVM machine has a power button, and takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<Signal>,
}

impl VmStop {
    /// Seconds that a guest is given where nothing is said.
    pub const GRACE_SECONDS_DEFAULT: u32 = 30;
    /// Longest grace.
    pub const GRACE_SECONDS_MAX: u32 = 3600;

    /// The terms, for a machine of this kind.
    ///
    /// # Errors
    /// The faults of what was asked.
    pub fn terms(&self, kind: MachineKind) -> Result<StopTerms, Faults> {
        let mut faults = Faults::default();
        let seconds = self.grace_seconds.unwrap_or(Self::GRACE_SECONDS_DEFAULT);
        if seconds > Self::GRACE_SECONDS_MAX {
            faults.add("grace_seconds", format!("must be at most {}", Self::GRACE_SECONDS_MAX));
        }
        if kind == MachineKind::Kvm && self.signal.is_some_and(|signal| signal != Signal::Term) {
            faults.add("signal", "is for namespace machines: a KVM machine is asked by its power button");
        }
        let grace_ms = if self.signal == Some(Signal::Kill) { 0 } else { u64::from(seconds) * 1000 };
        faults.into_result(Some(StopTerms { signal: self.signal, grace_ms }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_says_what_to_send_and_how_long_to_wait() {
        let stop = |grace_seconds, signal| VmStop { grace_seconds, signal };
        let usual = StopTerms::within_ms(30_000);
        for kind in [MachineKind::Kvm, MachineKind::Namespace] {
            assert_eq!(VmStop::default().terms(kind).unwrap(), usual);
            assert_eq!(stop(Some(0), None).terms(kind).unwrap(), StopTerms::AT_ONCE);
            assert!(stop(None, Some(Signal::Term)).terms(kind).is_ok());
            assert!(stop(Some(3601), None).terms(kind).is_err());
        }
        let quit = stop(Some(2), Some(Signal::Quit));
        assert_eq!(
            quit.terms(MachineKind::Namespace).unwrap(),
            StopTerms { signal: Some(Signal::Quit), grace_ms: 2000 }
        );
        assert!(quit.terms(MachineKind::Kvm).unwrap_err().to_string().contains("power button"));
        // Nothing hears a KILL: there is nothing to wait for.
        assert_eq!(stop(Some(9), Some(Signal::Kill)).terms(MachineKind::Namespace).unwrap().grace_ms, 0);
    }
}
