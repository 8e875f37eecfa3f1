//! Names as strangers write them.

use super::*;
use proptest::prelude::*;

fn file(name: &str) -> Said {
    Said { kind: b'0', name: name.into(), mode: 0o4755, ..Said::default() }
}

#[test]
fn plain_members_keep_their_place_and_lose_what_means_nothing_here() {
    let path = LayerPath::parse(b"./usr//bin/su").unwrap();
    assert_eq!(path.as_path(), Path::new("usr/bin/su"));
    let Member::File(at, attributes) = file("./usr//bin/su").judge().unwrap() else { panic!("a file") };
    assert_eq!((at, attributes.mode), (path, 0o755), "the set-user-id bit is gone");
    let sticky = Said { kind: b'5', mode: 0o5777, ..file("tmp/") };
    assert!(matches!(sticky.judge().unwrap(), Member::Folder(_, Attributes { mode: 0o1777, .. })));
    assert!(matches!(file("old/").judge().unwrap(), Member::Folder(..)));
    let link = Said { kind: b'2', target: "../../../etc/shadow".into(), ..file("a") };
    assert!(matches!(link.judge().unwrap(), Member::Symlink(..)), "followed inside machines only");
    assert!(matches!(Said { kind: b'3', ..file("dev/sda") }.judge().unwrap(), Member::Device(_)));
}

#[test]
fn what_leads_out_is_refused() {
    for name in ["/etc/passwd", "..", "../x", "a/../../x", "a/..", "a/b/../../../x"] {
        assert!(matches!(file(name).judge(), Err(BadMember::Outside(_))), "{name}");
        let hard = Said { kind: b'1', target: name.into(), ..file("x") };
        assert!(matches!(hard.judge(), Err(BadMember::Outside(_))), "hard link to {name}");
    }
    for name in ["", ".", "./", "a\0b"] {
        assert!(
            file(name).judge().is_err_and(|e| matches!(e, BadMember::Name(_))) || name == "./",
            "{name:?}"
        );
    }
    let (long, deep) = ("x".repeat(256), "x/".repeat(257));
    assert!(matches!(file(&long).judge(), Err(BadMember::TooLong(_))));
    assert!(matches!(file(&deep).judge(), Err(BadMember::TooLong(_))));
    let nowhere = Said { kind: b'2', ..file("a") };
    assert!(matches!(nowhere.judge(), Err(BadMember::Target(_))));
    let itself = Said { kind: b'1', target: "./a".into(), ..file("a") };
    assert!(matches!(itself.judge(), Err(BadMember::Target(_))));
    assert!(matches!(Said { kind: b'S', ..file("a") }.judge(), Err(BadMember::Kind { kind: 'S', .. })));
}

#[test]
fn ids_beyond_a_machines_range_are_refused() {
    for id in [65_536, u64::from(u32::MAX), u64::MAX] {
        assert!(matches!(Said { uid: id, ..file("a") }.judge(), Err(BadMember::Id { .. })), "{id}");
        assert!(matches!(Said { gid: id, ..file("a") }.judge(), Err(BadMember::Id { .. })), "{id}");
    }
    assert!(Said { uid: 65_535, gid: 65_535, ..file("a") }.judge().is_ok());
}

#[test]
fn whiteouts_name_what_they_hide_and_nothing_else() {
    let path = |name: &str| LayerPath::parse(name.as_bytes()).unwrap();
    assert_eq!(file("a/.wh.b").judge(), Ok(Member::Whiteout(path("a/b"))));
    assert_eq!(file(".wh.b").judge(), Ok(Member::Whiteout(path("b"))));
    assert_eq!(file("a/.wh..wh..opq").judge(), Ok(Member::Opaque(path("a"))));
    assert_eq!(file(".wh..wh..opq").judge(), Ok(Member::Opaque(LayerPath(PathBuf::new()))));
    for name in [".wh.", ".wh..", ".wh...", "a/.wh...", ".wh..wh.plnk", ".wh.a/b", ".wh..wh..opq/b"] {
        assert!(matches!(file(name).judge(), Err(BadMember::Whiteout(_))), "{name}");
    }
}

proptest! {
    #[test]
    fn whatever_is_accepted_stays_inside(kind in any::<u8>(), name in "[a./\\x00wh]{0,24}", target in "[a./wh]{0,24}") {
        let said = Said { kind, name: name.into_bytes(), target: target.into_bytes(), ..Said::default() };
        let places = match said.judge() {
            Err(_) => vec![],
            Ok(Member::HardLink(path, target)) => vec![path, target],
            Ok(
                Member::Folder(path, _) | Member::File(path, _) | Member::Symlink(path, ..) | Member::Pipe(path, _)
                | Member::Whiteout(path) | Member::Opaque(path) | Member::Device(path)
            ) => vec![path],
        };
        for path in places {
            prop_assert!(path.as_path().components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        }
    }
}
