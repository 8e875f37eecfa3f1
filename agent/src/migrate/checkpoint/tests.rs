//! Checkpoints in real files: what is kept, what is thrown away, and what a damaged one costs.

use super::{
    Checkpoints, Inner, KEY, Limits, PAGES,
    gang::Gangs,
    pages::{CHUNK, CHUNK_PAGES, CONTENT, Pages},
    seal::Seal,
    sink,
};
use novacron_codec::{HOLE, Library, NotHeld, PAGE, Page, PageObserver, Print, Printer, parse::Place};
use novacron_common::{
    ids::{GangId, VmId},
    units::{ByteCount, UnixMillis},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

const VM: VmId = VmId::from_u128(7);
const DAY: Duration = Duration::from_secs(86_400);

fn limits(total: ByteCount) -> Limits {
    Limits { total, age: DAY, reserve: ByteCount(0) }
}

fn open(folder: &TempDir) -> Checkpoints {
    open_with(folder, limits(ByteCount::mib(64)), crate::clock::now)
}

fn open_with(folder: &TempDir, limits: Limits, now: fn() -> UnixMillis) -> Checkpoints {
    Checkpoints::open(folder.path().join("checkpoints"), limits, now).unwrap()
}

fn file(folder: &TempDir, vm: VmId, extension: &str) -> std::path::PathBuf {
    folder.path().join("checkpoints").join(format!("{vm}.{extension}"))
}

fn files(folder: &TempDir) -> usize {
    fs::read_dir(folder.path().join("checkpoints")).unwrap().count()
}

pub(super) fn page(seed: u64) -> Page {
    let mut page = [!seed.to_le_bytes()[0]; PAGE];
    page[..8].copy_from_slice(&seed.to_le_bytes());
    page
}

fn at(page: u64) -> Option<Place> {
    Some(Place { block: 0, page })
}

/// Keeps pages of these seeds, each at the place of its number. Few enough that all of them may wait.
async fn keep(checkpoints: &Checkpoints, vm: VmId, seeds: impl IntoIterator<Item = u64>) {
    let (draft, mut sink) = checkpoints.begin(vm).expect("there is room");
    for (number, seed) in (0..).zip(seeds) {
        sink.page(at(number), &page(seed));
    }
    drop(sink);
    draft.seal().await;
}

/// All prints of what is offered, and their printer.
fn offer(checkpoints: &Checkpoints, vm: VmId) -> Option<(Vec<Print>, Printer)> {
    let stock = checkpoints.stock(vm, None, None)?;
    let mut prints = Vec::new();
    loop {
        let next = stock.next_prints();
        if next.is_empty() {
            break;
        }
        prints.extend(next);
    }
    Some((prints, Printer::shared(&stock.key())))
}

#[tokio::test]
async fn what_was_kept_is_offered_and_read_and_a_later_version_of_a_page_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let (draft, mut sink) = checkpoints.begin(VM).unwrap();
    (0..200).for_each(|number| sink.page(at(number), &page(number)));
    (0..50).for_each(|number| sink.page(at(number), &page(number + 1000)));
    drop(sink);
    assert_eq!(checkpoints.held(), [], "a draft is no checkpoint");
    draft.seal().await;
    // As a restarted agent finds it.
    let checkpoints = open(&folder);
    assert_eq!(checkpoints.held(), [VM]);
    let (prints, printer) = offer(&checkpoints, VM).unwrap();
    let expected = (0..200).chain(1000..1050);
    assert!(prints == expected.clone().map(|seed| printer.of(&page(seed))).collect::<Vec<_>>());
    let stock = checkpoints.stock(VM, None, None).unwrap();
    let (mut reader, mut into) = (stock.reader(), [0; PAGE]);
    assert_eq!(reader.page(0, &mut into), Err(NotHeld::NeverOffered { number: 0, offered: 0 }));
    stock.next_prints();
    for (number, seed) in (0..).zip(expected) {
        reader.page(number, &mut into).unwrap();
        assert!(into == page(seed));
    }
    assert_eq!(reader.page(250, &mut into), Err(NotHeld::NeverOffered { number: 250, offered: 250 }));
}

#[tokio::test]
async fn only_this_user_may_read_it_and_without_its_key_it_is_noise() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    keep(&checkpoints, VM, 0..100).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([PAGES, KEY].map(|extension| mode(&file(&folder, VM, extension))), [0o600; 2]);
    assert_eq!(mode(&folder.path().join("checkpoints")), 0o700);
    let bytes = fs::read(file(&folder, VM, PAGES)).unwrap();
    assert!(!bytes.windows(64).any(|run| run == [99; 64]), "a page is there in the clear");

    let mut key = File::open(file(&folder, VM, KEY)).unwrap();
    checkpoints.remove(VM);
    let mut left = Vec::new();
    key.read_to_end(&mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0), "the key is still on the disk");
    assert_eq!((checkpoints.held(), files(&folder)), (vec![], 0));
    checkpoints.remove(VM);
}

#[tokio::test]
async fn a_move_that_did_not_end_there_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let (draft, mut sink) = checkpoints.begin(VM).unwrap();
    (0..200).for_each(|number| sink.page(at(number), &page(number)));
    drop(draft);
    drop(sink);
    assert_eq!(files(&folder), 0);
    // An agent that is killed cannot clean up; the next one does.
    let begun = checkpoints.begin(VM).unwrap();
    assert_eq!(files(&folder), 1);
    open(&folder);
    assert_eq!(files(&folder), 0);
    drop(begun);
    // Killed between the pages and the key.
    keep(&checkpoints, VM, 0..100).await;
    fs::remove_file(file(&folder, VM, KEY)).unwrap();
    assert_eq!((open(&folder).held(), files(&folder)), (vec![], 0));
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

#[tokio::test]
async fn damaged_pages_are_not_offered_and_the_others_are() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let pages = 7 * CHUNK_PAGES;
    keep(&checkpoints, VM, 0..pages.into()).await;
    let path = file(&folder, VM, PAGES);
    // In the content, in the tag; and two chunks that changed places.
    [(1, 2000), (2, CONTENT as u64 + 3)]
        .into_iter()
        .for_each(|(chunk, byte)| flip(&path, chunk * CHUNK as u64 + byte));
    let mut bytes = fs::read(&path).unwrap();
    let (front, back) = bytes.split_at_mut(5 * CHUNK);
    front[4 * CHUNK..].swap_with_slice(&mut back[..CHUNK]);
    fs::write(&path, bytes).unwrap();
    let (prints, printer) = offer(&checkpoints, VM).unwrap();
    let is_damaged = |number: u32| [1, 2, 4, 5].contains(&(number / CHUNK_PAGES));
    let expected = |number| if is_damaged(number) { HOLE } else { printer.of(&page(number.into())) };
    assert!(prints == (0..pages).map(expected).collect::<Vec<_>>());
}

#[tokio::test]
async fn pages_are_read_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let pages = 17 * CHUNK_PAGES + 7;
    keep(&checkpoints, VM, 0..pages.into()).await;
    let stock = checkpoints.stock(VM, None, None).unwrap();
    while !stock.next_prints().is_empty() {}
    let (mut reader, mut into) = (stock.reader(), [0; PAGE]);
    for number in (0..pages).map(|step| step * 619 % pages) {
        reader.page(number, &mut into).unwrap();
        assert!(into == page(number.into()), "page {number}");
    }
}

#[tokio::test]
async fn a_page_that_is_damaged_after_it_was_offered_is_refused_and_the_checkpoint_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    keep(&checkpoints, VM, 0..100).await;
    let stock = checkpoints.stock(VM, None, None).unwrap();
    stock.next_prints();
    flip(&file(&folder, VM, PAGES), CHUNK as u64 + 100);
    let (mut reader, mut into) = (stock.reader(), [0; PAGE]);
    assert_eq!(reader.page(4, &mut into), Ok(()));
    assert_eq!(reader.page(75, &mut into), Err(NotHeld::Lost { number: 75, reason: ErrorKind::InvalidData }));
    assert_eq!((checkpoints.held(), files(&folder)), (vec![], 0));
}

#[tokio::test]
async fn a_truncated_one_or_one_with_a_damaged_key_is_thrown_away() {
    let shorten = |folder: &TempDir, extension: &str, by: u64| {
        let path = file(folder, VM, extension);
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(path).unwrap().set_len(length - by).unwrap();
    };
    let another = |folder: &TempDir| {
        let seal = Seal::read(&file(folder, VM, KEY)).unwrap();
        Seal { vm: VmId::from_u128(8), ..seal }.write(&file(folder, VM, KEY)).unwrap();
    };
    let damages: [&dyn Fn(&TempDir); 4] = [
        &|folder| shorten(folder, PAGES, 1),
        &|folder| shorten(folder, KEY, 3),
        &|folder| flip(&file(folder, VM, KEY), 0),
        &another,
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = open(&folder);
        keep(&checkpoints, VM, 0..60).await;
        damage(&folder);
        assert!(checkpoints.stock(VM, None, None).is_none(), "damage {number}");
        assert_eq!((checkpoints.held(), files(&folder)), (vec![], 0), "damage {number}");
    }
}

#[tokio::test]
async fn a_key_that_was_changed_opens_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    keep(&checkpoints, VM, 0..60).await;
    let mut seal = Seal::read(&file(&folder, VM, KEY)).unwrap();
    seal.key[0] ^= 1;
    seal.write(&file(&folder, VM, KEY)).unwrap();
    assert_eq!(offer(&checkpoints, VM).unwrap().0, vec![HOLE; 60]);
}

fn late() -> UnixMillis {
    let later = i64::try_from((DAY * 2).as_millis()).unwrap();
    UnixMillis(crate::clock::now().0 + later)
}

#[tokio::test]
async fn what_is_too_old_is_erased_and_what_is_too_much_from_the_oldest_on() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let vms = [1, 2, 3].map(VmId::from_u128);
    for (age, vm) in [3000, 2000, 1000].into_iter().zip(vms) {
        keep(&checkpoints, vm, 0..60).await;
        let path = file(&folder, vm, KEY);
        let seal = Seal::read(&path).unwrap();
        Seal { sealed_at: UnixMillis(seal.sealed_at.0 - age), ..seal }.write(&path).unwrap();
    }
    let two = limits(ByteCount(2 * CHUNK as u64));
    let fewer = open_with(&folder, two, crate::clock::now);
    let mut held = fewer.held();
    held.sort_unstable();
    assert_eq!(held, vms[1..]);
    // The newest one stays, whatever its size; what is older makes room.
    keep(&fewer, VM, 0..100).await;
    assert_eq!(fewer.held(), [VM]);
    let later = open_with(&folder, two, late);
    assert_eq!((later.held(), files(&folder)), (vec![], 0));
    // What became too old while the agent ran is not offered.
    keep(&checkpoints, VM, 0..10).await;
    let path = file(&folder, VM, KEY);
    let seal = Seal::read(&path).unwrap();
    Seal { sealed_at: UnixMillis(1), ..seal }.write(&path).unwrap();
    assert!(checkpoints.stock(VM, None, None).is_none() && files(&folder) == 0);
}

#[tokio::test]
async fn more_pages_than_there_is_room_for_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open_with(&folder, limits(ByteCount(2 * CHUNK as u64)), crate::clock::now);
    keep(&checkpoints, VM, 0..200).await;
    assert_eq!(offer(&checkpoints, VM).unwrap().0.len(), 2 * CHUNK_PAGES as usize);
}

#[tokio::test]
async fn a_disk_without_room_keeps_nothing_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let none = Limits { reserve: ByteCount(u64::MAX), ..limits(ByteCount::mib(64)) };
    assert!(open_with(&folder, none, crate::clock::now).begin(VM).is_none());

    // The disk is full from the first page on (full(4)).
    let inner = Arc::new(Inner {
        folder: folder.path().join("checkpoints"),
        limits: limits(ByteCount::mib(64)),
        now: crate::clock::now,
        gangs: Gangs::default(),
    });
    let full = OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let (mut sink, written) = sink::start(inner, 9000, Arc::new(Pages::of(full, &[1; 32]).unwrap())).unwrap();
    (0..5000).for_each(|number| sink.page(at(number), &page(number)));
    drop(sink);
    assert!(written.await.is_err(), "a checkpoint that could not be written counts");
}

#[tokio::test]
async fn none_are_kept_where_none_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    keep(&open(&folder), VM, 0..10).await;
    let off = open_with(&folder, limits(ByteCount(0)), crate::clock::now);
    assert!(off.begin(VM).is_none() && off.stock(VM, None, None).is_none());
    assert_eq!(files(&folder), 0, "what was kept before is erased");
    assert!(Checkpoints::off().begin(VM).is_none());
}

const GANG: GangId = GangId::from_u128(3);

/// What a machine of the gang brings: pages of these seeds.
async fn bring(checkpoints: &Checkpoints, gang: GangId, seeds: impl IntoIterator<Item = u64>) {
    let (arriving, mut sink) = checkpoints.arriving(gang).expect("there is room");
    seeds.into_iter().for_each(|seed| sink.page(None, &page(seed)));
    drop(sink);
    arriving.share().await;
}

#[tokio::test]
async fn what_machines_of_a_gang_brought_is_offered_to_those_that_follow_beside_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    keep(&checkpoints, VM, 0..70).await;
    bring(&checkpoints, GANG, 1000..1100).await;
    bring(&checkpoints, GANG, 2000..2010).await;
    bring(&checkpoints, GangId::from_u128(4), 3000..3010).await;
    let stock = checkpoints.stock(VM, Some(GANG), None).unwrap();
    let mut prints = Vec::new();
    while let Some(next) = Some(stock.next_prints()).filter(|next| !next.is_empty()) {
        prints.extend(next);
    }
    let expected: Vec<u64> = (0..70).chain(1000..1100).chain(2000..2010).collect();
    let printer = Printer::shared(&stock.key());
    assert_eq!(stock.count() as usize, expected.len());
    assert!(prints == expected.iter().map(|seed| printer.of(&page(*seed))).collect::<Vec<_>>());
    let (mut reader, mut into) = (stock.reader(), [0; PAGE]);
    for (number, seed) in (0..stock.count()).zip(&expected).rev() {
        reader.page(number, &mut into).unwrap();
        assert!(into == page(*seed), "page {number}");
    }
    let count = stock.count();
    assert_eq!(
        reader.page(count, &mut into),
        Err(NotHeld::NeverOffered { number: count.into(), offered: count })
    );
    let another = VmId::from_u128(8);
    assert_eq!(checkpoints.stock(another, Some(GANG), None).unwrap().count(), 110);
    assert!(checkpoints.stock(another, None, None).is_none());
}

#[tokio::test]
async fn what_a_gang_brought_leaves_no_file_and_does_not_outlive_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    bring(&checkpoints, GANG, 0..100).await;
    assert_eq!(files(&folder), 0);
    assert!(checkpoints.stock(VM, Some(GANG), None).is_some());
    assert!(open(&folder).stock(VM, Some(GANG), None).is_none());
}

#[tokio::test]
async fn a_machine_that_does_not_arrive_shares_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = open(&folder);
    let (arriving, mut sink) = checkpoints.arriving(GANG).unwrap();
    (0..100).for_each(|seed| sink.page(None, &page(seed)));
    drop(arriving);
    drop(sink);
    assert!(checkpoints.stock(VM, Some(GANG), None).is_none());
}

#[tokio::test]
async fn gangs_share_a_bounded_room_and_end_some_time_after_their_last_arrival() {
    let folder = tempfile::tempdir().unwrap();
    let three = limits(ByteCount(3 * CHUNK as u64));
    let checkpoints = open_with(&folder, three, crate::clock::now);
    let [first, second] = [GANG, GangId::from_u128(4)];
    bring(&checkpoints, first, 0..100).await;
    bring(&checkpoints, second, 0..100).await;
    let held = |checkpoints: &Checkpoints| {
        [first, second].map(|gang| checkpoints.stock(VM, Some(gang), None).map_or(0, |stock| stock.count()))
    };
    assert_eq!(held(&checkpoints), [0, 100], "the first one makes room");
    bring(&checkpoints, second, 200..400).await;
    assert_eq!(held(&checkpoints), [0, 3 * CHUNK_PAGES], "a gang has no more room than there is");
    checkpoints.evict().unwrap();
    assert_eq!(held(&checkpoints), [0, 3 * CHUNK_PAGES]);
    let aged = open_with(&folder, three, late);
    bring(&aged, first, 0..10).await;
    if let Some(inner) = &aged.0 {
        inner.gangs.evict(UnixMillis(late().0 + 601_000));
    }
    assert_eq!(held(&aged), [0, 0]);
}
