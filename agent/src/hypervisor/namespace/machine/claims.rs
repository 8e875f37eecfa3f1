//! What machines that are being started have taken already, so that several can be started at once; and whose turn it is to
//! start or stop one machine.

use crate::hypervisor::namespace::net::Card;
use novacron_common::ids::VmId;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::OwnedMutexGuard;

/// What one machine takes of what all share.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its range of user ids.
    pub slot: u32,
    /// Its network card.
    pub card: Option<Card>,
}

/// Of the machines that are being started.
#[derive(Debug, Default)]
pub struct Claims(Mutex<BTreeMap<VmId, Claim>>);

impl Claims {
    /// A look at them, during which none is added.
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<VmId, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of a machine's when the result is dropped.
    pub fn held(&self, vm: VmId) -> Held<'_> {
        Held { claims: self, vm }
    }
}

/// As long as it is there, so is the claim.
pub struct Held<'c> {
    claims: &'c Claims,
    vm: VmId,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.claims.lock().remove(&self.vm);
    }
}

/// A machine is started or stopped by one at a time: two starts must not both find it stopped.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<VmId, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for this machine's.
    pub async fn of(&self, vm: VmId) -> OwnedMutexGuard<()> {
        let turn = self.mutex_of(vm);
        turn.lock_owned().await
    }

    fn mutex_of(&self, vm: VmId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = all.get(&vm).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        all.insert(vm, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn one_machine_waits_for_itself_and_for_no_other() {
        let (turns, one, other) = (Turns::default(), VmId::from_u128(1), VmId::from_u128(2));
        let held = turns.of(one).await;
        assert!(turns.of(one).now_or_never().is_none());
        assert!(turns.of(other).now_or_never().is_some());
        drop(held);
        assert!(turns.of(one).now_or_never().is_some());
        // Nothing is kept of machines whose turn is nobody's.
        drop(turns.mutex_of(other));
        assert_eq!(turns.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_claim_ends_with_whoever_holds_it() {
        let (claims, vm) = (Claims::default(), VmId::from_u128(1));
        claims.lock().insert(vm, Claim { slot: 7, card: None });
        let held = claims.held(vm);
        assert_eq!(claims.lock().len(), 1);
        drop(held);
        assert!(claims.lock().is_empty());
    }
}
