//! Streams that QEMU could have written come back, and each kind of page is sent the way that is meant for it.

use novacron_codec::parse::{Channel, Parser};
use novacron_codec::{Decoder, Encoder, Means, PAGE, Page, SLOT_COST, Settings};

use crate::lane::{decode, decoder, encode, secret, settings, there_and_back};
use crate::streams::{Content, Main, Noise, multifd_greeting, multifd_packet, preempt};

const PAGES: u64 = 512;

/// One round over the whole guest.
fn round(main: &mut Main, contents: &[Content]) {
    for (number, part) in contents.chunks(100).enumerate() {
        let first = number as u64 * 100;
        main.part((first..).zip(part));
    }
}

fn pages(make: impl Fn(u64, &mut Noise) -> Content) -> Vec<Content> {
    let mut noise = Noise(1);
    (0..PAGES).map(|page| make(page, &mut noise)).collect()
}

fn stream_of(rounds: &[&[Content]]) -> Vec<u8> {
    let mut main = Main::begin(PAGES);
    rounds.iter().for_each(|contents| round(&mut main, contents));
    main.finish(&Noise(2).page())
}

#[test]
fn zero_pages_are_runs() {
    let zeros = pages(|_, _| Content::Zero);
    let stream = stream_of(&[&zeros]);
    let stats = there_and_back(Means::Pages, &stream);
    // The first record of each of the six sections names its block: those are bytes.
    assert_eq!(stats.zero.pages, PAGES - 6);
    assert!(stats.wire < PAGE as u64 + 600, "{stats:?}");
}

#[test]
fn pages_that_the_target_holds_are_references() {
    let one = Noise(9).page();
    let same = pages(|_, _| Content::of(one));
    let stats = there_and_back(Means::Pages, &stream_of(&[&same]));
    assert_eq!((stats.raw.pages, stats.reference.pages), (1, PAGES - 1));
    assert!(stats.wire < 3 * PAGE as u64 + 8 * PAGES, "{stats:?}");
}

#[test]
fn a_small_write_is_a_small_delta() {
    let first = pages(|_, noise| Content::of(noise.page()));
    let second = pages(|page, _| {
        let mut bytes = noise_page_of(&first, page);
        bytes[(page as usize * 8) % PAGE] ^= 0x55;
        Content::of(bytes)
    });
    let stats = there_and_back(Means::Pages, &stream_of(&[&first, &second, &second]));
    assert_eq!((stats.raw.pages, stats.delta.pages, stats.reference.pages), (PAGES, PAGES, PAGES));
    assert!(stats.delta.bytes <= 12 * PAGES, "{stats:?}");
    assert_eq!(stats.sent_again, 2 * PAGES);
}

fn noise_page_of(contents: &[Content], page: u64) -> Page {
    match &contents[page as usize] {
        Content::Of(bytes) => **bytes,
        Content::Zero => [0; PAGE],
    }
}

#[test]
fn text_is_compressed_and_noise_costs_next_to_nothing() {
    let text = pages(|_, noise| Content::of(noise.text()));
    let stats = there_and_back(Means::Full, &stream_of(&[&text]));
    assert!(stats.ratio().is_some_and(|ratio| ratio < 0.4), "{stats:?}");
    assert!(stats.compressed_to < stats.compressed_from / 2);

    let noise = pages(|_, noise| Content::of(noise.page()));
    for means in [Means::Off, Means::Pages, Means::Full] {
        let stats = there_and_back(means, &stream_of(&[&noise]));
        assert!(stats.ratio().is_some_and(|ratio| ratio < 1.005), "{means:?}: {stats:?}");
    }
}

#[test]
fn a_guest_larger_than_the_cache_comes_back() {
    // 16 MiB of guest against 8 MiB of cache, three rounds, a part of it changing: everything is evicted some time.
    let mut noise = Noise(5);
    let mut guest: Vec<Page> = (0..4096).map(|_| noise.page()).collect();
    let mut main = Main::begin(4096);
    for _ in 0..3 {
        for page in 0..4096 {
            let contents = Content::of(guest[page as usize]);
            main.part([(page, &contents)]);
            if noise.below(3) == 0 {
                guest[page as usize][noise.below(PAGE as u64) as usize] ^= 1;
            }
        }
    }
    let stats = there_and_back(Means::Pages, &main.finish(b"devices"));
    assert!(stats.delta.pages > 500 && stats.reference.pages > 500, "{stats:?}");
    assert!(stats.ratio().is_some_and(|ratio| ratio < 0.9), "{stats:?}");
}

#[test]
fn pages_are_held_from_the_first_time_and_those_that_come_back_take_the_place_of_those_that_do_not() {
    let first = pages(|_, noise| Content::of(noise.page()));
    let written = pages(|page, _| {
        let mut bytes = noise_page_of(&first, page);
        bytes[64] ^= 0x55;
        Content::of(bytes)
    });
    let narrow = |slots: u64| Settings { cache: slots as usize * SLOT_COST, ..settings(Means::Pages) };
    let sent = |settings: Settings, stream: &[u8]| {
        let mut decoder = Decoder::new(secret(), settings.lane, settings.cache);
        let (wire, stats) = encode(settings, stream, &[48 << 10], usize::MAX);
        assert!(decode(&mut decoder, &wire, 64 << 10).expect("the frames are good") == stream);
        stats
    };
    assert_eq!(sent(narrow(PAGES), &stream_of(&[&first, &written])).delta.pages, PAGES);
    // Room for one half, which the first takes and does not need; the second comes back.
    let half = PAGES / 2;
    let mut main = Main::begin(PAGES);
    round(&mut main, &first);
    for contents in [&written, &first] {
        main.part((half..).zip(&contents[half as usize..]));
    }
    let stats = sent(narrow(half), &main.finish(b"devices"));
    assert!((half / 2..half).contains(&stats.delta.pages), "{stats:?}");
}

#[test]
fn post_copy_goes_on_behind_the_package() {
    let mut main = Main::begin(PAGES);
    let contents = pages(|_, noise| Content::of(noise.page()));
    round(&mut main, &contents);
    main.package(&[0xab; 100_000]);
    round(&mut main, &contents);
    main.xbzrle(9, b"some encoding");
    let stats = there_and_back(Means::Pages, &main.finish(b"devices"));
    // The XBZRLE record stands outside of a section: from there on nothing is parsed.
    assert_eq!(stats.reference.pages, PAGES, "{stats:?}");
}

#[test]
fn pages_that_qemu_has_encoded_pass() {
    let mut main = Main::begin(PAGES);
    main.bytes.extend([2, 0, 0, 0, 2]);
    main.page(0, &Content::Zero);
    main.xbzrle(7, b"some encoding");
    main.page(8, &Content::Zero);
    let mut parser = Parser::default();
    let mut rest = main.bytes.as_slice();
    while let Some(piece) = parser.next(rest) {
        rest = &rest[piece.length()..];
    }
    assert_eq!((parser.channel(), rest.len()), (Channel::Main, 0));
}

#[test]
fn multifd_channels_come_back() {
    let mut noise = Noise(3);
    let shared = noise.page();
    let mut stream = multifd_greeting();
    for packet in 0..8_u64 {
        let normal: Vec<u64> = (0..100).map(|page| packet % 4 * 100 + page).collect();
        let payload: Vec<u8> =
            normal.iter().flat_map(|page| if page % 2 == 0 { shared } else { noise.page() }).collect();
        stream.extend(multifd_packet(0, &normal, &[1000, 1001], &payload));
        stream.extend(multifd_packet(1, &[], &[], &[]));
    }
    let stats = there_and_back(Means::Pages, &stream);
    assert_eq!((stats.raw.pages, stats.reference.pages), (401, 399));
    let zstd = multifd_packet(4, &[1, 2, 3], &[], &[0x28; 5000]);
    stream.extend(zstd.repeat(3));
    let stats = there_and_back(Means::Full, &stream);
    assert_eq!(stats.raw.pages, 401, "a payload that QEMU compressed is no page");
}

#[test]
fn the_preempt_channel_comes_back() {
    let mut noise = Noise(8);
    let pages: Vec<(u64, Page)> = (0..50).map(|page| (page, noise.page())).collect();
    let stats = there_and_back(Means::Pages, &preempt(&pages));
    assert_eq!(stats.raw.pages, 50);
    let repeated: Vec<(u64, Page)> = pages.iter().chain(&pages).copied().collect();
    assert_eq!(there_and_back(Means::Pages, &preempt(&repeated)).reference.pages, 50);
}

#[test]
fn a_restart_begins_with_empty_caches_and_loses_no_byte() {
    let contents = pages(|_, noise| Content::of(noise.page()));
    let stream = stream_of(&[&contents, &contents]);
    let (mut encoder, mut wire) = (Encoder::new(settings(Means::Full)), Vec::new());
    for piece in stream.chunks(700_001) {
        encoder.push(piece, &mut wire);
        encoder.new_generation(&mut wire);
    }
    encoder.finish(&mut wire);
    assert!(decode(&mut decoder(), &wire, 5000).expect("a restart is no fault") == stream);
    assert!(encoder.stats().reference.pages < PAGES, "{:?}", encoder.stats());
}
