//! Which call may come when on a control lane. One gate serves one lane.

use super::{
    call::{self, Handover, Value},
    cookie::{self, BadCookie},
    domain::{self, Differs},
    element::{BadDocument, Element},
    frame::Frame,
    xdr::BadXdr,
};
use serde::{Deserialize, Serialize};

/// `REMOTE_PROGRAM`.
const REMOTE: u32 = 0x2000_8086;
/// `KEEPALIVE_PROGRAM`.
const KEEPALIVE: u32 = 0x6b65_6570;

/// The calls of one peer-to-peer migration (`remote_procedure`).
mod procedure {
    pub const OPEN: i32 = 1;
    pub const CLOSE: i32 = 2;
    pub const SUPPORTS_FEATURE: i32 = 60;
    pub const AUTH_LIST: i32 = 66;
    pub const PREPARE: i32 = 303;
    pub const FINISH: i32 = 306;
    pub const REGISTER_CLOSE: i32 = 360;
    pub const UNREGISTER_CLOSE: i32 = 361;
}

/// `virNetMessageType`.
mod kind {
    pub const CALL: u32 = 0;
    pub const REPLY: u32 = 1;
    pub const MESSAGE: u32 = 2;
}

/// `virDomainMigrateFlags` that matter here.
mod flag {
    pub const LIVE: u32 = 1;
    pub const PEER2PEER: u32 = 1 << 1;
    pub const PERSIST_DEST: u32 = 1 << 3;
    pub const UNDEFINE_SOURCE: u32 = 1 << 4;
    pub const PAUSED: u32 = 1 << 5;
    pub const NON_SHARED_DISK: u32 = 1 << 6;
    pub const NON_SHARED_INC: u32 = 1 << 7;
    pub const CHANGE_PROTECTION: u32 = 1 << 8;
    pub const UNSAFE: u32 = 1 << 9;
    pub const ABORT_ON_ERROR: u32 = 1 << 12;
    pub const AUTO_CONVERGE: u32 = 1 << 13;
    pub const POSTCOPY: u32 = 1 << 15;
    pub const PARALLEL: u32 = 1 << 17;

    /// Without these the target's guest could vanish with a connection.
    pub const REQUIRED: u32 = PEER2PEER | PERSIST_DEST;
    pub const ALLOWED: u32 = REQUIRED
        | PAUSED
        | LIVE
        | UNDEFINE_SOURCE
        | NON_SHARED_DISK
        | NON_SHARED_INC
        | CHANGE_PROTECTION
        | UNSAFE
        | ABORT_ON_ERROR
        | AUTO_CONVERGE
        | PARALLEL;
}

/// What the source must ask for.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The domain as this host would define it.
    pub domain: Element,
    /// The memory lane's URI.
    pub migrate_uri: String,
    /// The disk lane's URI.
    pub disks_uri: String,
    /// The one disk that may be copied, by its target name.
    pub disk: String,
    /// Whether the machine allows post-copy.
    pub post_copy: bool,
}

/// A call that went through, where it means something to the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passed {
    /// Nothing to note.
    Other,
    /// The target's QEMU is about to be started.
    Prepare,
    /// The source ends it, one way or the other.
    Finish {
        /// Whether it gave up.
        cancelled: bool,
        /// Whether libvirtd is to let the guest run at once: it went over before all of its memory had (post-copy). It
        /// must not pass before the hand-over is committed.
        runs: bool,
        /// Pairs it with its reply.
        serial: u32,
    },
}

/// A message that does not pass.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A program, version, call or message type that a migration does not need.
    #[error("procedure {procedure} of program {program:#x} (type {kind}) is not part of a migration")]
    Procedure {
        /// `REMOTE_PROGRAM` or another.
        program: u32,
        /// Its number.
        procedure: i32,
        /// `virNetMessageType`.
        kind: u32,
    },
    /// A call at the wrong time.
    #[error("{call} came while the lane was {state}")]
    Order {
        /// Which call.
        call: &'static str,
        /// Where the lane was.
        state: &'static str,
    },
    /// A body that is no such call.
    #[error("{call} cannot be read: {cause}")]
    Body {
        /// Which call.
        call: &'static str,
        /// Why.
        cause: BadXdr,
    },
    /// An argument other than what this migration needs.
    #[error("{call} asks for {what}")]
    Argument {
        /// Which call.
        call: &'static str,
        /// What.
        what: String,
    },
    /// The domain document is no XML that libvirt writes.
    #[error("the domain in {call} cannot be read")]
    Document {
        /// Which call.
        call: &'static str,
        /// Why.
        #[source]
        cause: BadDocument,
    },
    /// The domain is another than the one that was agreed upon.
    #[error("the domain in {call} is not the one that was agreed upon: {difference}")]
    Domain {
        /// Which call.
        call: &'static str,
        /// How.
        difference: Differs,
    },
    /// The cookie.
    #[error("{call} is refused: {cause}")]
    Cookie {
        /// Which call.
        call: &'static str,
        /// Why.
        cause: BadCookie,
    },
}

/// How far a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing was opened.
    Greeting,
    /// The hypervisor is.
    Open,
    /// The target's QEMU may listen.
    Prepared,
    /// The source has ended it.
    Finished,
    /// The hypervisor was closed.
    Closed,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "being greeted",
            Self::Open => "open",
            Self::Prepared => "prepared",
            Self::Finished => "finished",
            Self::Closed => "closed",
        }
    }
}

/// The state machine of one lane.
#[derive(Debug)]
pub struct Gate {
    expectation: Expectation,
    state: State,
}

impl Gate {
    /// A gate before the first message.
    pub fn new(expectation: Expectation) -> Self {
        Self::in_state(expectation, State::Greeting)
    }

    /// A gate through which so much has passed.
    pub fn in_state(expectation: Expectation, state: State) -> Self {
        Self { expectation, state }
    }

    /// How far it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Judges one message of the source.
    ///
    /// # Errors
    /// [`Refused`] says what was wrong; nothing more may pass then.
    pub fn judge(&mut self, frame: &Frame<'_>) -> Result<Passed, Refused> {
        let foreign =
            || Refused::Procedure { program: frame.program, procedure: frame.procedure, kind: frame.kind };
        match (frame.program, frame.version, frame.kind) {
            (KEEPALIVE, 1, kind::MESSAGE) if frame.payload.is_empty() => return Ok(Passed::Other),
            (REMOTE, 1, kind::CALL) if frame.status == 0 => {}
            _ => return Err(foreign()),
        }
        match frame.procedure {
            procedure::AUTH_LIST => self.step("an authentication list", State::Greeting, State::Greeting),
            procedure::SUPPORTS_FEATURE if frame.payload.len() == 4 => Ok(Passed::Other),
            procedure::OPEN => self.open(frame.payload),
            procedure::REGISTER_CLOSE | procedure::UNREGISTER_CLOSE if frame.payload.is_empty() => {
                Ok(Passed::Other)
            }
            procedure::PREPARE => self.prepare(frame.payload),
            procedure::FINISH => self.finish(frame),
            procedure::CLOSE if frame.payload.is_empty() => {
                self.state = State::Closed;
                Ok(Passed::Other)
            }
            _ => Err(foreign()),
        }
    }

    fn step(&mut self, call: &'static str, from: State, to: State) -> Result<Passed, Refused> {
        if self.state != from {
            return Err(Refused::Order { call, state: self.state.name() });
        }
        self.state = to;
        Ok(Passed::Other)
    }

    fn open(&mut self, payload: &[u8]) -> Result<Passed, Refused> {
        const CALL: &str = "Open";
        let open = call::open(payload).map_err(|cause| Refused::Body { call: CALL, cause })?;
        if open.name != Some("qemu:///system") || open.flags != 0 {
            let what = format!("{} with flags {}", open.name.unwrap_or("nothing"), open.flags);
            return Err(Refused::Argument { call: CALL, what });
        }
        self.step(CALL, State::Greeting, State::Open)
    }

    fn prepare(&mut self, payload: &[u8]) -> Result<Passed, Refused> {
        const CALL: &str = "Prepare";
        let prepare = call::prepare(payload).map_err(|cause| Refused::Body { call: CALL, cause })?;
        self.step(CALL, State::Open, State::Prepared)?;
        self.flags(CALL, prepare.flags)?;
        self.handover(CALL, &prepare, true)?;
        Ok(Passed::Prepare)
    }

    fn finish(&mut self, frame: &Frame<'_>) -> Result<Passed, Refused> {
        const CALL: &str = "Finish";
        let (finish, cancelled) =
            call::finish(frame.payload).map_err(|cause| Refused::Body { call: CALL, cause })?;
        self.step(CALL, State::Prepared, State::Finished)?;
        self.flags(CALL, finish.flags)?;
        self.handover(CALL, &finish, false)?;
        Ok(Passed::Finish { cancelled, runs: runs(finish.flags, cancelled), serial: frame.serial })
    }

    /// Without `PAUSED` the target's guest could run before the hand-over is committed. Post-copy does without, but only
    /// where the machine allows it.
    fn flags(&self, call: &'static str, flags: u32) -> Result<(), Refused> {
        let (allowed, required) = match flags & flag::POSTCOPY {
            0 => (flag::ALLOWED, flag::REQUIRED | flag::PAUSED),
            _ if self.expectation.post_copy => (flag::ALLOWED | flag::POSTCOPY, flag::REQUIRED),
            _ => (flag::ALLOWED, flag::REQUIRED),
        };
        let (extra, lacking) = (flags & !allowed, required & !flags);
        if extra == 0 && lacking == 0 {
            return Ok(());
        }
        let what = format!("flags {flags:#x}: {extra:#x} are not allowed, {lacking:#x} are missing");
        Err(Refused::Argument { call, what })
    }

    fn handover(&self, call: &'static str, body: &Handover<'_>, domain_needed: bool) -> Result<(), Refused> {
        let mut domains = 0;
        for (name, value) in &body.parameters {
            domains += usize::from(*name == "destination_xml");
            self.parameter(call, name, *value)?;
        }
        if domain_needed && domains != 1 {
            return Err(Refused::Argument { call, what: format!("{domains} domains") });
        }
        cookie::check(body.cookie, &self.expectation.domain).map_err(|cause| Refused::Cookie { call, cause })
    }

    fn parameter(&self, call: &'static str, name: &str, value: Value<'_>) -> Result<(), Refused> {
        let wanted = &self.expectation;
        let domain_name = wanted.domain.child("name").map(|element| element.text.as_str());
        let fits = match (name, value) {
            ("destination_xml" | "persistent_xml", Value::Text(text)) => return self.domain(call, text),
            ("destination_name", Value::Text(text)) => Some(text) == domain_name,
            ("migrate_uri", Value::Text(text)) => text == wanted.migrate_uri,
            ("disks_uri", Value::Text(text)) => text == wanted.disks_uri,
            ("migrate_disks", Value::Text(text)) => text == wanted.disk,
            ("bandwidth" | "parallel.connections", Value::Number(_)) => true,
            (tuning, Value::Number(_)) => tuning.starts_with("auto_converge."),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let what = match value {
            Value::Text(text) => format!("{name} {text:?}"),
            Value::Number(number) => format!("{name} {number}"),
        };
        Err(Refused::Argument { call, what })
    }

    fn domain(&self, call: &'static str, text: &str) -> Result<(), Refused> {
        let got = Element::parse(text).map_err(|cause| Refused::Document { call, cause })?;
        domain::compare(&self.expectation.domain, &got)
            .map_err(|difference| Refused::Domain { call, difference })
    }
}

/// A Finish that is no cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finishing {
    /// Pairs it with its reply.
    pub serial: u32,
    /// As in [`Passed::Finish`].
    pub runs: bool,
}

/// Whether `frame` is one.
pub fn finish_called(frame: &Frame<'_>) -> Option<Finishing> {
    let is_call = frame.program == REMOTE && frame.procedure == procedure::FINISH && frame.kind == kind::CALL;
    let (finish, cancelled) = is_call.then(|| call::finish(frame.payload).ok()).flatten()?;
    (!cancelled).then_some(Finishing { serial: frame.serial, runs: runs(finish.flags, cancelled) })
}

fn runs(flags: u32, cancelled: bool) -> bool {
    !cancelled && flags & flag::PAUSED == 0
}

/// A Finish that asks for the guest to be held: libvirt takes the flag here, though not at the beginning of a migration that
/// may go over to post-copy. The flags stand before the last word of the call.
pub fn held(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = frame.bytes.to_vec();
    let at = bytes.len() - 2 * size_of::<u32>();
    let paused = flag::PAUSED.to_be_bytes();
    bytes[at..].iter_mut().zip(paused).for_each(|(byte, bits)| *byte |= bits);
    bytes
}

/// Whether `frame`, on its way back to the source, says that the Finish with that serial went well.
pub fn is_finished(frame: &Frame<'_>, serial: u32) -> bool {
    frame.program == REMOTE
        && frame.procedure == procedure::FINISH
        && frame.kind == kind::REPLY
        && frame.serial == serial
        && frame.status == 0
}
