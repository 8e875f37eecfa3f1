//! Single-use tickets for WebSockets, because a browser cannot send a header with one and a token in a URL ends
//! up in logs. They are held in memory by the coordinator that issued them: use one where it was made.

use crate::identity::NoRandomness;
use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use novacron_common::api::TokenRole;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a ticket is good for.
pub const VALIDITY: Duration = Duration::from_secs(30);

/// Most tickets outstanding; the oldest gives way, so that asking for many cannot fill memory.
const OUTSTANDING_MAX: usize = 4096;

/// The tickets that this coordinator has issued and nobody has used.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<String, Grant>>);

#[derive(Debug, Clone, Copy)]
struct Grant {
    role: TokenRole,
    issued: Instant,
}

impl Tickets {
    /// A new one, with the rights of whoever asks.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn issue(&self, role: TokenRole, now: Instant) -> Result<String, NoRandomness> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        let ticket = URL_SAFE_NO_PAD.encode(bytes);
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, grant| now.duration_since(grant.issued) < VALIDITY);
        if tickets.len() >= OUTSTANDING_MAX {
            let oldest = tickets.iter().min_by_key(|(_, grant)| grant.issued).map(|(t, _)| t.clone());
            oldest.and_then(|t| tickets.remove(&t));
        }
        tickets.insert(ticket.clone(), Grant { role, issued: now });
        Ok(ticket)
    }

    /// Spends a ticket. The look-up is not constant-time; a ticket has 256 random bits and lives for seconds.
    pub fn spend(&self, ticket: &str, now: Instant) -> Option<TokenRole> {
        let grant = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(ticket)?;
        (now.duration_since(grant.issued) < VALIDITY).then_some(grant.role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_works_once() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.issue(TokenRole::Reader, now).unwrap();
        assert_eq!(tickets.spend(&ticket, now), Some(TokenRole::Reader));
        assert_eq!(tickets.spend(&ticket, now), None);
        assert_eq!(tickets.spend("made up", now), None);
    }

    #[test]
    fn a_ticket_expires() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.issue(TokenRole::Admin, now).unwrap();
        assert_eq!(tickets.spend(&ticket, now + VALIDITY), None);
    }

    #[test]
    fn outstanding_tickets_are_bounded() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let first = tickets.issue(TokenRole::Admin, now).unwrap();
        for _ in 0..OUTSTANDING_MAX {
            tickets.issue(TokenRole::Admin, now + Duration::from_millis(1)).unwrap();
        }
        assert_eq!(tickets.0.lock().unwrap().len(), OUTSTANDING_MAX);
        assert_eq!(tickets.spend(&first, now + Duration::from_millis(1)), None);
    }
}
