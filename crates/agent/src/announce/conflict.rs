//! What becomes of an address that somebody else answers for too.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::links::Claim;
use super::{Announcer, now};

/// A conflict of one address is told again after this time.
const CONFLICT: Duration = Duration::from_secs(60);
/// It is answered no more often than this.
const DEFEND: Duration = Duration::from_secs(1);

/// A stranger has an address that is announced here.
pub(super) struct Conflict {
    told: Instant,
    defended: Instant,
}

impl Announcer {
    /// Somebody else says that it has an address that is announced here or asked for.
    pub(super) fn claim(&mut self, claim: Claim) {
        let Some(slot) = self.plan.slots().get(&claim.ip).cloned() else {
            return;
        };
        if !self.announced.contains(&slot) {
            self.election.answered(&slot, now());
            return;
        }
        if self.is_deaf() {
            warn!(
                "{} is announced by {} now, and the API server cannot be reached: giving way",
                claim.ip, claim.mac
            );
            self.election.give_way(&slot);
            return;
        }
        // Either the Lease has gone to another one, which the API knows, or a stranger has the
        // address.
        let defended = self.conflicts.get(&claim.ip).map(|one| one.defended);
        if defended.is_none_or(|at| at.elapsed() > DEFEND) {
            self.suspects.insert(claim.ip, claim);
            self.read_anew();
        }
    }

    /// The Leases say that this node has it: a stranger has it too. Says so once a minute, and
    /// tells everybody where the address is.
    pub(super) fn defend(&mut self, claim: Claim) {
        self.links.repeat(claim.ip);
        self.conflicts
            .retain(|_, one| one.told.elapsed() < CONFLICT);
        let now = Instant::now();
        if let Some(one) = self.conflicts.get_mut(&claim.ip) {
            one.defended = now;
            return;
        }
        let one = Conflict {
            told: now,
            defended: now,
        };
        self.conflicts.insert(claim.ip, one);
        let message = format!(
            "{} answers for {} too: another device on the nodes' network has this address; take it out of the LoadBalancerPool or off the device",
            claim.mac, claim.ip
        );
        warn!("{message}");
        if let Some(on) = self.service_of(claim.ip) {
            self.recorder.warning(on, "AddressConflict", message);
        }
    }
}
