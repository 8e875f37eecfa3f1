//! Coordinators together: the replicated ledger and the cluster's identity, on loopback.

mod cluster;
mod identity;
mod processes;
mod support;
