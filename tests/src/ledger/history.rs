//! What clients did to one register and what they were told: the input of the linearizability check.

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It wrote a value that nobody else writes.
    Write(u64),
    /// It read this value.
    Read(u64),
}

/// One operation. A read that was not answered is left out: it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// What it did.
    pub action: Action,
    /// When it was asked for; nanoseconds since the history began.
    pub asked: u64,
    /// When the client had the answer; `None` where the outcome of a write is not known: it may have happened at any time
    /// since, or never.
    pub answered: Option<u64>,
}

/// All operations on one register.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Its value at the beginning.
    pub initial: u64,
    /// In any order.
    pub ops: Vec<Op>,
}

/// Longest history that is recorded and checked: the problem is NP-complete (Gibbons and Korach, 1997).
pub const OPS_MAX: usize = 500;

impl History {
    /// The same history with one read that returns what was overwritten before it was asked; `None` if it has no read
    /// for which that is certain.
    #[must_use]
    pub fn with_a_stale_read(&self) -> Option<Self> {
        let writes: Vec<(u64, &Op)> = self.ops.iter().filter_map(|op| Some((written(op)?, op))).collect();
        let overwritten = |read: &Op| {
            writes.iter().rev().find_map(|(value, old)| {
                let old_end = old.answered?;
                let is_over =
                    |new: &Op| new.asked > old_end && new.answered.is_some_and(|end| end < read.asked);
                writes.iter().any(|(_, new)| is_over(new)).then_some(*value)
            })
        };
        let reads = self.ops.iter().enumerate().rev();
        let mut reads = reads.filter(|(_, op)| matches!(op.action, Action::Read(_)));
        let (at, stale) = reads.find_map(|(at, op)| Some((at, overwritten(op)?)))?;
        let mut planted = self.clone();
        planted.ops[at].action = Action::Read(stale);
        Some(planted)
    }
}

/// The value that an operation wrote.
#[must_use]
pub fn written(op: &Op) -> Option<u64> {
    match op.action {
        Action::Write(value) => Some(value),
        Action::Read(_) => None,
    }
}
