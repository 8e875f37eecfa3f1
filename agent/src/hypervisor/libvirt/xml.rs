//! libvirt's domain XML of one machine, written by events: whatever a user typed arrives as text or attribute
//! and is escaped, never spliced.
//!
//! The document is a pure function of the definition, so that equal definitions give equal bytes; the hash over
//! them is kept in the domain's metadata and tells whether a definition changed.

use super::super::Definition;
use crate::hypervisor::libvirt::{CpuModel, metadata};
use novacron_common::{
    record::Accel,
    spec::{BootSource, MacAddress},
    units::ByteCount,
};
use quick_xml::{
    Writer,
    events::{BytesEnd, BytesStart, BytesText, Event},
};
use std::{io, path::Path};

/// The disk's name in the guest and in [`super::migration::MigrateCall::disks`].
pub const DISK_TARGET: &str = "vda";
/// The seed's name in the guest.
pub const SEED_TARGET: &str = "vdb";

/// libvirt's for what it passes on to QEMU as it is.
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// The CPU that the guest sees under TCG: x86-64-v2, which current distributions ask for, and a named model, so
/// that it is the same on every host and survives a move. TCG offers all of it without a warning.
const TCG_CPU: &str = "Nehalem";

/// What the host decides about a domain, beside its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostChoices<'a> {
    /// How it runs.
    pub accel: Accel,
    /// The processor of KVM guests.
    pub cpu: &'a CpuModel,
    /// Whether the disk's file system takes `O_DIRECT`; without it QEMU refuses `cache=none`.
    pub direct_io: bool,
}

/// A domain's document and the hash that is in its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainXml {
    /// For `virDomainDefineXML`.
    pub text: String,
    /// Over the document without the hash itself.
    pub hash: String,
}

/// The name under which libvirt knows a machine. Made of the id alone: machines are renamed, domains are not,
/// and people find the machine's own name in the domain's title.
pub fn domain_name(vm: novacron_common::ids::VmId) -> String {
    format!("nova-{}", vm.uuid().simple())
}

/// Writes the document.
///
/// # Errors
/// If a path is not UTF-8, which XML cannot carry.
pub fn domain_xml(definition: &Definition, host: HostChoices<'_>) -> io::Result<DomainXml> {
    let hash = metadata::hash(render(definition, host, "")?.as_bytes());
    let text = render(definition, host, &hash)?;
    Ok(DomainXml { text, hash })
}

fn render(definition: &Definition, host: HostChoices<'_>, hash: &str) -> io::Result<String> {
    let mut xml = Xml(Writer::new_with_indent(Vec::with_capacity(4096), b' ', 2));
    let kind = match host.accel {
        Accel::Kvm => "kvm",
        Accel::Tcg => "qemu",
    };
    let monitor = definition.files.monitor.as_deref();
    let namespace = monitor.map(|_| ("xmlns:qemu", QEMU_NAMESPACE));
    let attributes: Vec<_> = [("type", kind)].into_iter().chain(namespace).collect();
    xml.within("domain", &attributes, |xml| {
        identity(xml, definition, hash)?;
        resources(xml, definition)?;
        boot(xml, definition)?;
        platform(xml, host)?;
        xml.within("devices", &[], |xml| devices(xml, definition, host))?;
        monitor.map_or(Ok(()), |path| command_line(xml, path))
    })?;
    String::from_utf8(xml.0.into_inner()).map_err(io::Error::other)
}

fn identity(xml: &mut Xml, definition: &Definition, hash: &str) -> io::Result<()> {
    let id = definition.vm.to_string();
    xml.text("name", &[], &domain_name(definition.vm))?;
    xml.text("uuid", &[], &definition.vm.uuid().hyphenated().to_string())?;
    xml.text("title", &[], definition.spec.name.as_str())?;
    xml.within("metadata", &[], |xml| {
        let namespace = ("xmlns:novacron", metadata::NAMESPACE);
        xml.empty("novacron:vm", &[namespace, ("id", &id), ("definition", hash)])
    })
}

fn resources(xml: &mut Xml, definition: &Definition) -> io::Result<()> {
    let kib = (definition.spec.memory.0 / ByteCount::kib(1).0).to_string();
    xml.text("memory", &[("unit", "KiB")], &kib)?;
    xml.text("currentMemory", &[("unit", "KiB")], &kib)?;
    xml.text("vcpu", &[("placement", "static")], &definition.spec.cpus.to_string())
}

fn boot(xml: &mut Xml, definition: &Definition) -> io::Result<()> {
    xml.within("os", &[], |xml| {
        xml.text("type", &[("arch", "x86_64"), ("machine", "q35")], "hvm")?;
        match (&definition.files.kernel, &definition.spec.template.boot) {
            (Some((kernel, initramfs)), BootSource::Kernel { cmdline, .. }) => {
                xml.text("kernel", &[], utf8(kernel)?)?;
                if let Some(initramfs) = initramfs {
                    xml.text("initrd", &[], utf8(initramfs)?)?;
                }
                xml.text("cmdline", &[], definition.spec.cmdline.as_deref().unwrap_or(cmdline))
            }
            _ => xml.empty("boot", &[("dev", "hd")]),
        }
    })
}

fn platform(xml: &mut Xml, host: HostChoices<'_>) -> io::Result<()> {
    // ACPI is how a guest is asked to shut down.
    xml.within("features", &[], |xml| {
        xml.empty("acpi", &[])?;
        xml.empty("apic", &[])
    })?;
    match (host.accel, host.cpu) {
        (Accel::Kvm, CpuModel::Host) => xml.empty("cpu", &[("mode", "host-model"), ("check", "partial")])?,
        (Accel::Kvm, CpuModel::Named(model)) => cpu_model(xml, model, "partial")?,
        (Accel::Tcg, _) => cpu_model(xml, TCG_CPU, "none")?,
    }
    xml.empty("clock", &[("offset", "utc")])?;
    xml.text("on_poweroff", &[], "destroy")?;
    xml.text("on_reboot", &[], "restart")?;
    xml.text("on_crash", &[], "destroy")
}

/// This model, or no start at all. `check`: whether libvirt asks first if the host has all of it.
fn cpu_model(xml: &mut Xml, model: &str, check: &str) -> io::Result<()> {
    xml.within("cpu", &[("mode", "custom"), ("match", "exact"), ("check", check)], |xml| {
        xml.text("model", &[("fallback", "forbid")], model)
    })
}

fn devices(xml: &mut Xml, definition: &Definition, host: HostChoices<'_>) -> io::Result<()> {
    disk(xml, definition, host)?;
    seed(xml, definition)?;
    network(xml, definition)?;
    xml.within("serial", &[("type", "pty")], |xml| {
        xml.empty("log", &[("file", utf8(&definition.files.console_log)?), ("append", "on")])?;
        xml.empty("target", &[("port", "0")])
    })?;
    xml.within("console", &[("type", "pty")], |xml| {
        xml.empty("target", &[("type", "serial"), ("port", "0")])
    })?;
    xml.within("channel", &[("type", "unix")], |xml| {
        xml.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
    })?;
    xml.within("rng", &[("model", "virtio")], |xml| {
        xml.text("backend", &[("model", "random")], "/dev/urandom")
    })?;
    // A balloon would give back memory behind the back of placement, and nothing here needs USB.
    xml.empty("memballoon", &[("model", "none")])?;
    xml.empty("controller", &[("type", "usb"), ("model", "none")])
}

/// A second monitor ([`super::monitor`]), which libvirt has no element for.
fn command_line(xml: &mut Xml, monitor: &Path) -> io::Result<()> {
    // QEMU takes two commas in a value for one that does not end it.
    let path = utf8(monitor)?.replace(',', ",,");
    xml.within("qemu:commandline", &[], |xml| {
        xml.empty("qemu:arg", &[("value", "-qmp")])?;
        xml.empty("qemu:arg", &[("value", &format!("unix:{path},server=on,wait=off"))])
    })
}

fn disk(xml: &mut Xml, definition: &Definition, host: HostChoices<'_>) -> io::Result<()> {
    let Some(path) = &definition.files.disk else { return Ok(()) };
    let cache = if host.direct_io { "none" } else { "writeback" };
    xml.within("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty("driver", &[("name", "qemu"), ("type", "qcow2"), ("cache", cache), ("discard", "unmap")])?;
        xml.empty("source", &[("file", utf8(path)?)])?;
        backing(xml, definition)?;
        xml.empty("target", &[("dev", DISK_TARGET), ("bus", "virtio")])
    })
}

/// Always written, so that libvirt never looks into the file to find out. The image below is shared by many
/// machines: libvirt must not hand it to any one of them.
fn backing(xml: &mut Xml, definition: &Definition) -> io::Result<()> {
    let Some((image, format)) = &definition.files.backing else { return xml.empty("backingStore", &[]) };
    xml.within("backingStore", &[("type", "file")], |xml| {
        xml.empty("format", &[("type", format.name())])?;
        xml.within("source", &[("file", utf8(image)?)], |xml| {
            xml.empty("seclabel", &[("model", "dac"), ("relabel", "no")])
        })?;
        xml.empty("backingStore", &[])
    })
}

fn seed(xml: &mut Xml, definition: &Definition) -> io::Result<()> {
    let Some(path) = &definition.files.seed else { return Ok(()) };
    xml.within("disk", &[("type", "file"), ("device", "disk")], |xml| {
        xml.empty("driver", &[("name", "qemu"), ("type", "raw")])?;
        xml.empty("source", &[("file", utf8(path)?)])?;
        xml.empty("target", &[("dev", SEED_TARGET), ("bus", "virtio")])?;
        xml.empty("readonly", &[])
    })
}

fn network(xml: &mut Xml, definition: &Definition) -> io::Result<()> {
    let Some(bridge) = &definition.bridge else { return Ok(()) };
    xml.within("interface", &[("type", "bridge")], |xml| {
        xml.empty("mac", &[("address", &MacAddress::of_vm(definition.vm).to_string())])?;
        xml.empty("source", &[("bridge", bridge)])?;
        xml.empty("model", &[("type", "virtio")])?;
        // No network boot: its ROM costs seconds of boot time, and its size would have to match on both hosts.
        xml.empty("rom", &[("enabled", "no")])
    })
}

fn utf8(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("the path {} is not UTF-8", path.display())))
}

/// A writer of elements.
struct Xml(Writer<Vec<u8>>);

type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Xml {
    fn within(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inner: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.0.write_event(Event::Start(start))?;
        inner(self)?;
        self.0.write_event(Event::End(BytesEnd::new(name)))
    }

    fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) -> io::Result<()> {
        self.within(name, attributes, |xml| xml.0.write_event(Event::Text(BytesText::new(text))))
    }

    fn empty(&mut self, name: &str, attributes: Attributes<'_>) -> io::Result<()> {
        let element = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.0.write_event(Event::Empty(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::libvirt::fixture;

    const TCG: HostChoices<'_> = HostChoices { accel: Accel::Tcg, cpu: &CpuModel::Host, direct_io: true };

    #[test]
    fn a_machine_with_everything_reads_as_the_golden_document() {
        let xml = domain_xml(&fixture::definition(), TCG).unwrap();
        assert_eq!(xml.text.replace(&xml.hash, "HASH"), include_str!("golden.xml").trim_end());
    }

    #[test]
    fn what_a_user_typed_cannot_leave_its_element() {
        let mut definition = fixture::definition();
        let nasty = "x</cmdline><devices><hostdev a='1' b=\"2\"/>&amp;";
        definition.spec.cmdline = Some(nasty.to_owned());
        definition.bridge = Some("br'/><x a='".to_owned());
        let text = domain_xml(&definition, TCG).unwrap().text;
        assert!(!text.contains("<hostdev") && !text.contains("<x a="), "{text}");
        assert_eq!(fixture::text_of(&text, "cmdline"), nasty);
    }

    #[test]
    fn the_hash_follows_the_definition() {
        let one = domain_xml(&fixture::definition(), TCG).unwrap();
        let mut changed = fixture::definition();
        changed.spec.cpus += 1;
        assert_eq!(one, domain_xml(&fixture::definition(), TCG).unwrap());
        assert_ne!(one.hash, domain_xml(&changed, TCG).unwrap().hash);
    }

    #[test]
    fn a_bare_machine_has_neither_disk_nor_card_and_kvm_takes_the_hosts_cpu() {
        let mut definition = fixture::definition();
        (definition.files.disk, definition.files.seed, definition.bridge) = (None, None, None);
        let kvm = HostChoices { accel: Accel::Kvm, direct_io: false, ..TCG };
        let text = domain_xml(&definition, kvm).unwrap().text;
        assert!(!text.contains("<disk") && !text.contains("<interface"), "{text}");
        assert!(text.contains("type=\"kvm\"") && text.contains("host-model"), "{text}");
        let named = CpuModel::Named("Nehalem-v1".to_owned());
        let text = domain_xml(&definition, HostChoices { cpu: &named, ..kvm }).unwrap().text;
        assert_eq!(fixture::text_of(&text, "model"), "Nehalem-v1");
        assert!(text.contains("check=\"partial\"") && !text.contains("host-model"), "{text}");
    }

    #[test]
    fn a_machine_that_allows_post_copy_has_a_monitor_of_its_own_and_no_other_has_anything_of_qemus() {
        let mut definition = fixture::definition();
        assert!(!domain_xml(&definition, TCG).unwrap().text.contains("qemu:"));
        definition.files.monitor = Some("/data,1/monitor/qmp".into());
        let text = domain_xml(&definition, TCG).unwrap().text;
        assert!(text.contains(QEMU_NAMESPACE) && text.contains("value=\"-qmp\""), "{text}");
        assert!(text.contains("value=\"unix:/data,,1/monitor/qmp,server=on,wait=off\""), "{text}");
    }

    #[test]
    fn without_direct_io_the_cache_is_write_back_and_a_blank_disk_has_an_empty_backing_store() {
        let mut definition = fixture::definition();
        definition.files.backing = None;
        let text = domain_xml(&definition, HostChoices { direct_io: false, ..TCG }).unwrap().text;
        assert!(text.contains("cache=\"writeback\"") && text.contains("<backingStore/>"), "{text}");
    }
}
