//! openraft's own storage suite on our storage, and what it does not ask: restarts, long entries, snapshots that
//! a crash interrupts.

use super::{LogStore, StateMachine, rows::Rows};
use crate::raft::types::{Commands, Entry, LogId, Member, StorageError, Types};
use novacron_common::{
    api::TokenRole,
    ids::TokenId,
    spec::{Name, Sha256Digest},
    units::UnixMillis,
};
use novacron_core::{Command, CommandBody, State, TableId, command::TokenPut, record::CoordinatorRecord};
use novacron_store::Store;
use openraft::{
    CommittedLeaderId, EntryPayload, RaftLogReader, RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::{StoreBuilder, Suite},
};
use std::path::Path;
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let (log, machine) = open(folder.path());
        Ok((folder, log, machine))
    }
}

fn open(folder: &Path) -> (LogStore, StateMachine) {
    let store = Store::open(folder).unwrap();
    let log = LogStore::open(store.clone()).unwrap();
    let machine = StateMachine::open(store, log.journal()).unwrap();
    (log, machine)
}

/// A node's life that ends without another word: what its tasks had not done is not done.
fn life<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term, 1), index }
}

fn token(number: u128) -> Command {
    let name: Name = format!("t{number}").parse().unwrap();
    let put = TokenPut {
        id: TokenId::from_u128(number),
        name,
        role: TokenRole::Reader,
        secret_sha256: Sha256Digest([7; 32]),
    };
    Command { at: UnixMillis(1), body: CommandBody::TokenPut(put) }
}

fn entry(index: u64, commands: Vec<Command>) -> Entry {
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Commands(commands)) }
}

fn tokens(machine: &StateMachine) -> Vec<TokenId> {
    machine.read(|state| state.api_tokens().iter().map(|t| t.id).collect())
}

#[test]
fn openrafts_storage_suite_passes() {
    Suite::test_all(Builder).unwrap();
}

#[test]
fn vote_log_and_state_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let vote = openraft::Vote::new_committed(3, 1);
    life(async {
        let (mut log, mut machine) = open(folder.path());
        log.save_vote(&vote).await.unwrap();
        log.save_committed(Some(log_id(1, 2))).await.unwrap();
        log.blocking_append((1..=3).map(|i| entry(i, vec![token(i.into())]))).await.unwrap();
        machine.apply([entry(1, vec![token(1)]), entry(2, vec![token(2)])]).await.unwrap();
        machine.written().await.unwrap();
    });
    life(async {
        let (mut log, mut machine) = open(folder.path());
        assert_eq!(log.read_vote().await.unwrap(), Some(vote));
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 2)));
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 3)));
        assert_eq!(machine.applied_state().await.unwrap().0, Some(log_id(1, 2)));
        assert_eq!(tokens(&machine), [TokenId::from_u128(1), TokenId::from_u128(2)]);
    });
}

#[tokio::test]
async fn an_entry_longer_than_a_value_comes_back_whole_and_goes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path());
    let long: Vec<Command> = (0..4000).map(token).collect();
    log.blocking_append([entry(1, vec![token(1)]), entry(2, long.clone()), entry(3, vec![])]).await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(entries.len(), 3);
    assert!(matches!(&entries[1].payload, EntryPayload::Normal(commands) if commands.0 == long));
    // A replication request is cut before it grows too long, but never to nothing.
    assert_eq!(log.limited_get_log_entries(2, 4).await.unwrap()[0].log_id, log_id(1, 2));
    log.truncate(log_id(1, 2)).await.unwrap();
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 1);
    assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(log_id(1, 1)));
}

#[test]
fn a_snapshot_carries_the_whole_state_to_another_node_and_survives_its_restart() {
    let (leader_folder, follower_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let all = life(async {
        let (_, mut leader) = open(leader_folder.path());
        let many = (1..=3000).map(token).collect();
        leader.apply([entry(1, many)]).await.unwrap();
        let snapshot = leader.get_snapshot_builder().await.build_snapshot().await.unwrap();
        let (_, mut follower) = open(follower_folder.path());
        // What the follower had of its own is gone afterwards, also what it had not written down yet.
        follower.apply([entry(1, vec![token(999_999)])]).await.unwrap();
        follower.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        assert_eq!(tokens(&follower), tokens(&leader));
        tokens(&leader)
    });
    assert_eq!(all.len(), 3000);
    life(async {
        let (_, mut follower) = open(follower_folder.path());
        assert_eq!(tokens(&follower), all);
        assert_eq!(follower.applied_state().await.unwrap().0, Some(log_id(1, 1)));
    });
}

#[tokio::test]
async fn a_snapshot_that_was_cut_short_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_, mut machine) = open(folder.path());
    machine.apply([entry(1, vec![token(1)])]).await.unwrap();
    let snapshot = machine.build_snapshot().await.unwrap();
    machine.apply([entry(2, vec![token(2)])]).await.unwrap();
    let whole = snapshot.snapshot.into_inner();
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        assert!(super::snapshot::read(&whole[..length]).is_err(), "{length} bytes were taken for a snapshot");
        let mut cut = machine.begin_receiving_snapshot().await.unwrap();
        *cut.get_mut() = whole[..length].to_vec();
        assert!(machine.install_snapshot(&snapshot.meta, cut).await.is_err());
    }
    assert_eq!(tokens(&machine).len(), 2);
}

#[test]
fn an_installation_that_a_crash_interrupted_leaves_the_old_state() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = CoordinatorRecord {
        node: 1,
        name: "c1".parse().unwrap(),
        quic: Member::default().quic,
        http: Member::default().http,
    };
    let mut state = State::default();
    state.apply(1, Command { at: UnixMillis(1), body: CommandBody::CoordinatorPut(coordinator) });
    {
        let store = Store::open(folder.path()).unwrap();
        let rows = Rows::open(store.clone()).unwrap();
        rows.write(&state.take_changes(), &Default::default()).unwrap();
        // The crash came after the other tree was filled and before the pointer was turned.
        let other = store.tree("state-b").unwrap();
        other.put(&[1, TableId::Coordinators.number(), 9], b"half").unwrap();
        store.sync().unwrap();
    }
    let (loaded, _) = Rows::open(Store::open(folder.path()).unwrap()).unwrap().load().unwrap();
    assert_eq!(loaded.coordinators().len(), 1);
    let mut rows = Rows::open(Store::open(folder.path()).unwrap()).unwrap();
    rows.replace(state.rows().collect(), &Default::default()).unwrap();
    assert_eq!(rows.load().unwrap().0.coordinators().len(), 1, "what the crash left behind is gone");
}

#[tokio::test]
async fn purged_entries_are_gone_and_what_they_did_is_not() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (mut log, mut machine) = open(folder.path());
        for index in 1..=50 {
            let entries = [entry(index, vec![token(index.into())])];
            log.blocking_append(entries.clone()).await.unwrap();
            machine.apply(entries).await.unwrap();
        }
        // openraft purges what is in a snapshot.
        machine.build_snapshot().await.unwrap();
        log.purge(log_id(1, 40)).await.unwrap();
    }
    let (mut log, machine) = open(folder.path());
    let state = log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 40)), Some(log_id(1, 50))));
    assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 10);
    assert_eq!(tokens(&machine).len(), 50);
}

#[test]
fn what_a_crash_left_unwritten_is_in_the_log_behind_the_rows() {
    let folder = tempfile::tempdir().unwrap();
    life(async {
        let (mut log, mut machine) = open(folder.path());
        for index in 1..=30 {
            let entries = [entry(index, vec![token(index.into())])];
            log.blocking_append(entries.clone()).await.unwrap();
            machine.apply(entries).await.unwrap();
            if index == 20 {
                machine.written().await.unwrap();
            }
        }
    });
    life(async {
        let (mut log, mut machine) = open(folder.path());
        let applied = machine.applied_state().await.unwrap().0.unwrap().index;
        assert!((20..30).contains(&applied), "the rows stand at {applied}: the test shows nothing");
        assert_eq!(tokens(&machine).len() as u64, applied, "rows and index are of the same entry");
        let behind = log.try_get_log_entries(applied + 1..).await.unwrap();
        machine.apply(behind).await.unwrap();
        assert_eq!(tokens(&machine).len(), 30);
    });
    let (last, state) = super::peek(Store::open(folder.path()).unwrap()).unwrap();
    assert_eq!((last, state.api_tokens().len()), (30, 30), "one that looks at the files sees all of it");
}

/// Entries written and purged again; with `NOVACRON_SOAK` the million that facts.md asks for.
#[tokio::test(flavor = "multi_thread")]
async fn files_stay_bounded_however_many_entries_come_and_go() {
    const GROUP: u64 = 500;
    const KEPT: u64 = 1000;
    let entries: u64 = if std::env::var_os("NOVACRON_SOAK").is_some() { 1_000_000 } else { 60_000 };
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path());
    let long: Vec<Command> = (0..4000).map(token).collect();
    for first in (1..=entries).step_by(usize::try_from(GROUP).unwrap()) {
        let commands =
            |index: u64| if index == first { long.clone() } else { vec![token(u128::from(index))] };
        log.blocking_append((first..first + GROUP).map(|i| entry(i, commands(i)))).await.unwrap();
        if first > KEPT {
            log.purge(log_id(1, first - KEPT)).await.unwrap();
        }
    }
    let blobs = std::fs::read_dir(folder.path().join("blobs")).map_or(0, Iterator::count);
    assert_eq!(blobs, 0, "a value went to a file that is never synced");
    let bytes = std::fs::metadata(folder.path().join("db")).unwrap().len();
    assert!(bytes < 256 << 20, "{entries} entries left {bytes} bytes behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_files_tail_was_cut_off_opens_to_a_beginning_of_it_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (mut log, _) = open(folder.path());
        for index in 1..=200 {
            log.blocking_append([entry(index, vec![token(u128::from(index))])]).await.unwrap();
        }
    }
    let whole = std::fs::read(folder.path().join("db")).unwrap();
    let mut opened = 0;
    for cut in [1, 17, 512, 4096, 30_000, 100_000, 300_000] {
        let torn = tempfile::tempdir().unwrap();
        for file in ["conf", "db"] {
            std::fs::copy(folder.path().join(file), torn.path().join(file)).unwrap();
        }
        let left = whole.len().saturating_sub(cut);
        std::fs::File::options()
            .write(true)
            .open(torn.path().join("db"))
            .unwrap()
            .set_len(left as u64)
            .unwrap();
        let Ok(store) = Store::open(torn.path()) else { continue };
        let Ok(mut log) = LogStore::open(store) else { continue };
        let Ok(entries) = log.try_get_log_entries(..).await else { continue };
        let indexes: Vec<u64> = entries.iter().map(|e| e.log_id.index).collect();
        let expected: Vec<u64> = (1..=indexes.len() as u64).collect();
        assert_eq!(indexes, expected, "cut by {cut} bytes, the log has a hole");
        opened += 1;
    }
    assert!(opened > 0, "no cut left anything that opens: the test shows nothing");
}

#[tokio::test]
async fn a_leader_that_restarts_does_not_go_on_in_its_term() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path());
    let own = openraft::Vote::new_committed(3, 1);
    let before = [openraft::Vote::new(3, 1), openraft::Vote::new_committed(3, 2), own];
    for vote in before {
        log.save_vote(&vote).await.unwrap();
        log.renounce(1).unwrap();
        let expected = if vote == own { openraft::Vote::new(4, 1) } else { vote };
        assert_eq!(log.read_vote().await.unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn what_a_later_leader_may_have_cut_off_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = open(folder.path());
    let (leader, later) = (openraft::Vote::new_committed(1, 1), openraft::Vote::new(2, 2));
    log.save_vote(&leader).await.unwrap();
    log.blocking_append([entry(1, vec![token(1)])]).await.unwrap();
    assert!(log.journal().kept(1, leader).await.unwrap());
    log.save_vote(&later).await.unwrap();
    assert!(!log.journal().kept(1, leader).await.unwrap());
}

#[tokio::test]
async fn a_vote_is_not_on_disk_before_the_entries_that_came_before_it() {
    let disk = novacron_store::Disk::default();
    let mut log = LogStore::open(Store::simulated(&disk).unwrap()).unwrap();
    let journal = log.journal();
    journal.append(vec![entry(1, vec![token(1)])]).unwrap();
    let vote = openraft::Vote::new(1, 1);
    let mut saving = Box::pin(log.save_vote(&vote));
    assert!(futures_util::poll!(&mut saving).is_pending());
    // The task that writes entries cannot have begun on this thread; one that wrote the vote would be another's.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(journal.disk().vote().unwrap(), None);
    saving.await.unwrap();
    assert_eq!(journal.disk().vote().unwrap(), Some(vote));
    assert_eq!(journal.durable_part(Some(log_id(1, 1))), Some(log_id(1, 1)));
}

#[tokio::test]
async fn entries_can_be_read_before_they_are_durable() {
    let disk = novacron_store::Disk::default();
    let store = Store::simulated(&disk).unwrap();
    let journal = LogStore::open(store).unwrap().journal();
    journal.append(vec![entry(1, vec![token(1)])]).unwrap();
    // Nothing else has run on this thread: the writing task has not begun.
    assert_eq!(journal.durable_part(Some(log_id(1, 1))), None, "no commit may be told yet");
    assert_eq!(journal.last(), Some(log_id(1, 1)));
    journal.synced(1).await.unwrap();
    assert_eq!(journal.durable_part(Some(log_id(1, 1))), Some(log_id(1, 1)));
}
