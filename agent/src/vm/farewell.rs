//! What is said of a machine that was stopped: whether it ended on being asked, or was ended. Pure.

use crate::hypervisor::Halt;
use novacron_common::spec::StopTerms;

/// Nothing where it came as it was wanted without being asked.
pub(super) fn word(terms: StopTerms, halt: Halt) -> Option<String> {
    if terms.grace_ms == 0 {
        return None;
    }
    match halt {
        Halt::WasDown => None,
        Halt::OnAsking(Some(signal)) => Some(format!("ended on SIG{signal}")),
        Halt::OnAsking(None) => Some("shut down when asked".to_owned()),
        Halt::Overdue { signal: Some(signal), grace } => {
            Some(format!("killed: it had not ended {grace:?} after SIG{signal}"))
        }
        Halt::Overdue { signal: None, grace } => {
            Some(format!("power cut: the guest had not shut down {grace:?} after it was asked"))
        }
        Halt::Unasked => {
            Some("ended at once: it was paused, and could not hear that it was to end".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::spec::Signal;
    use std::time::Duration;

    #[test]
    fn it_says_what_was_asked_and_what_came_of_it() {
        let grace = Duration::from_millis(1500);
        let late = |signal| Halt::Overdue { signal, grace };
        let said = |halt| word(StopTerms::within_ms(1500), halt);
        let quit = Some(Signal::Quit);
        assert_eq!(said(Halt::OnAsking(quit)).unwrap(), "ended on SIGQUIT");
        assert_eq!(said(late(quit)).unwrap(), "killed: it had not ended 1.5s after SIGQUIT");
        let cut = said(late(None)).unwrap();
        assert!(cut.contains("1.5s") && cut.contains("power cut"), "{cut}");
        assert!(said(Halt::Unasked).unwrap().contains("paused"));
        assert_eq!(said(Halt::WasDown), None);
        for halt in [Halt::OnAsking(quit), Halt::OnAsking(None), late(quit), Halt::Unasked] {
            assert_eq!(word(StopTerms::AT_ONCE, halt), None);
        }
    }
}
