//! Both sides of the codec stay within the memory that `CODEC.md` states, whatever the guest's size, and give back what they
//! held: counted where memory is taken, by the allocator and by the kernel.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use novacron_codec::{
    DECODER_WORK, Decoder, Encoder, FRAMER_WORK, Means, PACKER_WORK, PAGE, PARCEL, PLAIN_MAX, Policy,
    SLOT_COST, Secret, Settings, ZSTD_STATE,
};

/// Counts what is taken, and the most that was.
struct Counted;

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(taken, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

const MIB: usize = 1 << 20;
const CACHE: usize = 32 * MIB;
/// What the encoder may know of the pages held; the pages themselves are not the allocator's.
const INDICES: usize = CACHE / SLOT_COST * (SLOT_COST - PAGE);
const PAGES: u64 = 24_000;

/// What `work` takes at most, above what was taken before.
fn most(mut work: impl FnMut()) -> usize {
    let before = TAKEN.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    work();
    MOST.load(Ordering::Relaxed) - before
}

/// What this process has resident of anonymous memory, in bytes (proc_pid_smaps(5)).
fn resident() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux has it");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("it says so");
    line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok()).expect("in KiB") << 10
}

/// A record as the preempt channel has them; every page is another.
fn record(number: u64, page: &mut Vec<u8>) {
    page.clear();
    page.extend(((number << 12) | 8).to_be_bytes());
    page.extend(b"\x03ram");
    page.extend((0..PAGE as u64 / 8).flat_map(|word| (number * 1_000_003 + word * word).to_le_bytes()));
}

#[test]
fn a_large_guest_takes_no_more_than_the_cache_and_a_few_batches_and_all_of_it_is_given_back() {
    let secret = Secret([1; 32]);
    let settings =
        Settings { cache: CACHE, policy: Policy::Fixed(Means::Full), ..Settings::new(secret.clone(), 0) };
    let (mut frames, mut page) = (Vec::with_capacity(800 * MIB), Vec::with_capacity(2 * PAGE));
    let mut encoder = None;
    let encoding = most(|| {
        let encoder = encoder.insert(Encoder::new(settings.clone()));
        for number in (0..PAGES).chain(0..PAGES) {
            record(number, &mut page);
            encoder.push(&page, &mut frames);
        }
        encoder.finish(&mut frames);
        assert!(encoder.stats().reference.pages > 1000, "the cache is used: {:?}", encoder.stats());
    });
    let work = FRAMER_WORK + PARCEL + PACKER_WORK - ZSTD_STATE;
    assert!(encoding <= work + INDICES, "encoding took {} KiB", encoding >> 10);
    assert!(encoding > MIB, "what is counted is counted: {} KiB", encoding >> 10);
    given_back(|| drop(encoder));

    let (mut decoder, mut out) = (None, Vec::with_capacity(2 * PLAIN_MAX));
    let decoding = most(|| {
        let decoder = decoder.insert(Decoder::new(secret.clone(), 0, CACHE));
        let mut rest = frames.as_slice();
        while !rest.is_empty() {
            out.clear();
            rest = &rest[decoder.decode(rest, &mut out).expect("the frames are good")..];
        }
        decoder.finish().expect("all came back");
    });
    assert!(decoding <= DECODER_WORK + INDICES, "decoding took {} KiB", decoding >> 10);
    given_back(|| drop(decoder));
}

/// The pages held were resident, nearly all of them, and are gone as soon as whoever held them is.
fn given_back(drop: impl FnOnce()) {
    let before = resident();
    drop();
    let given = before - resident();
    let pages = CACHE / SLOT_COST * PAGE;
    assert!((pages..pages + 8 * MIB).contains(&given), "{} of {} KiB", given >> 10, pages >> 10);
}
