//! What a move's forecast needs to know of a running machine, and what a host's hypervisor says to one that may come.
//!
//! How fast a guest writes is QEMU's estimate by sampling (`virDomainStartDirtyRateCalc`, mode page-sampling): it hashes some
//! pages, waits, and hashes them again. That costs the guest nothing, which the other modes (they write-protect its memory)
//! do not say of themselves, and it works under TCG and beside a migration, where they do not.

use super::{super::HvError, Libvirt, ffi};
use novacron_common::{
    ids::VmId,
    record::{Accel, DirtyRate, GuestTraits, PreflightFault, PreflightKind},
};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use virt::{
    connect::Connect,
    domain::Domain,
    error::{Error as VirtError, ErrorNumber},
    sys,
};

/// The two spans over which writing is watched, seconds: from how much more the longer one sees follows how soon the guest
/// comes back to what it has written before.
const SPANS: [u8; 2] = [1, 2];
/// How long an estimate may be late.
const LATE_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
/// Of the second span's growth; a guest that shows more of it seems to come back to nothing.
const GROWTH_MAX: f64 = 0.9;
/// Less than this is hidden by the sampling's own noise.
const GROWTH_MIN: f64 = 0.05;
/// Longest `<cpu>` element that is passed on, bytes.
const CPU_MAX: usize = 64 << 10;

impl Libvirt {
    /// How fast the guest writes to its memory. Takes three seconds and a little; `None` if QEMU gives no estimate.
    ///
    /// # Errors
    /// [`HvError::Unknown`], or libvirt's.
    pub async fn dirty_rate(&self, vm: VmId) -> Result<Option<DirtyRate>, HvError> {
        let mut seen = [0; SPANS.len()];
        for (bytes, span) in seen.iter_mut().zip(SPANS) {
            let Some(found) = self.written_in(vm, span).await? else { return Ok(None) };
            *bytes = found;
        }
        Ok(Some(rate_of(seen)))
    }

    /// Different memory written to within `seconds`, bytes.
    async fn written_in(&self, vm: VmId, seconds: u8) -> Result<Option<u64>, HvError> {
        let start = move |domain: &Domain| match ffi::start_dirty_rate(domain, seconds.into()) {
            // Somebody else's is under way: its figure will do.
            Err(error) if error.code().is(ErrorNumber::OperationInvalid) => Ok(()),
            outcome => outcome,
        };
        self.connection.on_domain(vm, "measure the writing of", start).await?;
        let span = Duration::from_secs(seconds.into());
        let until = Instant::now() + span + LATE_MAX;
        sleep(span).await;
        loop {
            let figures = self.connection.on_domain(vm, "see the writing of", ffi::dirty_rate).await?;
            let status = figures.get(sys::VIR_DOMAIN_STATS_DIRTYRATE_CALC_STATUS);
            if status == Some(sys::VIR_DOMAIN_DIRTYRATE_MEASURED.into()) {
                let period =
                    figures.get(sys::VIR_DOMAIN_STATS_DIRTYRATE_CALC_PERIOD).unwrap_or(seconds.into());
                let mib = figures.get(sys::VIR_DOMAIN_STATS_DIRTYRATE_MEGABYTES_PER_SECOND);
                // Over another span than was asked for, it is brought to this one.
                let whole = |mib: u64| (mib << 20).saturating_mul(period.min(seconds.into()));
                return Ok(mib.map(whole));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            sleep(POLL).await;
        }
    }

    /// What the running machine needs of its next host.
    ///
    /// # Errors
    /// [`HvError::Unknown`], libvirt's, or if its document says nothing of it.
    pub async fn traits_of(&self, vm: VmId) -> Result<GuestTraits, HvError> {
        let doing = "read the document of";
        let xml = self.connection.on_domain(vm, doing, |domain: &Domain| domain.xml_desc(0)).await?;
        traits(&xml)
            .ok_or_else(|| HvError::failed(format!("{doing} {vm}"), "it names no processor or machine type"))
    }

    /// What this host's hypervisor lacks for such a machine.
    ///
    /// # Errors
    /// Libvirt's.
    pub async fn lacks_for(&self, traits: &GuestTraits) -> Result<Vec<PreflightFault>, HvError> {
        if let Some(fault) = other_acceleration(self.accel, traits) {
            return Ok(vec![fault]);
        }
        let wanted = traits.clone();
        let compare = move |connect: &Connect| compare(connect, &wanted);
        self.connection.call("compare processor and machine type", compare).await
    }
}

/// libvirt's definitions differ in it, and the target takes no other than its own.
fn other_acceleration(own: Accel, traits: &GuestTraits) -> Option<PreflightFault> {
    let name = |accel| if accel == Accel::Kvm { "kvm" } else { "qemu" };
    (name(own) != traits.virt_type).then(|| {
        PreflightFault::certain(
            PreflightKind::Acceleration,
            format!("the machine runs by {}, machines of this host run by {}", traits.virt_type, name(own)),
            "choose a host that runs machines alike, or move it with \"live\": false",
        )
    })
}

fn compare(connect: &Connect, traits: &GuestTraits) -> Result<Vec<PreflightFault>, VirtError> {
    let GuestTraits { virt_type, arch, machine, cpu_xml } = traits;
    let known = connect.domain_capabilities(None, Some(arch), Some(machine), Some(virt_type), 0);
    if let Err(error) = known {
        return Ok(vec![PreflightFault::certain(
            PreflightKind::MachineType,
            format!("QEMU of the host does not know the machine type {machine} ({})", error.message()),
            "upgrade QEMU on the host, or restart the machine on an older one's type",
        )]);
    }
    match ffi::compare_cpu(connect, (arch, machine, virt_type), cpu_xml) {
        Ok(()) => Ok(Vec::new()),
        Err(error) if error.code().is(ErrorNumber::CpuIncompatible) => Ok(vec![cpu_fault(virt_type, &error)]),
        Err(error) => Err(error),
    }
}

/// Under TCG the document asks for no check, and QEMU leaves out what it does not have: then it is a warning.
fn cpu_fault(virt_type: &str, error: &VirtError) -> PreflightFault {
    let text =
        format!("the processor of the host lacks what the machine has seen so far ({})", error.message());
    let remedy = "choose a host at least as new, or start the machine with a model that all hosts have \
                  (`hypervisor.cpu_model` in agent.toml)";
    PreflightFault {
        certain: virt_type == "kvm",
        ..PreflightFault::certain(PreflightKind::Cpu, text, remedy)
    }
}

/// Reads a domain's document.
fn traits(xml: &str) -> Option<GuestTraits> {
    let domain = tag(xml, "domain")?;
    let kind = tag(xml, "type")?;
    let begin = xml.find("<cpu ").or_else(|| xml.find("<cpu>"))?;
    let rest = &xml[begin..];
    let open = rest.find('>')? + 1;
    let length = if rest[..open].ends_with("/>") { open } else { rest.find("</cpu>")? + "</cpu>".len() };
    (length <= CPU_MAX).then_some(GuestTraits {
        virt_type: attribute(domain, "type")?.to_owned(),
        arch: attribute(kind, "arch")?.to_owned(),
        machine: attribute(kind, "machine")?.to_owned(),
        cpu_xml: rest[..length].to_owned(),
    })
}

/// What stands in the first opening tag of that name.
fn tag<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    between(xml, &["<", name, " "].concat(), ">")
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    between(tag, &format!("{name}='"), "'")
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

/// From what was written to within a second and within two. A guest that picks its pages by chance out of a working set `W`,
/// at a rate `r`, has written to `U(t) = W × (1 - exp(-r t / W))` of it after `t`; so `U(2) / U(1) - 1 = exp(-r / W)`.
/// One that goes through it in order has written to `r` after a second: of the two rates the middle is told.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rate_of([one, two]: [u64; 2]) -> DirtyRate {
    let growth = if one == 0 { 1.0 } else { two as f64 / one as f64 - 1.0 };
    if growth > GROWTH_MAX {
        return DirtyRate { bytes_per_second: one.max(two / 2), working_set_bytes: u64::MAX };
    }
    let growth = growth.max(GROWTH_MIN);
    let working_set = one as f64 / (1.0 - growth);
    let (in_order, by_chance) = (one as f64, -growth.ln() * working_set);
    let rate = (in_order * by_chance).sqrt();
    DirtyRate { bytes_per_second: rate as u64, working_set_bytes: working_set as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn two_spans_tell_the_rate_and_the_working_set_of_a_guest_that_writes_by_chance() {
        // W = 100 MiB, r = 100 MiB/s: U(1) = 63.2 MiB, U(2) = 86.5 MiB.
        let rate = rate_of([632 * MIB / 10, 865 * MIB / 10]);
        let near = |figure: u64, wanted: u64| figure.abs_diff(wanted * MIB) < 2 * MIB;
        assert!(near(rate.bytes_per_second, 80) && near(rate.working_set_bytes, 100), "{rate:?}");
        assert_eq!(rate_of([50 * MIB, 100 * MIB]).working_set_bytes, u64::MAX, "it comes back to nothing");
        assert_eq!(rate_of([0, 0]).bytes_per_second, 0);
        let fast = rate_of([32 * MIB, 32 * MIB]);
        assert!(fast.working_set_bytes < 34 * MIB && fast.bytes_per_second > 50 * MIB, "{fast:?}");
        assert!(rate_of([32 * MIB, MIB]).bytes_per_second > 0, "noise");
    }

    #[test]
    fn a_document_tells_processor_and_machine_type() {
        let xml = "<domain type='kvm' id='3'>\n  <cputune/>\n  <os>\n    <type arch='x86_64' \
                   machine='pc-q35-10.0'>hvm</type>\n  </os>\n  <cpu mode='custom' match='exact'>\n    \
                   <model fallback='forbid'>Nehalem</model>\n  </cpu>\n</domain>";
        let found = traits(xml).unwrap();
        assert_eq!(
            (found.virt_type.as_str(), found.arch.as_str(), found.machine.as_str()),
            ("kvm", "x86_64", "pc-q35-10.0")
        );
        assert!(
            found.cpu_xml.starts_with("<cpu mode") && found.cpu_xml.ends_with("Nehalem</model>\n  </cpu>")
        );
        let alone = xml
            .replace("</cpu>", "")
            .replace("<cpu mode='custom' match='exact'>", "<cpu mode='host-passthrough'/>");
        assert_eq!(traits(&alone).unwrap().cpu_xml, "<cpu mode='host-passthrough'/>");
        for broken in
            ["", "<domain type='kvm'>", &xml.replace("machine=", "engine="), &xml.replace("</cpu>", "")]
        {
            assert_eq!(traits(broken), None, "{broken}");
        }
        let long = xml.replace("Nehalem", &"x".repeat(CPU_MAX));
        assert_eq!(traits(&long), None);
    }

    #[test]
    fn a_machine_that_runs_otherwise_than_the_host_runs_its_own_cannot_come() {
        let traits = |virt_type: &str| GuestTraits {
            virt_type: virt_type.to_owned(),
            arch: "x86_64".to_owned(),
            machine: "q35".to_owned(),
            cpu_xml: String::new(),
        };
        assert_eq!(other_acceleration(Accel::Kvm, &traits("kvm")), None);
        assert_eq!(other_acceleration(Accel::Tcg, &traits("qemu")), None);
        let fault = other_acceleration(Accel::Tcg, &traits("kvm")).unwrap();
        assert!(fault.certain && fault.kind == PreflightKind::Acceleration);
    }
}
