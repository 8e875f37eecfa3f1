//! A domain's life: define, start, stop, undefine, and what can be seen of it. Each function looks before it
//! acts, and once more after a refusal, because guests and other users of libvirt act in between.

use super::{
    super::{Definition, Halt, HvError, Listed},
    connection::{self, Connection},
    ffi,
    metadata::{self, Of},
    xml::{self, HostChoices},
};
use novacron_common::{ids::VmId, record::VmState};
use std::{
    fs::OpenOptions,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant},
};
use virt::{
    connect::Connect,
    domain::Domain,
    error::{Error as VirtError, ErrorNumber},
    sys,
};

/// How often a stopping guest is looked at.
const STOP_POLL: Duration = Duration::from_millis(200);
/// How often a stopping guest is asked again: one that is still booting misses the first request.
const STOP_REPEAT: Duration = Duration::from_secs(5);

/// See [`crate::hypervisor::Hypervisor::define`].
pub(super) async fn define(
    connection: &Connection,
    host: HostChoices<'_>,
    definition: &Definition,
) -> Result<(), HvError> {
    let vm = definition.vm;
    let document = xml::domain_xml(definition, host)
        .map_err(|error| HvError::failed(format!("describe {vm}"), error))?;
    let define = move |connect: &Connect| {
        if stored_hash(connect, vm)?.is_some_and(|hash| hash == document.hash) {
            return Ok(());
        }
        connect.define_domain_xml(&document.text).map(drop)
    };
    connection.call(&format!("define {vm}"), define).await
}

fn stored_hash(connect: &Connect, vm: VmId) -> Result<Option<String>, VirtError> {
    let Some(domain) = connection::find(connect, vm)? else { return Ok(None) };
    if !domain.is_persistent()? {
        return Ok(None);
    }
    Ok(metadata::of(&domain, Of::Stored)?.map(|mark| mark.definition))
}

/// Whether the disk's file system takes `O_DIRECT` (tmpfs and some network file systems do not).
pub(super) fn takes_direct_io(definition: &Definition) -> bool {
    let opens = |file| OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(file).is_ok();
    definition.files.disk.as_deref().is_some_and(opens)
}

/// See [`crate::hypervisor::Hypervisor::start`].
pub(super) async fn start(connection: &Connection, vm: VmId) -> Result<(), HvError> {
    let start = |domain: &Domain| {
        if domain.is_active()? {
            return Ok(());
        }
        unless(domain.create(), || domain.is_active())
    };
    connection.on_domain(vm, "start", start).await
}

/// See [`crate::hypervisor::Hypervisor::pause`].
pub(super) async fn pause(connection: &Connection, vm: VmId) -> Result<(), HvError> {
    let is_paused = |domain: &Domain| ffi::domain_state(domain).map(|state| state == sys::VIR_DOMAIN_PAUSED);
    let pause = move |domain: &Domain| {
        if is_paused(domain)? {
            return Ok(true);
        }
        if !domain.is_active()? {
            return Ok(false);
        }
        unless(domain.suspend(), || is_paused(domain)).map(|()| true)
    };
    if connection.on_domain(vm, "pause", pause).await? {
        return Ok(());
    }
    Err(HvError::State { vm, state: VmState::Stopped, remedy: "start it first" })
}

/// See [`crate::hypervisor::Hypervisor::resume`].
pub(super) async fn resume(connection: &Connection, vm: VmId) -> Result<(), HvError> {
    let runs = |domain: &Domain| ffi::domain_state(domain).map(|state| state == sys::VIR_DOMAIN_RUNNING);
    let resume = move |domain: &Domain| {
        if runs(domain)? {
            return Ok(());
        }
        unless(domain.resume(), || runs(domain))
    };
    connection.on_domain(vm, "resume", resume).await
}

/// Takes a refusal for success if what was wanted is so by now.
fn unless(
    outcome: Result<(), VirtError>,
    is_so: impl FnOnce() -> Result<bool, VirtError>,
) -> Result<(), VirtError> {
    match outcome {
        Err(error) if error.code().is(ErrorNumber::OperationInvalid) && is_so()? => Ok(()),
        outcome => outcome,
    }
}

/// See [`crate::hypervisor::Hypervisor::stop`].
pub(super) async fn stop(connection: &Connection, vm: VmId, grace: Duration) -> Result<Halt, HvError> {
    let halt = if grace.is_zero() { Halt::Unasked } else { ask_to_stop(connection, vm, grace).await? };
    if matches!(halt, Halt::Overdue { .. } | Halt::Unasked) {
        connection.on_domain(vm, "stop", cut_power).await?;
    }
    Ok(halt)
}

/// Asks until the guest is down, `grace` has passed, or it cannot hear; what is not down is left to be cut.
async fn ask_to_stop(connection: &Connection, vm: VmId, grace: Duration) -> Result<Halt, HvError> {
    let deadline = Instant::now() + grace;
    let mut ask_at = Instant::now();
    let mut down = Halt::WasDown;
    loop {
        match state(connection, vm).await? {
            VmState::Stopped => return Ok(down),
            VmState::Missing => return Err(HvError::Unknown { vm }),
            // A held guest cannot hear it.
            VmState::Paused => return Ok(Halt::Unasked),
            _ => {}
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok(Halt::Overdue { signal: None, grace });
        }
        if now >= ask_at {
            ask_at = now + STOP_REPEAT;
            down = Halt::OnAsking(None);
            let ask =
                |domain: &Domain| unless(domain.shutdown(), || domain.is_active().map(|active| !active));
            connection.on_domain(vm, "shut down", ask).await?;
        }
        tokio::time::sleep(STOP_POLL.min(deadline - now)).await;
    }
}

fn cut_power(domain: &Domain) -> Result<(), VirtError> {
    if !domain.is_active()? {
        return Ok(());
    }
    unless(domain.destroy(), || domain.is_active().map(|active| !active))
}

/// See [`crate::hypervisor::Hypervisor::undefine`].
pub(super) async fn undefine(connection: &Connection, vm: VmId) -> Result<(), HvError> {
    let undefine = |domain: &Domain| {
        cut_power(domain)?;
        domain.undefine_flags(
            sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                | sys::VIR_DOMAIN_UNDEFINE_NVRAM,
        )
    };
    match connection.on_domain(vm, "undefine", undefine).await {
        Err(HvError::Unknown { .. }) => Ok(()), // also a transient domain, which is gone with its power
        outcome => outcome,
    }
}

/// See [`crate::hypervisor::Hypervisor::state`].
pub(super) async fn state(connection: &Connection, vm: VmId) -> Result<VmState, HvError> {
    match connection.on_domain(vm, "look at", ffi::domain_state).await {
        Ok(state) => Ok(vm_state(state)),
        Err(HvError::Unknown { .. }) => Ok(VmState::Missing),
        Err(error) => Err(error),
    }
}

/// libvirt's state in the words of the port.
pub(super) const fn vm_state(state: sys::virDomainState) -> VmState {
    match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED => VmState::Running,
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => VmState::Paused,
        sys::VIR_DOMAIN_SHUTDOWN => VmState::Stopping,
        sys::VIR_DOMAIN_SHUTOFF | sys::VIR_DOMAIN_CRASHED => VmState::Stopped,
        _ => VmState::Unknown,
    }
}

/// See [`crate::hypervisor::Hypervisor::list`].
pub(super) async fn list(connection: &Connection) -> Result<Vec<Listed>, HvError> {
    let list = |connect: &Connect| {
        let domains = connect.list_all_domains(0)?;
        domains.iter().filter_map(|domain| gone_is_none(listed(domain))).collect::<Result<Vec<_>, _>>()
    };
    connection.call("list domains", list).await
}

fn listed(domain: &Domain) -> Result<Listed, VirtError> {
    Ok(match metadata::of(domain, Of::Current)? {
        Some(mark) => Listed::Ours(mark.vm, vm_state(ffi::domain_state(domain)?)),
        None => Listed::Foreign(domain.name()?),
    })
}

/// A domain that vanishes between the list and the look is not in the list.
fn gone_is_none<T>(outcome: Result<T, VirtError>) -> Option<Result<T, VirtError>> {
    match outcome {
        Err(error) if error.code().is(ErrorNumber::NoDomain) => None,
        outcome => Some(outcome),
    }
}

/// See [`crate::hypervisor::Hypervisor::addresses`]. What the guest's agent says, if it has one, else what this
/// host's neighbour table says of its card.
pub(super) async fn addresses(connection: &Connection, vm: VmId) -> Result<Vec<IpAddr>, HvError> {
    let addresses = |domain: &Domain| {
        if !domain.is_active()? {
            return Ok(Vec::new());
        }
        let sources =
            [sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP];
        // A source that is not there is no failure: most guests have no agent.
        let seen = sources.iter().filter_map(|source| domain.interface_addresses(*source, 0).ok());
        Ok(seen.map(|cards| usable(&cards)).find(|found| !found.is_empty()).unwrap_or_default())
    };
    connection.on_domain(vm, "find the addresses of", addresses).await
}

fn usable(cards: &[virt::domain::Interface]) -> Vec<IpAddr> {
    let all = cards.iter().flat_map(|card| &card.addrs).filter_map(|address| address.addr.parse().ok());
    let mut found: Vec<IpAddr> = all.filter(|address: &IpAddr| reachable(*address)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn reachable(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !address.is_loopback() && !address.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crashed_domain_is_stopped_and_a_shutting_one_is_not() {
        assert_eq!(vm_state(sys::VIR_DOMAIN_CRASHED), VmState::Stopped);
        assert_eq!(vm_state(sys::VIR_DOMAIN_SHUTDOWN), VmState::Stopping);
        assert_eq!(vm_state(sys::VIR_DOMAIN_PAUSED), VmState::Paused);
        assert_eq!(vm_state(99), VmState::Unknown);
    }

    #[test]
    fn a_guests_own_loopback_is_not_its_address() {
        for (address, good) in
            [("127.0.0.1", false), ("fe80::1", false), ("10.77.0.20", true), ("fd00::1", true)]
        {
            assert_eq!(reachable(address.parse().unwrap()), good, "{address}");
        }
    }
}
