//! What image archives say about themselves: no document panics the parsers, and what they accept stays in bounds.
//!
//! The parsers' file is taken in as it stands: it is pure, and the rest of the agent would need libvirt.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../agent/src/image/rootfs/manifest.rs"]
mod manifest;

fuzz_target!(|data: &[u8]| {
    let Some((layers, document)) = data.split_first() else { return };
    let _either = manifest::choose(document);
    for read in [manifest::manifest(document), manifest::docker_manifest(document)] {
        if let Ok(read) = read {
            assert!((1..=manifest::LAYERS_MAX).contains(&read.layers.len()));
        }
    }
    if let Ok(read) = manifest::config(document, usize::from(*layers)) {
        assert_eq!(read.diff_ids.len(), usize::from(*layers));
        assert!(read.run.program.argv.iter().all(|word| !word.contains('\0')));
        assert!(read.run.program.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('=')));
        assert!(read.run.program.working_dir.is_none_or(|folder| folder.starts_with('/')));
    }
});
