//! Lanes that outlive the connection which carries them: a cut is not a failure.
//!
//! ```text
//!  relay ─▶ LaneWriter ─▶ [Outgoing: replay buffer] ─▶ carrier ══ one QUIC stream a turn ══▶ carrier ─▶ [Incoming] ─▶ LaneReader ─▶ relay
//! ```
//!
//! Each direction of a lane is a sequence of bytes with offsets. The sender keeps what the receiver has not passed on
//! yet; when the link breaks, the source dials again, tells how much it has, hears how much the target has, and both go
//! on from there. Whoever reads and writes the lane notices only back-pressure.
//!
//! * [`outgoing`], [`incoming`] and [`duplex`] are pure: offsets, replay buffer, acknowledgements, and what a peer may
//!   claim;
//! * [`window`] says how much each lane may hold, so that no lane can starve another, and [`flow`] how much of that is of
//!   use;
//! * [`saved`] is a lane as an agent leaves it to its successor;
//! * [`lane`] is the state with its two halves, which are read and written like a socket;
//! * [`carrier`] moves frames between a lane and one stream, for one turn;
//! * [`keeper`] holds a link of the source, and has [`dialler`] call again when it is cut;
//! * [`links`] are all of a migration, and say which lane takes which.
//!
//! Only the source dials. What a lane carries passes through here untouched: whoever wants to re-code it does so between
//! the socket and the half.

pub mod carrier;
pub mod dialler;
pub mod duplex;
pub mod flow;
pub mod incoming;
pub mod keeper;
pub mod lane;
pub mod links;
pub mod load;
pub mod outgoing;
pub mod pace;
pub mod saved;
#[cfg(test)]
mod tests;
pub mod window;

/// What a peer says of offsets cannot be true. Nothing that it sends on this lane is to be believed any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lie {
    /// It acknowledges what it was not sent, or takes back what it acknowledged.
    #[error("the peer claims to have everything up to offset {claimed}, which is not in {from}..={to}")]
    Acknowledged {
        /// Its word.
        claimed: u64,
        /// What it acknowledged before.
        from: u64,
        /// What it was sent.
        to: u64,
    },
    /// Bytes are missing before those that it sends.
    #[error("the peer goes on at offset {offset} after {received}")]
    Gap {
        /// Where its bytes begin.
        offset: u64,
        /// What is here.
        received: u64,
    },
    /// It sends more than the lane's window allows.
    #[error("the peer sends more than the {window} bytes that this lane may hold")]
    Flood {
        /// The lane's window.
        window: usize,
    },
    /// It sends bytes behind the end that it announced, or announces another.
    #[error("the peer's sequence does not end at offset {offset}")]
    End {
        /// Where it would.
        offset: u64,
    },
    /// It says that the lane is over, though it has not said everything yet.
    #[error("the peer forgot the lane before it was over")]
    Forgotten,
}
