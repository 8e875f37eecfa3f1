//! Pages that the target held before the migration: sent as numbers, rebuilt from what is held there, and nothing else.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use novacron_codec::parse::Place;
use novacron_codec::{
    BadOps, DecodeError, Decoder, Encoder, HOLE, Library, Means, NotHeld, Offered, PAGE, Page, PageObserver,
    Print, PrintKey, Printer, Stats,
};
use proptest::prelude::*;

use crate::lane::{decode, decoder, settings};
use crate::streams::{Content, Main, Noise};

/// Pages in memory; a missing one was damaged since it was offered.
#[derive(Clone, Default)]
struct Stock(Vec<Option<Box<Page>>>);

impl Stock {
    fn of(pages: impl IntoIterator<Item = Page>) -> Self {
        Self(pages.into_iter().map(|page| Some(Box::new(page))).collect())
    }

    fn offered(&self) -> Arc<Offered> {
        let key = PrintKey([3; 16]);
        let (offered, printer) = (Offered::new(&key, self.0.len() as u32), Printer::shared(&key));
        let print = |page: &Option<Box<Page>>| page.as_ref().map_or(HOLE, |page| printer.of(&page[..]));
        let prints: Vec<Print> = self.0.iter().map(print).collect();
        offered.extend(&prints).expect("as many as were announced");
        Arc::new(offered)
    }

    fn decoder(&self) -> Decoder {
        decoder().with_library(Box::new(self.clone()))
    }
}

impl Library for Stock {
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld> {
        let offered = self.0.len() as u32;
        let never = NotHeld::NeverOffered { number: number.into(), offered };
        let page = self.0.get(number as usize).ok_or(never)?;
        let lost = NotHeld::Lost { number, reason: ErrorKind::InvalidData };
        *into = **page.as_ref().ok_or(lost)?;
        Ok(())
    }
}

/// A guest's memory, all of it sent once.
fn stream_of(pages: &[Page]) -> Vec<u8> {
    let contents: Vec<Content> = pages.iter().map(|page| Content::of(*page)).collect();
    let mut main = Main::begin(pages.len() as u64);
    main.part((0..).zip(&contents));
    main.finish(b"devices")
}

fn noise(seed: u64, count: usize) -> Vec<Page> {
    let mut noise = Noise(seed);
    (0..count).map(|_| noise.page()).collect()
}

fn encode(encoder: Encoder, stream: &[u8]) -> (Vec<u8>, Stats) {
    let (mut encoder, mut wire) = (encoder, Vec::new());
    for piece in stream.chunks(50_000) {
        encoder.push(piece, &mut wire);
    }
    encoder.finish(&mut wire);
    (wire, *encoder.stats())
}

fn there_and_back(stock: &Stock, stream: &[u8]) -> Stats {
    let encoder = Encoder::new(settings(Means::Pages)).with_offer(stock.offered());
    let (wire, stats) = encode(encoder, stream);
    let back = decode(&mut stock.decoder(), &wire, 5000).expect("every reference is to what was offered");
    assert!(back == stream, "another stream came back");
    stats
}

#[test]
fn a_guest_that_comes_back_unchanged_costs_next_to_nothing() {
    let pages = noise(1, 600);
    let stats = there_and_back(&Stock::of(pages.clone()), &stream_of(&pages));
    // The first record names its block, and its page is known all the same.
    assert_eq!((stats.held.pages, stats.raw.pages), (600, 0), "{stats:?}");
    assert!(stats.wire < 1000, "{} bytes for 600 pages in order", stats.wire);
}

#[test]
fn what_changed_crosses_and_pages_that_moved_are_found() {
    let mut pages = noise(2, 400);
    let stock = Stock::of(pages.clone());
    pages.reverse();
    noise(3, 40).into_iter().enumerate().for_each(|(at, page)| pages[at * 10] = page);
    let stats = there_and_back(&stock, &stream_of(&pages));
    assert_eq!((stats.held.pages, stats.raw.pages), (360, 40), "{stats:?}");
}

#[test]
fn a_page_that_comes_again_is_edited_from_what_crossed_or_sent_anew() {
    let pages = noise(4, 64);
    let contents: Vec<Content> = pages.iter().map(|page| Content::of(*page)).collect();
    let mut edited = pages.clone();
    edited.iter_mut().for_each(|page| page[8] ^= 1);
    let again: Vec<Content> = edited.iter().map(|page| Content::of(*page)).collect();
    edited.iter_mut().for_each(|page| page[80] ^= 1);
    let third: Vec<Content> = edited.iter().map(|page| Content::of(*page)).collect();
    let mut main = Main::begin(64);
    [&contents, &again, &third].into_iter().for_each(|round| main.part((0..).zip(round)));
    let stats = there_and_back(&Stock::of(pages), &main.finish(b"devices"));
    assert_eq!((stats.held.pages, stats.raw.pages, stats.delta.pages), (64, 64, 64), "{stats:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_stock_and_any_guest_come_back_byte_for_byte(
        held in prop::collection::vec(prop::option::weighted(0.8, 0..60_u64), 0..80),
        guest in prop::collection::vec(0..60_u64, 1..120),
    ) {
        let page = |seed: u64| Noise(seed).page();
        let stock = Stock(held.iter().map(|seed| seed.map(|seed| Box::new(page(seed)))).collect());
        let pages: Vec<Page> = guest.iter().map(|seed| page(*seed)).collect();
        let stats = there_and_back(&stock, &stream_of(&pages));
        let known = guest.iter().filter(|seed| held.contains(&Some(**seed))).count();
        prop_assert_eq!(stats.held.pages, known as u64);
    }
}

fn refused(decoder: &mut Decoder, wire: &[u8]) -> NotHeld {
    match decode(decoder, wire, 4096) {
        Err(DecodeError::Rebuild(BadOps::NotHeld(why))) => why,
        other => panic!("{:?}", other.map(|bytes| bytes.len())),
    }
}

#[test]
fn references_to_what_was_never_offered_or_is_lost_are_refused() {
    let pages = noise(5, 50);
    let stock = Stock::of(pages.clone());
    let encoder = Encoder::new(settings(Means::Pages)).with_offer(stock.offered());
    let (wire, _) = encode(encoder, &stream_of(&pages));

    assert_eq!(refused(&mut decoder(), &wire), NotHeld::NeverOffered { number: 0, offered: 0 });
    let fewer = Stock(stock.0[..20].to_vec());
    assert_eq!(refused(&mut fewer.decoder(), &wire), NotHeld::NeverOffered { number: 20, offered: 20 });
    let mut damaged = stock.clone();
    damaged.0[7] = None;
    let lost = NotHeld::Lost { number: 7, reason: ErrorKind::InvalidData };
    assert_eq!(refused(&mut damaged.decoder(), &wire), lost);
    // What is held is not what was offered: the frame's proof tells.
    let mut other = stock;
    other.0.swap(3, 4);
    let wrong = decode(&mut other.decoder(), &wire, 4096);
    assert!(matches!(wrong, Err(DecodeError::Proof { .. })), "{:?}", wrong.map(|bytes| bytes.len()));
}

#[test]
fn behind_a_restart_nothing_is_held() {
    let pages = noise(6, 30);
    let (stock, stream) = (Stock::of(pages.clone()), stream_of(&pages));
    let mut encoder = Encoder::new(settings(Means::Pages)).with_offer(stock.offered());
    let mut wire = Vec::new();
    encoder.push(&stream[..60_000], &mut wire);
    encoder.new_generation(&mut wire);
    encoder.push(&stream[60_000..], &mut wire);
    encoder.finish(&mut wire);
    assert!((10..20).contains(&encoder.stats().held.pages), "{:?}", encoder.stats());
    assert!(decode(&mut stock.decoder(), &wire, 4096).expect("a restart is no fault") == stream);

    // A source that refers to the offer all the same, in a generation that follows another.
    let mut liar = Encoder::new(settings(Means::Pages));
    let mut wire = Vec::new();
    liar.push(&stream[..1000], &mut wire);
    let saved = liar.suspend(&mut wire);
    let mut liar =
        Encoder::resume(settings(Means::Pages), &saved).expect("as saved").with_offer(stock.offered());
    liar.push(&stream[1000..], &mut wire);
    liar.finish(&mut wire);
    assert_eq!(refused(&mut stock.decoder(), &wire), NotHeld::NeverOffered { number: 0, offered: 0 });
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sight>>>);

type Sight = (Option<Place>, Page);

impl PageObserver for Seen {
    fn page(&mut self, place: Option<Place>, page: &Page) {
        self.0.lock().expect("nobody panicked").push((place, *page));
    }
}

#[test]
fn an_observer_sees_every_page_that_is_not_blank_however_it_is_sent() {
    let mut pages = noise(7, 40);
    pages[11] = [0; PAGE];
    let stream = stream_of(&pages);
    for means in [Means::Off, Means::Pages, Means::Full] {
        let seen = Seen::default();
        let offered = Stock::of(pages[..10].to_vec()).offered();
        let encoder = Encoder::new(settings(means)).with_offer(offered).with_observer(Box::new(seen.clone()));
        encode(encoder, &stream);
        let seen = seen.0.lock().expect("nobody panicked");
        let places = seen.iter().map(|(place, _)| place.expect("an encoder knows the place").page);
        assert_eq!(
            places.collect::<Vec<_>>(),
            (0..40).filter(|number| *number != 11).collect::<Vec<_>>(),
            "{means:?}"
        );
        assert!(
            seen.iter().all(|(place, page)| place.is_some_and(|place| *page == pages[place.page as usize]))
        );
    }
}

#[test]
fn an_observer_of_a_decoder_sees_what_crossed_and_not_what_was_held_or_is_blank() {
    let mut pages = noise(7, 40);
    pages[11] = [0; PAGE];
    pages[12] = pages[20];
    let stock = Stock::of(pages[..10].to_vec());
    for means in [Means::Pages, Means::Full] {
        let wire = encode(Encoder::new(settings(means)).with_offer(stock.offered()), &stream_of(&pages)).0;
        let seen = Seen::default();
        let rebuilt =
            decode(&mut stock.decoder().with_observer(Box::new(seen.clone())), &wire, 5000).expect("as sent");
        assert!(rebuilt == stream_of(&pages));
        let seen: Vec<Page> = seen.0.lock().expect("nobody panicked").iter().map(|(_, page)| *page).collect();
        let crossed = pages[10..].iter().enumerate().filter(|(at, _)| ![1, 10].contains(at));
        assert!(
            seen == crossed.map(|(_, page)| *page).collect::<Vec<_>>(),
            "{means:?}: {} pages",
            seen.len()
        );
    }
}
