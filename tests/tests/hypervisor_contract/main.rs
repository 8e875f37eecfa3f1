//! The contract of the hypervisor port, kept by every adapter: the same promises are asked of each of them.
//!
//! The fake runs always; libvirt needs root and real QEMU and runs in the lab, once with QEMU as root and once as
//! `libvirt-qemu` with libvirt's own ownership defaults.

mod fake;
mod guest_agent;
mod guest_job;
mod guest_move;
mod libvirt;
mod moves;
mod namespace;
mod promises;

use anyhow::Result;
use novacron_agent::hypervisor::{Definition, Hypervisor};
use novacron_common::ids::VmId;
use std::time::Duration;

/// Where an adapter runs, and what it cannot do for itself.
trait Place {
    /// The adapter.
    fn hypervisor(&self) -> &dyn Hypervisor;

    /// A machine of its kind that answers on its console, with its files made. The same number is the same machine.
    async fn definition(&self, number: u128) -> Result<Definition>;

    /// Makes something that is not ours and returns its name.
    fn add_foreign(&self) -> Result<String>;

    /// Holds a running machine, as the end of a move does.
    async fn hold(&self, vm: VmId) -> Result<()>;

    /// How long a guest may take until it answers.
    fn patience(&self) -> Duration;
}
