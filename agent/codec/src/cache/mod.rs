//! Pages that both ends hold: the encoder decides what is kept where, the decoder follows.

mod delta;
mod held;
mod seen;
mod slots;

pub use delta::{BadEdits, apply};
pub use held::{Found, Held};
pub use slots::{SLOT_COST, Slots, Stale};
