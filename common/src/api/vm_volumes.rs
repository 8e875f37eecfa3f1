//! What of its host a machine is shown, as a request says it.

use crate::spec::{Faults, VmSpec, VolumeMount};
use std::collections::BTreeSet;

/// Checks the fields `volumes` and, as far as they need it, `host` of a request.
pub(super) fn check(texts: &[String], names_host: bool, faults: &mut Faults) -> Vec<VolumeMount> {
    if texts.len() > VmSpec::VOLUMES_MAX {
        faults.add("volumes", format!("has more than {} entries", VmSpec::VOLUMES_MAX));
    }
    if !texts.is_empty() && !names_host {
        faults.add("host", "is missing: a volume is on one host, and the machine runs there");
    }
    let mut taken = BTreeSet::new();
    let volumes = texts.iter().enumerate().filter_map(|(i, text)| {
        let field = format!("volumes[{i}]");
        let volume: VolumeMount = faults.take(&field, text.parse())?;
        if !taken.insert(volume.target.clone()) {
            faults.add(field, format!("covers one before it at {}", volume.target));
        }
        Some(volume)
    });
    volumes.collect()
}
