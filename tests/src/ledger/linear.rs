//! Whether a history of one register is linearizable: each operation takes effect at one instant between question and
//! answer. The algorithm of Wing and Gong (1993) with Lowe's memory of configurations that led nowhere (2017).
//!
//! Our own: stateright's `LinearizabilityTester` walks every interleaving without that memory, which does not end for
//! 500 operations of which some are of unknown outcome, and it brings an explorer with a web server along.

use std::collections::HashSet;

use super::history::{Action, History, Op, written};

/// The history cannot be explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not linearizable: of {of} operations at most {explained} can be put in order; the register is {value} then, and none of these can be next: {stuck:?}"
)]
pub struct NotLinearizable {
    /// Operations checked.
    pub of: usize,
    /// The most that were put in order.
    pub explained: usize,
    /// The value after those.
    pub value: u64,
    /// What would have to come next.
    pub stuck: Vec<Op>,
}

/// Checks it.
///
/// # Errors
/// [`NotLinearizable`] with the longest explanation that was found.
pub fn check(history: &History) -> Result<(), NotLinearizable> {
    Search::new(history).run()
}

/// An operation with a definite end.
#[derive(Debug, Clone, Copy)]
struct Span {
    op: Op,
    end: u64,
}

/// A write of unknown outcome that nobody read may not have happened: it explains nothing and is left out. One that was
/// read took effect before the first such read was answered. So every operation has an end.
fn spans(history: &History) -> Vec<Span> {
    let read_by = |value: u64| {
        let reads = history.ops.iter().filter(|op| op.action == Action::Read(value));
        reads.filter_map(|op| op.answered).min()
    };
    let span = |op: &Op| {
        let end = op.answered.or_else(|| read_by(written(op)?))?;
        // A read that was answered before its write was asked for leaves an empty span: no explanation has it.
        Some(Span { op: *op, end })
    };
    let mut spans: Vec<Span> = history.ops.iter().filter_map(span).collect();
    spans.sort_by_key(|span| span.op.asked);
    spans
}

/// Which operations are done, a bit each.
type Done = Vec<u64>;

struct Search {
    spans: Vec<Span>,
    done: Done,
    count: usize,
    /// Before this index everything is done.
    first: usize,
    value: u64,
    /// What was chosen, with the value before it, to go back.
    chosen: Vec<(usize, u64)>,
    been: HashSet<(Done, u64)>,
    best: (usize, u64, Vec<Op>),
}

impl Search {
    fn new(history: &History) -> Self {
        let spans = spans(history);
        let done = vec![0; spans.len().div_ceil(64)];
        let best = (0, history.initial, Vec::new());
        let value = history.initial;
        Self { spans, done, count: 0, first: 0, value, chosen: Vec::new(), been: HashSet::new(), best }
    }

    fn run(mut self) -> Result<(), NotLinearizable> {
        let mut from = 0;
        while self.count < self.spans.len() {
            match self.next(from) {
                Some(at) => {
                    self.choose(at);
                    from = self.first;
                }
                None => match self.undo() {
                    Some(at) => from = at + 1,
                    None => return Err(self.failure()),
                },
            }
        }
        Ok(())
    }

    fn is_done(&self, at: usize) -> bool {
        self.done[at / 64] >> (at % 64) & 1 == 1
    }

    /// The first operation at or after `from` that can be next: none that is open had its answer before it was asked,
    /// the register allows it, and what follows has not been tried.
    fn next(&mut self, from: usize) -> Option<usize> {
        let horizon = self.open().map(|at| self.spans[at].end).min()?;
        let candidates = |search: &Self| -> Vec<usize> {
            search.open().take_while(|at| search.spans[*at].op.asked <= horizon).collect()
        };
        let candidates = candidates(self);
        if self.count >= self.best.0 {
            let stuck = candidates.iter().map(|at| self.spans[*at].op).collect();
            self.best = (self.count, self.value, stuck);
        }
        candidates.into_iter().filter(|at| *at >= from).find(|at| self.allows(*at))
    }

    fn open(&self) -> impl Iterator<Item = usize> + '_ {
        (self.first..self.spans.len()).filter(|at| !self.is_done(*at))
    }

    fn allows(&mut self, at: usize) -> bool {
        let value = match self.spans[at].op.action {
            Action::Read(value) if value != self.value => return false,
            Action::Read(value) | Action::Write(value) => value,
        };
        let mut done = self.done.clone();
        done[at / 64] |= 1 << (at % 64);
        self.been.insert((done, value))
    }

    fn choose(&mut self, at: usize) {
        self.chosen.push((at, self.value));
        self.done[at / 64] |= 1 << (at % 64);
        self.count += 1;
        if let Action::Write(value) = self.spans[at].op.action {
            self.value = value;
        }
        while self.first < self.spans.len() && self.is_done(self.first) {
            self.first += 1;
        }
    }

    fn undo(&mut self) -> Option<usize> {
        let (at, value) = self.chosen.pop()?;
        self.done[at / 64] &= !(1 << (at % 64));
        self.count -= 1;
        self.value = value;
        self.first = self.first.min(at);
        Some(at)
    }

    fn failure(self) -> NotLinearizable {
        let (explained, value, stuck) = self.best;
        NotLinearizable { of: self.spans.len(), explained, value, stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::splitmix::SplitMix64;

    fn op(action: Action, asked: u64, answered: u64) -> Op {
        Op { action, asked, answered: Some(answered) }
    }

    fn history(ops: &[Op]) -> History {
        History { initial: 0, ops: ops.to_vec() }
    }

    #[test]
    fn one_after_the_other_reads_what_was_written() {
        let good = [op(Action::Write(1), 0, 1), op(Action::Read(1), 2, 3), op(Action::Write(2), 4, 5)];
        assert_eq!(check(&history(&good)), Ok(()));
        let stale = [good[0], good[2], op(Action::Read(1), 6, 7)];
        assert!(check(&history(&stale)).is_err());
        let never_written = [op(Action::Read(9), 0, 1)];
        assert_eq!(check(&history(&never_written)).unwrap_err().explained, 0);
    }

    #[test]
    fn at_the_same_time_either_order_will_do_but_not_both() {
        let writes = [op(Action::Write(1), 0, 10), op(Action::Write(2), 0, 10)];
        for (first, second) in [(1, 2), (2, 1)] {
            let reads = [op(Action::Read(first), 1, 2), op(Action::Read(second), 11, 12)];
            assert_eq!(check(&history(&[writes, reads].concat())), Ok(()));
        }
        let there_and_back =
            [op(Action::Read(1), 1, 2), op(Action::Read(2), 3, 4), op(Action::Read(1), 5, 6)];
        assert!(check(&history(&[&writes[..], &there_and_back].concat())).is_err());
    }

    #[test]
    fn a_write_of_unknown_outcome_may_come_late_or_never_but_not_twice() {
        let unknown = Op { action: Action::Write(1), asked: 0, answered: None };
        let other = op(Action::Write(2), 5, 6);
        let late = [unknown, other, op(Action::Read(2), 7, 8), op(Action::Read(1), 9, 10)];
        assert_eq!(check(&history(&late)), Ok(()));
        let never = [unknown, other, op(Action::Read(2), 7, 8)];
        assert_eq!(check(&history(&never)), Ok(()));
        let twice = [unknown, op(Action::Read(1), 1, 2), other, op(Action::Read(1), 7, 8)];
        assert!(check(&history(&twice)).is_err());
    }

    /// A register with a delay between question, effect and answer; some answers are lost.
    fn recorded(chance: &mut SplitMix64, clients: usize, ops: usize) -> History {
        let mut busy_until = vec![0_u64; clients];
        let mut effects = Vec::new();
        for value in 1..=ops as u64 {
            let client = chance.index(clients);
            let asked = busy_until[client] + 1 + chance.bits() % 50;
            let effect = asked + 1 + chance.bits() % 100;
            busy_until[client] = effect + 1 + chance.bits() % 100;
            let lost = chance.index(10) == 0;
            effects.push((effect, asked, busy_until[client], chance.index(2) == 0, lost, value));
        }
        effects.sort_unstable();
        let (mut now, mut ops) = (0, Vec::new());
        for (_, asked, answered, writes, lost, value) in effects {
            match (writes, lost) {
                (true, _) => {
                    now = value;
                    ops.push(Op {
                        action: Action::Write(value),
                        asked,
                        answered: (!lost).then_some(answered),
                    });
                }
                (false, false) => ops.push(op(Action::Read(now), asked, answered)),
                (false, true) => {}
            }
        }
        History { initial: 0, ops }
    }

    #[test]
    fn long_histories_of_a_true_register_pass_and_a_planted_stale_read_does_not() {
        for seed in 0..10 {
            let history = recorded(&mut SplitMix64::new(seed), 8, 500);
            assert_eq!(check(&history), Ok(()), "seed {seed}");
            let planted = history.with_a_stale_read().expect("something was overwritten");
            assert!(check(&planted).is_err(), "seed {seed}: the stale read was not seen");
        }
    }
}
