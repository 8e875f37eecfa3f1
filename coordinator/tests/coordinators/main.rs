//! Coordinators together: the replicated ledger and the cluster's identity, on loopback.

mod clocks;
mod cluster;
mod fail_over;
mod identity;
mod processes;
mod restore;
mod support;
