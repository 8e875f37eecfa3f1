//! The source's migration cookie (`qemuMigrationCookieXMLFormat`): facts about the source, and with Finish the
//! domain that is to stay defined on the target, which gets the same scrutiny as the one in Prepare.

use super::{
    domain::{self, Differs},
    element::{BadDocument, Element},
};

/// A cookie that does not pass.
#[derive(Debug, thiserror::Error)]
pub enum BadCookie {
    /// It is no XML that libvirt writes.
    #[error("its cookie cannot be read")]
    Document(#[source] BadDocument),
    /// It asks for something that no migration of ours needs.
    #[error("its cookie's {0} is refused")]
    Refused(String),
    /// It carries another domain.
    #[error("its cookie carries another machine: {0}")]
    Domain(#[from] Differs),
}

/// Checks a cookie; an empty one is fine.
///
/// # Errors
/// [`BadCookie`].
pub fn check(cookie: &[u8], expected: &Element) -> Result<(), BadCookie> {
    let cookie = cookie.strip_suffix(&[0]).unwrap_or(cookie);
    if cookie.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(cookie).ok().filter(|text| !text.contains('\0'));
    let text = text.ok_or(BadCookie::Document(BadDocument::Exotic("bytes that are no text")))?;
    let root = Element::parse(text).map_err(BadCookie::Document)?;
    if root.name != "qemu-migration" {
        return Err(BadCookie::Refused(root.name));
    }
    root.children.iter().try_for_each(|part| check_part(part, expected))
}

fn check_part(part: &Element, expected: &Element) -> Result<(), BadCookie> {
    let same = |name| expected.child(name).is_some_and(|wanted: &Element| wanted.text == part.text);
    let fine = match part.name.as_str() {
        "domain" => return Ok(domain::compare(expected, part)?),
        "name" | "uuid" => same(&part.name),
        "nbd" => part.children.iter().all(|disk| is_disk(disk, expected)),
        "hostname" | "hostuuid" | "feature" | "cpu" | "capabilities" | "statistics" => true,
        _ => false,
    };
    if fine { Ok(()) } else { Err(BadCookie::Refused(part.name.clone())) }
}

/// Whether the machine has the disk whose size the source tells.
fn is_disk(disk: &Element, expected: &Element) -> bool {
    let target = disk.attribute("target");
    let devices = expected.child("devices").map(|devices| devices.children.as_slice()).unwrap_or_default();
    let mut known = devices.iter().filter(|d| d.name == "disk").filter_map(|d| d.child("target"));
    known.any(|known| known.attribute("dev") == target && target.is_some())
}
