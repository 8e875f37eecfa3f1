//! The vocabulary that agent, coordinator and `novactl` share.
//!
//! Nothing in here does I/O: no tokio, no sockets, no clock reads. A type that reaches a wire or the
//! ledger is validated when it is built, so that no later code has to ask again.
//!
//! * [`ids`] and [`units`]: what is named and what is measured;
//! * [`spec`]: what users ask for, checked;
//! * [`api`]: the HTTP bodies, one source for server, `novactl` and the OpenAPI document;
//! * [`wire`]: what processes say to each other over QUIC (see `wire/PROTOCOL.md`);
//! * [`record`]: what the agents observe and report, and what the ledger keeps of it;
//! * [`splitmix`]: numbers that look like chance and come again with the same seed;
//! * [`config`]: reading a configuration file so that a mistake names its remedy.

pub mod api;
pub mod config;
pub mod ids;
pub mod planted;
pub mod record;
pub mod spec;
pub mod splitmix;
pub mod units;
pub mod wire;
