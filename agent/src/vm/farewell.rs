//! What is said of a machine that was stopped: whether it ended on being asked, or was ended. Pure.

use crate::hypervisor::Halt;
use novacron_common::spec::{MachineKind, StopTerms};

/// Nothing where it came as it was wanted without being asked.
pub(super) fn word(kind: MachineKind, terms: StopTerms, halt: Halt) -> Option<String> {
    let (signal, is_asked) = (terms.signal, terms.grace_ms > 0);
    let word = match (halt, kind) {
        _ if !is_asked => return None,
        (Halt::ByItself, MachineKind::Namespace) => format!("ended on SIG{signal}"),
        (Halt::ByItself, MachineKind::Kvm) => "shut down when asked".to_owned(),
        (Halt::Overdue(grace), MachineKind::Namespace) => {
            format!("killed: it had not ended {grace:?} after SIG{signal}")
        }
        (Halt::Overdue(grace), MachineKind::Kvm) => {
            format!("power cut: the guest had not shut down {grace:?} after it was asked")
        }
        (Halt::Unasked, _) => {
            "ended at once: it was paused, and could not hear that it was to end".to_owned()
        }
    };
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::spec::Signal;
    use std::time::Duration;

    #[test]
    fn it_says_what_was_asked_and_what_came_of_it() {
        let terms = StopTerms { signal: Signal::Quit, grace_ms: 1500 };
        let late = Halt::Overdue(Duration::from_millis(1500));
        let said = |kind, halt| word(kind, terms, halt).unwrap();
        assert_eq!(said(MachineKind::Namespace, Halt::ByItself), "ended on SIGQUIT");
        assert_eq!(said(MachineKind::Namespace, late), "killed: it had not ended 1.5s after SIGQUIT");
        assert!(
            said(MachineKind::Kvm, late).contains("1.5s") && !said(MachineKind::Kvm, late).contains("SIG")
        );
        assert!(said(MachineKind::Namespace, Halt::Unasked).contains("paused"));
        for halt in [Halt::ByItself, late, Halt::Unasked] {
            assert_eq!(word(MachineKind::Namespace, StopTerms::AT_ONCE, halt), None);
        }
    }
}
