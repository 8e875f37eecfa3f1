//! A domain document that arrives, against the one that this host would have written for the same machine.
//!
//! Both are trees. Every element, attribute and text of ours must be there, with the same value; beyond that only
//! what libvirt is known to fill in may be there (the tables below). Whatever else it has (a disk, a host
//! device, a path, an element that this build does not know) is refused by name. libvirt itself checks that the
//! devices that do match form the same guest ABI.

use super::element::Element;

/// The QEMU that a domain may name; libvirt runs it.
const EMULATOR: &str = "/usr/bin/qemu-system-x86_64";

/// A document that is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at} {what}")]
pub struct Differs {
    /// Which element or attribute, as a path.
    pub at: String,
    /// How.
    pub what: String,
}

fn differs(at: impl Into<String>, what: impl Into<String>) -> Differs {
    Differs { at: at.into(), what: what.into() }
}

/// Compares whole documents.
///
/// # Errors
/// [`Differs`] names the first thing that is not as expected.
pub fn compare(expected: &Element, got: &Element) -> Result<(), Differs> {
    if got.name != "domain" {
        return Err(differs(&got.name, "is no domain"));
    }
    Comparison { expected }.element("domain", expected, got)
}

struct Comparison<'a> {
    expected: &'a Element,
}

impl Comparison<'_> {
    fn element(&self, path: &str, expected: &Element, got: &Element) -> Result<(), Differs> {
        if path == "domain/cpu" {
            return plain(path, got);
        }
        attributes(path, expected, got)?;
        if expected.text != got.text {
            return Err(differs(path, format!("is {:?}, expected {:?}", got.text, expected.text)));
        }
        self.children(path, expected, got)
    }

    fn children(&self, path: &str, expected: &Element, got: &Element) -> Result<(), Differs> {
        let mut missing: Vec<&Element> = expected.children.iter().collect();
        for child in &got.children {
            let at = format!("{path}/{}", child.name);
            match self.find(&at, &missing, child) {
                Ok(index) => drop(missing.remove(index)),
                Err(difference) if !self.may_be_added(&at, child) => return Err(difference),
                Err(_) => {}
            }
        }
        match missing.iter().find(|element| !may_be_missing(path, element)) {
            Some(element) => Err(differs(format!("{path}/{}", element.name), "is missing")),
            None => Ok(()),
        }
    }

    /// Which of the elements that are still missing `got` is.
    fn find(&self, at: &str, missing: &[&Element], got: &Element) -> Result<usize, Differs> {
        let mut difference = None;
        for (index, expected) in missing.iter().enumerate().filter(|(_, element)| element.name == got.name) {
            match self.element(at, expected, got) {
                Ok(()) => return Ok(index),
                Err(found) => difference = difference.or(Some(found)),
            }
        }
        Err(difference.unwrap_or_else(|| differs(describe(at, got), "is not part of this machine")))
    }

    /// What libvirt fills in by itself.
    fn may_be_added(&self, at: &str, got: &Element) -> bool {
        let is = |wanted: &[(&str, &str)]| exactly(got, wanted);
        match at {
            "domain/resource" => {
                matches!(&got.children[..], [p] if p.name == "partition" && p.text == "/machine")
            }
            "domain/os/boot" => is(&[("dev", "hd")]),
            "domain/seclabel" => is_dynamic_label(got),
            "domain/cpu" => plain(at, got).is_ok(),
            "domain/devices/emulator" => {
                got.text == EMULATOR && got.attributes.is_empty() && got.children.is_empty()
            }
            "domain/devices/controller" => is_controller(got),
            "domain/devices/input" => is_ps2(got),
            "domain/devices/audio" => is(&[("id", "1"), ("type", "none")]),
            "domain/devices/watchdog" => is(&[("model", "itco"), ("action", "reset")]),
            "domain/devices/serial/target/model" => is(&[("name", "isa-serial")]),
            "domain/devices/console/log" => self.serial_log().is_some_and(|log| log == got),
            "domain/features/vmport" => is(&[("state", "off")]),
            _ => at.ends_with("/address") && at.starts_with("domain/devices/") && is_address(got),
        }
    }

    /// The serial port's log, which libvirt shows again at the console that stands for the same port.
    fn serial_log(&self) -> Option<&Element> {
        self.expected.child("devices")?.child("serial")?.child("log")
    }
}

/// What libvirt leaves out of the document that it sends.
fn may_be_missing(path: &str, element: &Element) -> bool {
    match element.name.as_str() {
        "backingStore" => path == "domain/devices/disk" || path.ends_with("/backingStore"),
        "seclabel" => path.ends_with("/backingStore/source"),
        "currentMemory" => path == "domain",
        _ => false,
    }
}

fn attributes(path: &str, expected: &Element, got: &Element) -> Result<(), Differs> {
    for (name, value) in &got.attributes {
        let fits = match expected.attribute(name) {
            Some(wanted) => wanted == value || means_the_same(path, name, wanted, value),
            None => attribute_may_be_added(path, name, value),
        };
        if !fits {
            let wanted = expected.attribute(name).map_or_else(|| "nothing".to_owned(), |w| format!("{w:?}"));
            return Err(differs(format!("{path}@{name}"), format!("is {value:?}, expected {wanted}")));
        }
    }
    match expected.attributes.iter().find(|(name, _)| got.attribute(name).is_none()) {
        Some((name, _)) => Err(differs(format!("{path}@{name}"), "is missing")),
        None => Ok(()),
    }
}

fn means_the_same(path: &str, name: &str, wanted: &str, value: &str) -> bool {
    const CACHES: [&str; 2] = ["none", "writeback"];
    match (path, name) {
        // "q35" is resolved to the newest when a domain is defined, and must then stay.
        ("domain/os/type", "machine") => wanted == "q35" && value.starts_with("pc-q35-") && is_token(value),
        // Depends on the host's file system.
        ("domain/devices/disk/driver", "cache") => CACHES.contains(&wanted) && CACHES.contains(&value),
        // The hash over the source's document, cache mode included.
        ("domain/metadata/novacron:vm", "definition") => value.len() == 64 && is_token(value),
        _ => false,
    }
}

fn attribute_may_be_added(path: &str, name: &str, value: &str) -> bool {
    match (path, name) {
        ("domain/vcpu", "placement") => value == "static",
        ("domain/cpu", _) => is_token(value),
        ("domain/devices/serial/target", "type") => value == "isa-serial",
        ("domain/devices/controller", "index") => is_token(value),
        (_, "index") => path.starts_with("domain/devices/disk") && value.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// What the guest sees of its processor: names and numbers, which reach nothing of the host.
fn plain(path: &str, got: &Element) -> Result<(), Differs> {
    const NAMES: [&str; 8] =
        ["cpu", "model", "vendor", "feature", "topology", "maxphysaddr", "signature", "cache"];
    let is_plain = NAMES.contains(&got.name.as_str())
        && (got.text.is_empty() || is_token(&got.text))
        && got.attributes.iter().all(|(_, value)| is_token(value));
    if !is_plain {
        return Err(differs(describe(path, got), "is not part of a processor"));
    }
    got.children.iter().try_for_each(|child| plain(&format!("{path}/{}", child.name), child))
}

/// A controller that libvirt adds so that there is a bus for each device: QEMU's own, nothing of the host's.
fn is_controller(got: &Element) -> bool {
    const KINDS: [&str; 4] = ["pci", "sata", "usb", "virtio-serial"];
    const INSIDE: [&str; 3] = ["model", "target", "address"];
    got.attribute("type").is_some_and(|kind| KINDS.contains(&kind))
        && only_tokens(got)
        && got
            .children
            .iter()
            .all(|c| INSIDE.contains(&c.name.as_str()) && only_tokens(c) && c.children.is_empty())
}

fn is_address(got: &Element) -> bool {
    const KINDS: [&str; 4] = ["pci", "drive", "virtio-serial", "isa"];
    got.attribute("type").is_some_and(|kind| KINDS.contains(&kind))
        && only_tokens(got)
        && got.children.is_empty()
}

fn is_ps2(got: &Element) -> bool {
    exactly(got, &[("type", "mouse"), ("bus", "ps2")])
        || exactly(got, &[("type", "keyboard"), ("bus", "ps2")])
}

/// "Confine it as you would by yourself", as opposed to a label that the sender chooses.
fn is_dynamic_label(got: &Element) -> bool {
    const MODELS: [&str; 3] = ["apparmor", "dac", "selinux"];
    MODELS.iter().any(|model| exactly(got, &[("type", "dynamic"), ("model", model), ("relabel", "yes")]))
}

/// Just these attributes, in any order, and nothing inside.
fn exactly(got: &Element, wanted: &[(&str, &str)]) -> bool {
    got.children.is_empty()
        && got.text.is_empty()
        && got.attributes.len() == wanted.len()
        && wanted.iter().all(|(name, value)| got.attribute(name) == Some(value))
}

fn only_tokens(got: &Element) -> bool {
    got.text.is_empty() && got.attributes.iter().all(|(_, value)| is_token(value))
}

/// A word without anything that could be a path.
fn is_token(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 128
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// An element with what tells it from its like, for a message.
fn describe(at: &str, got: &Element) -> String {
    let source = got.child("source").and_then(|s| s.attributes.first());
    match (source, got.attribute("type")) {
        (Some((name, value)), _) => format!("{at} ({name} {value:?})"),
        (None, Some(kind)) => format!("{at} (type {kind:?})"),
        (None, None) => at.to_owned(),
    }
}
