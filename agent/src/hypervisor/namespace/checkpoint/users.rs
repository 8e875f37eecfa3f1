//! The ids of a restored machine: CRIU's image of its user namespace, written anew for the range that it has now. All other
//! images count ids as the machine does.

use crate::hypervisor::namespace::ids::IdMap;
use std::{fs, io, path::Path};

const FILE: &str = "userns-10.img";

/// `IMG_COMMON_MAGIC` and `USERNS_MAGIC` (CRIU's `magic.h`).
const MAGIC: [u32; 2] = [0x5456_4319, 0x5547_4906];

/// Writes it into the folder of the images, where CRIU wrote one.
///
/// # Errors
/// That of the file system; `NotFound` if there was none.
pub fn rewrite(images: &Path, map: IdMap) -> io::Result<()> {
    let mut found = None;
    for entry in fs::read_dir(images)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("userns-") && name.ends_with(".img"))
        {
            found = Some(entry.path());
        }
    }
    let file =
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no image {FILE}")))?;
    fs::write(file, image(map))
}

/// `userns_entry` of CRIU's `userns.proto`: the map of users is field 1, that of groups field 2, and both are one extent.
fn image(map: IdMap) -> Vec<u8> {
    let (outside, count) = map.extent();
    let mut extent = Vec::new();
    for (field, value) in [(1, 0), (2, outside), (3, count)] {
        extent.push(field << 3);
        extent.extend(varint(value));
    }
    let mut entry = Vec::new();
    for field in [1u8, 2] {
        entry.push(field << 3 | 2);
        entry.extend(varint(u32::try_from(extent.len()).unwrap_or_default()));
        entry.extend(&extent);
    }
    let length = u32::try_from(entry.len()).unwrap_or_default();
    let head = MAGIC.into_iter().chain([length]).flat_map(u32::to_le_bytes);
    head.chain(entry).collect()
}

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_image_is_the_one_that_criu_writes() {
        let map = IdMap::Range { first: 0x7000_0000 };
        let extent = [0x08, 0, 0x10, 0x80, 0x80, 0x80, 0x80, 0x07, 0x18, 0x80, 0x80, 0x04];
        let mut wanted = vec![0x19, 0x43, 0x56, 0x54, 0x06, 0x49, 0x47, 0x55, 28, 0, 0, 0];
        for field in [0x0a, 0x12] {
            wanted.extend([field, 12]);
            wanted.extend(extent);
        }
        let folder = TempDir::new().unwrap();
        assert!(rewrite(folder.path(), map).is_err());
        let file = folder.path().join("userns-11.img");
        fs::write(&file, "old").unwrap();
        rewrite(folder.path(), map).unwrap();
        assert_eq!(fs::read(file).unwrap(), wanted);
    }
}
