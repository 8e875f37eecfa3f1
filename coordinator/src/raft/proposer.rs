//! Group commit: commands that are proposed at about the same time become one log entry and share its disk sync. Those
//! that a follower gathered and forwards join what waits here, so that the leader makes one entry where each of the
//! coordinators would have made one.
//!
//! One task gathers, a few entries are under way at once. The queue is bounded; when it is full a proposal is
//! refused at once (`Busy`) and its caller answers 503, which is better than a queue that nobody can see.

use super::{
    LedgerError,
    commit::{Committed, DEADLINE, Missed},
    ledger::Inner,
};
use novacron_common::wire::codec;
use novacron_core::CommandBody;
use novacron_runtime::time::Instant;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Longest single command: below the transport's frame, with room for what replication adds.
const COMMAND_BYTES_MAX: usize = 1 << 20;
/// A group is closed when it reaches this length; a longer command is a group of its own.
const GROUP_BYTES_MAX: usize = 256 * 1024;
/// Most commands in one entry.
const GROUP_COMMANDS_MAX: usize = 1024;
/// Most proposals that wait.
const QUEUE_MAX: usize = 8192;
/// Entries under way at once: the next is gathered while one is synced and replicated. Of more, each would be smaller,
/// and what an entry costs beside its commands would eat what the overlap gains (`benches/raft` with 1, 2 and 4).
const UNDER_WAY_MAX: usize = 2;

/// What came of a proposal.
type Outcome = Result<Committed, Missed>;

/// Who proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A request that this coordinator serves.
    Here,
    /// A coordinator that takes this one for the leader. Never forwarded a second time: two nodes that each think the
    /// other leads would pass it back and forth.
    Follower,
}

/// One proposal: commands that go into one entry, in this order.
pub(super) struct Ask {
    bodies: Vec<CommandBody>,
    length: usize,
    origin: Origin,
    answer: oneshot::Sender<Outcome>,
}

/// The near end of the proposer.
#[derive(Clone)]
pub(super) struct Proposals {
    queue: mpsc::Sender<Ask>,
}

pub(super) fn queue() -> (Proposals, mpsc::Receiver<Ask>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Proposals { queue: sender }, receiver)
}

impl Proposals {
    /// Queues a command; what comes of it arrives at the receiver.
    pub fn submit(&self, body: CommandBody) -> Result<oneshot::Receiver<Outcome>, LedgerError> {
        let bodies = vec![body];
        match length_of(&bodies) {
            length if length > COMMAND_BYTES_MAX => {
                Err(LedgerError::TooLarge { length, max: COMMAND_BYTES_MAX })
            }
            length => self.queue(bodies, length, Origin::Here),
        }
    }

    /// Queues what a follower gathered. [`Missed::Retry`] arrives if this node does not lead.
    pub fn submit_forwarded(
        &self,
        bodies: Vec<CommandBody>,
    ) -> Result<oneshot::Receiver<Outcome>, LedgerError> {
        let length = length_of(&bodies);
        self.queue(bodies, length, Origin::Follower)
    }

    fn queue(
        &self,
        bodies: Vec<CommandBody>,
        length: usize,
        origin: Origin,
    ) -> Result<oneshot::Receiver<Outcome>, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Ask { bodies, length, origin, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Stopped,
        })?;
        Ok(answered)
    }
}

/// Bytes that commands take in an entry. What cannot be encoded is too long for a frame.
fn length_of(bodies: &[CommandBody]) -> usize {
    codec::encode(&bodies).map_or(codec::FRAME_MAX, |bytes| bytes.len())
}

/// Gathers and proposes until every [`Proposals`] is gone.
pub(super) async fn run(inner: Arc<Inner>, mut asks: mpsc::Receiver<Ask>) {
    let slots = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(ask) => ask,
            None => match asks.recv().await {
                Some(ask) => ask,
                None => return,
            },
        };
        // While this waits, the queue fills and the next group grows: the busier, the larger.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let group;
        (group, held) = gather(first, &mut asks);
        let inner = inner.clone();
        novacron_runtime::spawn(async move {
            deliver(&inner, group).await;
            drop(slot);
        });
    }
}

/// `first` and whatever waits and fits, and the first that does not.
fn gather(first: Ask, asks: &mut mpsc::Receiver<Ask>) -> (Vec<Ask>, Option<Ask>) {
    let (mut commands, mut bytes) = (first.bodies.len(), first.length);
    let mut group = vec![first];
    while let Ok(ask) = asks.try_recv() {
        commands += ask.bodies.len();
        bytes += ask.length;
        if commands > GROUP_COMMANDS_MAX || bytes > GROUP_BYTES_MAX {
            return (group, Some(ask));
        }
        group.push(ask);
    }
    (group, None)
}

/// Commits a group and answers each of those that proposed it.
async fn deliver(inner: &Inner, group: Vec<Ask>) {
    let forwarded = group.iter().any(|ask| ask.origin == Origin::Follower);
    let group = match forwarded {
        false => group,
        true => match inner.commit_here(bodies_of(&group), Instant::now() + DEADLINE).await {
            // This node does not lead. The others have to find out for themselves who does.
            Err(Missed::Retry) => {
                let (here, theirs) = group.into_iter().partition(|ask| ask.origin == Origin::Here);
                answer(theirs, &Err(Missed::Retry));
                here
            }
            outcome => return answer(group, &outcome),
        },
    };
    if !group.is_empty() {
        let outcome = inner.commit(|| bodies_of(&group)).await.map_err(Missed::Final);
        answer(group, &outcome);
    }
}

fn bodies_of(group: &[Ask]) -> Vec<CommandBody> {
    group.iter().flat_map(|ask| ask.bodies.iter().cloned()).collect()
}

/// Gives each proposal its part of what came of the group.
fn answer(group: Vec<Ask>, outcome: &Outcome) {
    let mut from = 0;
    for ask in group {
        let range = from..from + ask.bodies.len();
        from = range.end;
        let own = outcome.as_ref().map_err(Clone::clone).and_then(|(index, outcomes)| {
            let outcomes = outcomes.get(range).ok_or(Missed::Final(LedgerError::Unknown))?;
            Ok((*index, outcomes.to_vec()))
        });
        // A caller that is gone does not want to know.
        let _ = ask.answer.send(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_core::Applied;

    fn remove(node: u64) -> CommandBody {
        CommandBody::CoordinatorRemove { node }
    }

    fn many(count: usize) -> CommandBody {
        CommandBody::Batch(vec![remove(u64::MAX); count])
    }

    #[tokio::test]
    async fn what_waits_becomes_one_group_up_to_its_limits() {
        let (proposals, mut asks) = queue();
        let mut answers = Vec::new();
        for node in 0..GROUP_COMMANDS_MAX as u64 + 5 {
            answers.push(proposals.submit(remove(node)).unwrap());
        }
        let first = asks.recv().await.unwrap();
        let (group, held) = gather(first, &mut asks);
        assert_eq!((group.len(), held.is_some()), (GROUP_COMMANDS_MAX, true));
        let (group, _) = gather(held.unwrap(), &mut asks);
        assert_eq!(group.len(), 5);
    }

    #[tokio::test]
    async fn a_command_that_does_not_fit_opens_the_next_group() {
        let (proposals, mut asks) = queue();
        let long = many(20_000);
        assert!(length_of(std::slice::from_ref(&long)) > GROUP_BYTES_MAX / 2);
        let _answers: Vec<_> = (0..2).map(|_| proposals.submit(long.clone()).unwrap()).collect();
        let first = asks.recv().await.unwrap();
        let (group, held) = gather(first, &mut asks);
        assert_eq!((group.len(), held.is_some()), (1, true));
    }

    #[tokio::test]
    async fn what_a_follower_forwards_joins_what_waits_here_and_each_gets_its_own_answers() {
        let (proposals, mut asks) = queue();
        let own = proposals.submit(remove(1)).unwrap();
        let theirs = proposals.submit_forwarded(vec![remove(2), remove(3)]).unwrap();
        let last = proposals.submit(remove(4)).unwrap();
        let first = asks.recv().await.unwrap();
        let (group, _) = gather(first, &mut asks);
        assert_eq!(bodies_of(&group), [remove(1), remove(2), remove(3), remove(4)]);
        let outcomes = vec![Applied::Done, Applied::AlreadySo, Applied::Done, Applied::AlreadySo];
        answer(group, &Ok((7, outcomes.clone())));
        assert_eq!(own.await.unwrap().unwrap(), (7, outcomes[..1].to_vec()));
        assert_eq!(theirs.await.unwrap().unwrap(), (7, outcomes[1..3].to_vec()));
        assert_eq!(last.await.unwrap().unwrap(), (7, outcomes[3..].to_vec()));
    }

    #[tokio::test]
    async fn too_long_and_too_many_are_refused_at_once() {
        let (proposals, asks) = queue();
        assert!(matches!(proposals.submit(many(200_000)), Err(LedgerError::TooLarge { .. })));
        let _answers: Vec<_> = (0..QUEUE_MAX).map(|_| proposals.submit(remove(1)).unwrap()).collect();
        assert_eq!(proposals.submit(remove(1)).err(), Some(LedgerError::Busy));
        drop(asks);
        assert_eq!(proposals.submit(remove(1)).err(), Some(LedgerError::Stopped));
    }
}
