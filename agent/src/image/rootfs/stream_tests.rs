//! Streams as tar programs write them, and as none would.

use super::{super::fixture::Tar, *};
use tar::EntryType;

fn walked(archive: &[u8]) -> Result<Vec<(String, u64)>, StreamFault> {
    let mut members = Members::new(archive);
    let mut seen = Vec::new();
    while let Some(next) = members.advance()? {
        seen.push((String::from_utf8_lossy(&next.said.name).into_owned(), next.length));
    }
    Ok(seen)
}

#[test]
fn contents_are_read_in_part_in_whole_or_not_at_all() {
    let archive = Tar::new().file("a", &[1; 700]).file("b", b"hello").file("c", &[3; 512]).end();
    let mut members = Members::new(archive.as_slice());
    assert_eq!(members.advance().unwrap().unwrap().at, 512);
    let mut some = [0; 10];
    members.content().read_exact(&mut some).unwrap();
    let second = members.advance().unwrap().unwrap();
    assert_eq!((second.at, second.length), (512 + 1024 + 512, 5));
    let mut text = String::new();
    members.content().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(members.advance().unwrap().unwrap().said.name, b"c");
    assert!(members.advance().unwrap().is_none());
}

#[test]
fn long_names_come_whole_and_no_longer_than_can_be() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let gnu =
        Tar::new().member(EntryType::GNULongName, "././@LongLink", 0, "", format!("{long}\0").as_bytes());
    assert_eq!(walked(&gnu.file("cut", b"x").end()).unwrap(), [(long.clone(), 1)]);
    let pax = Tar::new().pax("path", &long).file("cut", b"x").file("own", b"").end();
    assert_eq!(walked(&pax).unwrap(), [(long, 1), ("own".to_owned(), 0)], "a record is for one member");
    let endless = Tar::new().member(EntryType::GNULongName, "x", 0, "", &vec![b'a'; 65 << 10]).file("x", b"");
    assert!(matches!(walked(&endless.end()), Err(StreamFault::Extension { length: 66_560 })));
}

#[test]
fn what_is_no_archive_is_called_damaged() {
    let whole = Tar::new().file("a", b"a").end();
    let mut wrong_sum = whole.clone();
    wrong_sum[0] ^= 1;
    for bytes in [&b"hello"[..], &[7; 512], &whole[..700], &wrong_sum] {
        assert!(matches!(walked(bytes), Err(StreamFault::Damaged(_))), "{} bytes", bytes.len());
    }
    assert_eq!(walked(b"").unwrap(), []);
    for record in ["", "x", "5 a=\n", "99 a=b\n", "7 a=bcde", "-6 a=b\n", "6 ab=c\n"] {
        let bad =
            Tar::new().member(EntryType::XHeader, "x", 0, "", format!("{record} ").as_bytes()).file("a", b"");
        assert!(matches!(walked(&bad.end()), Err(StreamFault::Damaged(_))), "{record:?}");
    }
    let sparse = Tar::new().pax("GNU.sparse.major", "1").file("a", b"").end();
    assert!(matches!(walked(&sparse), Err(StreamFault::Damaged("a sparse file"))));
    let absurd = Tar::new().pax("size", &u64::MAX.to_string()).file("a", b"").end();
    assert!(matches!(walked(&absurd), Err(StreamFault::Damaged(_))));
}
