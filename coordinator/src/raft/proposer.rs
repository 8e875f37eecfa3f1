//! Group commit: commands that are proposed at about the same time become one log entry and share its disk sync.
//!
//! One task gathers, a few entries are under way at once. The queue is bounded; when it is full a proposal is
//! refused at once (`Busy`) and its caller answers 503, which is better than a queue that nobody can see.

use super::{LedgerError, ledger::Inner};
use novacron_common::wire::codec;
use novacron_core::{Applied, CommandBody};
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

/// What came of a command, and where it is in the log.
type Outcome = Result<(u64, Applied), LedgerError>;
type Answer = oneshot::Sender<Outcome>;

/// One proposal.
pub(super) struct Ask {
    body: CommandBody,
    length: usize,
    answer: Answer,
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
        let length = length_of(&body)?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Ask { body, length, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Stopped,
        })?;
        Ok(answered)
    }
}

fn length_of(body: &CommandBody) -> Result<usize, LedgerError> {
    let max = COMMAND_BYTES_MAX;
    match codec::encode(body) {
        Ok(bytes) if bytes.len() <= max => Ok(bytes.len()),
        Ok(bytes) => Err(LedgerError::TooLarge { length: bytes.len(), max }),
        Err(_) => Err(LedgerError::TooLarge { length: codec::FRAME_MAX, max }),
    }
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
    let mut bytes = first.length;
    let mut group = vec![first];
    while group.len() < GROUP_COMMANDS_MAX {
        match asks.try_recv() {
            Ok(ask) if bytes + ask.length > GROUP_BYTES_MAX => return (group, Some(ask)),
            Ok(ask) => {
                bytes += ask.length;
                group.push(ask);
            }
            Err(_) => break,
        }
    }
    (group, None)
}

async fn deliver(inner: &Inner, group: Vec<Ask>) {
    let (bodies, answers): (Vec<CommandBody>, Vec<Answer>) =
        group.into_iter().map(|a| (a.body, a.answer)).unzip();
    match inner.commit(bodies).await {
        Ok((index, outcomes)) if outcomes.len() == answers.len() => {
            for (answer, applied) in answers.into_iter().zip(outcomes) {
                // A caller that is gone does not want to know.
                let _ = answer.send(Ok((index, applied)));
            }
        }
        outcome => {
            let error = outcome.err().unwrap_or(LedgerError::Unknown);
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!((group.len(), held.is_none()), (GROUP_COMMANDS_MAX, true));
        let first = asks.recv().await.unwrap();
        let (group, _) = gather(first, &mut asks);
        assert_eq!(group.len(), 5);
    }

    #[tokio::test]
    async fn a_command_that_does_not_fit_opens_the_next_group() {
        let (proposals, mut asks) = queue();
        let long = many(20_000);
        assert!(length_of(&long).unwrap() > GROUP_BYTES_MAX / 2);
        let _answers: Vec<_> = (0..2).map(|_| proposals.submit(long.clone()).unwrap()).collect();
        let first = asks.recv().await.unwrap();
        let (group, held) = gather(first, &mut asks);
        assert_eq!((group.len(), held.is_some()), (1, true));
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
