//! The mark that our domains carry: which machine they are, and the hash of the definition they were made from.

use novacron_common::ids::VmId;
use quick_xml::{Reader, events::Event};
use std::fmt::Write as _;
use virt::{domain::Domain, error::Error, sys};

/// The XML namespace of our element.
pub const NAMESPACE: &str = "urn:novacron:domain:1";

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Which machine.
    pub vm: VmId,
    /// Hash of its definition.
    pub definition: String,
}

/// SHA-256 in hex.
pub fn hash(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // into a String: cannot fail
        text
    })
}

/// Which of a domain's two definitions is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// The running one, or else the stored one.
    Current,
    /// The stored one.
    Stored,
}

/// The domain's mark; `None` if it is not ours.
///
/// # Errors
/// libvirt's, other than that the domain has no mark or went away.
pub fn of(domain: &Domain, which: Of) -> Result<Option<Mark>, Error> {
    use virt::error::ErrorNumber::{NoDomain, NoDomainMetadata, OperationInvalid};
    let flags = match which {
        Of::Current => sys::VIR_DOMAIN_AFFECT_CURRENT,
        Of::Stored => sys::VIR_DOMAIN_AFFECT_CONFIG,
    };
    match domain.metadata(sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed(), Some(NAMESPACE), flags) {
        Ok(element) => Ok(parse(&element)),
        // "transient domains do not have any persistent config" is an invalid operation.
        Err(error) if error.code().is_any(vec![NoDomain, NoDomainMetadata, OperationInvalid]) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(element: &str) -> Option<Mark> {
    let mut reader = Reader::from_str(element);
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == b"vm" => {
                let text = |name: &str| {
                    let attribute = start.try_get_attribute(name).ok()??;
                    Some(attribute.unescape_value().ok()?.into_owned())
                };
                return Some(Mark { vm: text("id")?.parse().ok()?, definition: text("definition")? });
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_from_what_libvirt_returns() {
        let vm = VmId::from_u128(7);
        let mark = Mark { vm, definition: "ab12".to_owned() };
        assert_eq!(parse(&format!("<vm id=\"{vm}\" definition=\"ab12\"/>")), Some(mark.clone()));
        let prefixed = format!("<n:vm xmlns:n='{NAMESPACE}' id='{vm}' definition='ab12'></n:vm>");
        assert_eq!(parse(&prefixed), Some(mark));
    }

    #[test]
    fn what_is_not_a_mark_is_none() {
        for text in ["", "<vm/>", "<vm id='host-1' definition='x'/>", "<other id='x'/>", "<vm id="] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
