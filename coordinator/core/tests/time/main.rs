//! Time: the next tick of a schedule, against an oracle, the manuals, and what went wrong elsewhere.

mod checker;
mod dice;
mod line;
mod manuals;
mod oracle;
mod planted;
mod policies;
mod property;
mod regressions;
mod speed;
mod ticks;
mod zones;
