//! What may pass on the control lane of one migration.
//!
//! The lane ends at a libvirtd that runs as root, and on the other side is a host that may have been taken over.
//! So every message towards our libvirtd is parsed and must be one that a peer-to-peer migration of *this* machine
//! needs; whatever is not known is refused by name. All of it is pure code: bytes in, verdicts out.
//!
//! * [`frame`]: libvirt's RPC framing (`src/rpc/virnetprotocol.x`); the length is checked before anything else;
//! * [`call`]: the few bodies that are looked into, in XDR (RFC 4506, `src/remote/remote_protocol.x`);
//! * [`gate`]: which call may come when;
//! * [`domain`] and [`cookie`]: the domain document against the one that this host would have written itself.

pub mod call;
pub mod cookie;
pub mod domain;
pub mod element;
pub mod frame;
pub mod gate;
#[cfg(test)]
mod recorded;
mod xdr;

pub use frame::{BadFrame, FRAME_MAX, Frame, parse_frame};
pub use gate::{Expectation, Gate, Passed, Refused, State as GateState};
