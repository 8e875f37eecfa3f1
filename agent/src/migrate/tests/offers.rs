//! The lane of held pages over real QUIC: what the target tells, and what it may not tell.

use super::{
    lanes::{lane_over, linked},
    world::{Net, VM},
};
use crate::migrate::{
    checkpoint::{Checkpoints, Limits, Stock},
    lane::{
        Counters,
        offer::{Heard, Offer, OfferError, hear, tell},
    },
    link::lane::{LaneReader, LaneWriter},
};
use novacron_codec::{PAGE, PageObserver as _, STOCK_MAX, parse::Place};
use novacron_common::{
    units::ByteCount,
    wire::{LaneId, LaneKind, StreamKind, codec},
};
use novacron_transport::Link;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::watch,
    time::timeout,
};

const HELD: LaneId = LaneId { kind: LaneKind::Held, number: 0 };
const SOON: Duration = Duration::from_secs(60);

type Halves = (LaneReader, LaneWriter);

/// Source's and target's end of a lane; the links live as long as the test does.
async fn lane() -> (Halves, Halves, (Link, Link)) {
    let (here, there) = linked(&Net::new()).await;
    let mut out = here.open(StreamKind::Lane).await.unwrap();
    out.send(&0u8).await.unwrap();
    let (_, mut came) = there.accept().await.unwrap();
    came.recv::<u8>().await.unwrap();
    (lane_over(out, HELD), lane_over(came, HELD), (here, there))
}

async fn stock(folder: &Path, pages: u32) -> Arc<Stock> {
    let limits = Limits { total: ByteCount::mib(64), age: Duration::from_secs(3600), reserve: ByteCount(0) };
    let checkpoints = Checkpoints::open(folder.join("c"), limits, crate::clock::now).unwrap();
    let (draft, mut sink) = checkpoints.begin(VM).unwrap();
    for page in 0..u64::from(pages) {
        sink.page(Some(Place { block: 0, page }), &[page.to_le_bytes()[0] | 1; PAGE]);
    }
    drop(sink);
    draft.seal().await;
    checkpoints.stock(VM, None, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_is_told_and_counted_and_nothing_held_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    for pages in [0, 400] {
        let held = if pages > 0 { Some(stock(folder.path(), pages).await) } else { None };
        let (source, target, _links) = lane().await;
        let (counters, (shown, heard)) = (Counters::default(), watch::channel(Heard::Nothing));
        let telling = tokio::spawn(tell(target, held));
        timeout(SOON, hear(source, &counters, &shown)).await.unwrap().unwrap();
        telling.await.unwrap().unwrap();
        let Heard::All(offered) = heard.borrow().clone() else { panic!("all of it was told") };
        assert_eq!(offered.as_ref().map_or(0, |offered| offered.count()), pages);
        assert_eq!(offered.and_then(|offered| offered.find(&[3; PAGE])), (pages > 0).then_some(2));
        let told = counters.read().memory;
        let prints = u64::from(pages) * 16;
        assert!((prints + 5..prints + 64).contains(&told.offer_bytes), "{told:?}");
        assert_eq!(counters.read().memory_bytes, told.offer_bytes);
    }
}

/// What the source makes of these bytes, said by a target that then ends the lane.
async fn heard_of(bytes: Vec<u8>) -> Result<(), OfferError> {
    let (source, (mut reader, mut writer), _links) = lane().await;
    let saying = tokio::spawn(async move {
        // The source may hang up in the middle.
        let _ = writer.write_all(&bytes).await;
        let _ = writer.shutdown().await;
        let _ = reader.read(&mut [0]).await;
    });
    let heard = timeout(SOON, hear(source, &Counters::default(), &watch::channel(Heard::Nothing).0)).await;
    timeout(SOON, saying).await.unwrap().unwrap();
    heard.unwrap()
}

fn offering(pages: u32, prints: &[u8]) -> Vec<u8> {
    [codec::encode_frame(&Offer { key: [1; 16], pages }).unwrap(), prints.to_vec()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_lies_about_what_it_holds_is_not_believed() {
    let never_ends = heard_of(offering(10, &[7; 5 << 20])).await;
    assert!(matches!(never_ends, Err(OfferError::TooMany(_))), "{never_ends:?}");
    let too_much = heard_of(offering(STOCK_MAX + 1, &[])).await;
    assert!(matches!(too_much, Err(OfferError::TooLarge(_))), "{too_much:?}");
    for short in [&[][..], &[1; 15], &[1; 9 * 16], &[1; 10 * 16 - 1]] {
        let ended = heard_of(offering(10, short)).await;
        assert!(matches!(ended, Err(OfferError::Short { announced: 10, .. })), "{ended:?}");
    }
    let huge = heard_of([&u32::MAX.to_le_bytes(), &[0; 100][..]].concat()).await;
    assert!(matches!(huge, Err(OfferError::Frame(_))), "{huge:?}");
    let something_else = heard_of([&40_u32.to_le_bytes(), &[0xff; 40][..]].concat()).await;
    assert!(matches!(something_else, Err(OfferError::Frame(_))), "{something_else:?}");
    let cut = heard_of(vec![9]).await;
    assert!(matches!(cut, Err(OfferError::Lane(_))), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_speaks_where_it_is_to_listen_is_refused() {
    let ((mut reader, mut writer), target, _links) = lane().await;
    let telling = tokio::spawn(tell(target, None));
    writer.write_all(b"hello").await.unwrap();
    let _ = writer.shutdown().await; // the lane may be broken off by then
    let told = timeout(SOON, telling).await.unwrap().unwrap();
    assert!(matches!(told, Err(OfferError::Speaks)), "{told:?}");
    let _ = reader.read_to_end(&mut Vec::new()).await;
}
