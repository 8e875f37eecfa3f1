//! Whole layers, honest and hostile, into a tree that only remembers.

use super::{
    super::fixture::{Remembered, Tar, Thing},
    *,
};
use proptest::prelude::*;
use tar::EntryType;

const LIMITS: Limits = Limits { bytes: 1 << 20, members: 100 };

fn applied(archive: &[u8]) -> Result<Remembered, LayerFault> {
    let mut tree = Remembered::default();
    apply(archive, LIMITS, &mut tree).map(|_| tree)
}

#[test]
fn a_layer_comes_out_as_it_was_packed() {
    let archive = Tar::new()
        .folder("./")
        .folder("bin/")
        .member(EntryType::Regular, "bin/sh", 0o4755, "", b"#!")
        .symlink("bin/bash", "sh")
        .hard_link("bin/ash", "bin/sh")
        .member(EntryType::Fifo, "run/pipe", 0o600, "", b"")
        .member(EntryType::Block, "dev/sda", 0o600, "", b"")
        .file("etc/.wh.motd", b"")
        .file("srv/.wh..wh..opq", b"")
        .end();
    let mut tree = Remembered::default();
    let found = apply(archive.as_slice(), LIMITS, &mut tree).unwrap();
    assert_eq!(found, Applied { members: 9, left_out: 1 });
    let wanted = [
        ("", Thing::Folder(0o755)),
        ("bin", Thing::Folder(0o755)),
        ("bin/sh", Thing::File(0o755, b"#!".to_vec())),
        ("bin/bash", Thing::Symlink("sh".into())),
        ("bin/ash", Thing::HardLink("bin/sh".into())),
        ("run/pipe", Thing::Pipe),
        ("etc/motd", Thing::Whiteout),
        ("srv", Thing::Opaque),
    ];
    assert_eq!(tree.0, wanted.into_iter().map(|(path, thing)| (path.into(), thing)).collect());
}

#[test]
fn a_bomb_ends_at_the_limit_and_says_so() {
    let bomb = Tar::new().file("bomb", &vec![0; 2 << 20]).end();
    let error = applied(&bomb).unwrap_err();
    let told = crate::text::describe(&error);
    assert!(told.contains("1048576 bytes allowed"), "{told}");
    // One that lies behind the end of the archive is a bomb, too: it is read for the digest.
    let behind = [Tar::new().file("a", b"a").end(), vec![0; 2 << 20]].concat();
    assert!(crate::text::describe(&applied(&behind).unwrap_err()).contains("bytes allowed"));
    let many = (0..101).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b"")).end();
    assert!(matches!(applied(&many), Err(LayerFault::Members(100))));
}

#[test]
fn one_hostile_member_spoils_the_layer() {
    for (name, target) in
        [("../x", ""), ("/x", ""), ("a/../../x", ""), ("x", "../../etc/shadow"), ("x", "/etc/shadow")]
    {
        let tar = Tar::new().file("fine", b"fine");
        let tar = if target.is_empty() { tar.file(name, b"x") } else { tar.hard_link(name, target) };
        assert!(matches!(applied(&tar.end()), Err(LayerFault::Member(_))), "{name} {target}");
    }
    let by_pax = Tar::new().pax("path", "../../x").file("fine", b"x").end();
    assert!(matches!(applied(&by_pax), Err(LayerFault::Member(BadMember::Outside(_)))));
    let cut = Tar::new().file("a", &[7; 4096]).end();
    assert!(matches!(applied(&cut[..2048]), Err(LayerFault::Stream(StreamFault::Damaged(_)))));
}

proptest! {
    #[test]
    fn a_damaged_archive_is_refused_or_stays_within_its_tree(
        flips in proptest::collection::vec((0usize..6144, any::<u8>()), 1..20), checksums in any::<bool>(),
    ) {
        let mut bytes = Tar::new().folder("a/").pax("path", "a/long").file("a/b", b"content").symlink("a/c", "b").end();
        let most = bytes.len();
        for (at, value) in flips {
            bytes[at % most] = value;
        }
        if checksums {
            super::super::stream::mend_checksums(&mut bytes);
        }
        if let Ok(tree) = applied(&bytes) {
            for path in tree.0.keys() {
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))), "{path:?}");
            }
        }
    }
}
