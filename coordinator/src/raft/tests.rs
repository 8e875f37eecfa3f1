//! The ledger as one node, through its handle: concurrent proposals, restart, and SIGKILL at random moments.

use super::{Leadership, Ledger, Member, settings::Compaction, store::LogStore};
use novacron_common::{
    api::TokenRole,
    ids::TokenId,
    spec::{Name, Sha256Digest},
};
use novacron_core::{Applied, CommandBody, command::TokenPut};
use novacron_store::Store;
use openraft::RaftLogReader;
use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// Says to the test's own program that it is the child that is going to be killed, and where it writes.
const CHILD_FOLDER: &str = "NOVACRON_TEST_CRASH_FOLDER";
const KILLS: u64 = 10;
/// The core keeps at most 10,000 tokens.
const WRITES_EACH_LIFE: usize = 800;

async fn open(folder: &Path) -> Ledger {
    let ledger = Ledger::open_on(store_when_free(folder).await, 1, None).await.unwrap();
    // Founding twice is refused, which is what a restart does here.
    let _ = ledger.found(Member::default()).await;
    let mut leadership = ledger.leadership();
    tokio::time::timeout(Duration::from_secs(60), leadership.wait_for(Leadership::is_leader))
        .await
        .unwrap()
        .unwrap();
    ledger
}

/// openraft's tasks let go of the files a moment after a shutdown.
async fn store_when_free(folder: &Path) -> Store {
    let began = Instant::now();
    loop {
        match Store::open(folder) {
            Ok(store) => return store,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn put(id: TokenId) -> CommandBody {
    let name: Name = "crash".parse().unwrap();
    CommandBody::TokenPut(TokenPut {
        id,
        name,
        role: TokenRole::Reader,
        secret_sha256: Sha256Digest([0; 32]),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_concurrent_proposals_gets_its_own_answer() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    let before = ledger.status().last_log;
    let asks = (0..500).map(|i| {
        let ledger = ledger.clone();
        tokio::spawn(async move { (i, ledger.propose(put(TokenId::from_u128(i))).await) })
    });
    for ask in asks.collect::<Vec<_>>() {
        let (i, applied) = ask.await.unwrap();
        assert_eq!(applied, Ok(Applied::TokenStored(TokenId::from_u128(i))));
    }
    let entries = ledger.status().last_log - before;
    assert!(entries < 250, "500 commands took {entries} entries: they were not grouped");
    assert_eq!(ledger.read(|state| state.api_tokens().len()), 500);
    ledger.shutdown().await;
    assert!(ledger.propose(put(TokenId::from_u128(1))).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_hear_every_entry_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    let mut committed = ledger.committed();
    for i in 0..20 {
        ledger.propose(put(TokenId::from_u128(i))).await.unwrap();
    }
    let mut seen = (0, 0);
    while seen.1 < 20 {
        let entry = committed.recv().await.unwrap();
        assert!(entry.index > seen.0);
        seen = (entry.index, seen.1 + entry.changes.iter().filter(|c| c.value.is_some()).count().min(1));
    }
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_leads_again_after_its_restart_and_knows_everything() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(folder.path()).await;
    for i in 0..100 {
        ledger.propose(put(TokenId::from_u128(i))).await.unwrap();
    }
    ledger.shutdown().await;
    drop(ledger);
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.read(|state| state.api_tokens().len()), 100);
    ledger.linearizable().await.unwrap();
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_sigkill() {
    if let Some(folder) = std::env::var_os(CHILD_FOLDER) {
        return write_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for kill in 0..KILLS {
        // Spread over the start, the first entries and the middle of a burst.
        let step = (kill * 7) % KILLS;
        let moment = Duration::from_millis(if step == 0 { 60 } else { 3 * kill });
        acknowledged.extend(live_and_die(folder.path(), usize::try_from(step * 16).unwrap(), moment));
    }
    assert!(
        acknowledged.len() > 100,
        "only {} writes were acknowledged: nothing was tested",
        acknowledged.len()
    );
    let ledger = open(folder.path()).await;
    let kept: BTreeSet<TokenId> = ledger.read(|state| state.api_tokens().iter().map(|t| t.id).collect());
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost", lost.len(), acknowledged.len());
    ledger.shutdown().await;
}

/// One life of the child, which ends at this moment after so many acknowledged writes; all that it acknowledged.
fn live_and_die(folder: &Path, writes: usize, moment: Duration) -> Vec<TokenId> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "raft::tests::what_was_acknowledged_is_there_after_sigkill", "--nocapture"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (said, heard) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = output.lines().map_while(Result::ok);
        lines.filter_map(|line| line.trim().parse().ok()).try_for_each(|id| said.send(id))
    });
    let mut acknowledged: Vec<TokenId> = Vec::new();
    while acknowledged.len() < writes {
        acknowledged.push(heard.recv_timeout(Duration::from_secs(60)).expect("the child writes"));
    }
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(heard);
    reader.join().unwrap().unwrap();
    acknowledged
}

async fn write_until_killed(folder: &Path) {
    let ledger = open(folder).await;
    let writers = (0..8).map(|_| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for _ in 0..WRITES_EACH_LIFE / 8 {
                let id = TokenId::generate();
                if ledger.propose(put(id)).await == Ok(Applied::TokenStored(id)) {
                    // One write call a line: a line that the parent reads whole was acknowledged.
                    let line = format!("\n{id}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    std::future::pending::<()>().await;
}

/// How many entries the log of a stopped node holds on disk.
async fn kept_in(folder: &Path) -> u64 {
    let store = store_when_free(folder).await;
    LogStore::open(store).unwrap().try_get_log_entries(..).await.unwrap().len() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_on_disk_is_cut_by_itself_and_nothing_is_lost_with_it() {
    const WRITES: u64 = 600;
    let compaction = Compaction { snapshot_every: 50, keep_behind: 20, purge_batch: 5 };
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let ledger = Ledger::open_compacting(store, 1, None, compaction).await.unwrap();
    ledger.found(Member::default()).await.unwrap();
    let mut leadership = ledger.leadership();
    leadership.wait_for(Leadership::is_leader).await.unwrap();
    for i in 0..WRITES {
        // One after the other, so that none shares an entry with another.
        ledger.propose(put(TokenId::from_u128(u128::from(i)))).await.unwrap();
    }
    // A snapshot is taken and the log cut beside the writes: what was due at the last of them may still be under way.
    let mut metrics = ledger.inner.raft.metrics();
    let bound = compaction.snapshot_every + compaction.keep_behind + compaction.purge_batch;
    let cut = metrics.wait_for(|m| {
        let purged = m.purged.map_or(0, |id| id.index);
        m.last_log_index.is_some_and(|last| last - purged <= bound)
    });
    tokio::time::timeout(Duration::from_secs(10), cut).await.expect("the log is cut").unwrap();
    assert!(ledger.status().last_log >= WRITES);
    ledger.shutdown().await;
    drop(ledger);
    let kept = kept_in(folder.path()).await;
    assert!((1..=bound).contains(&kept), "{kept} of {WRITES} entries are on disk");
    let ledger = open(folder.path()).await;
    assert_eq!(ledger.read(|state| state.api_tokens().len() as u64), WRITES);
    ledger.shutdown().await;
}
