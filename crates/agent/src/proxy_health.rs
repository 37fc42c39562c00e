//! Whether rules on this node are as they should be, by kube-proxy's rule.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug)]
struct State {
    /// When changes last reached the kernel.
    updated: Option<SystemTime>,
    /// Since when a change waits.
    waiting: Option<Instant>,
    /// Balancers may send this node new connections: it is neither going nor marked to go.
    eligible: bool,
}

/// What the loop notes and health is told from. Healthy from the start: the rules of the agent
/// before are in place.
#[derive(Debug)]
pub(crate) struct ProxyHealth {
    timeout: Duration,
    state: Mutex<State>,
}

/// A moment's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// No change waits for too long.
    pub healthy: bool,
    pub eligible: bool,
    /// As kube-proxy tells it: now where healthy, else when the last change reached the kernel.
    pub updated: Option<SystemTime>,
}

impl Told {
    /// Both of two functions.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            healthy: self.healthy && other.healthy,
            eligible: self.eligible && other.eligible,
            updated: if self.healthy {
                other.updated
            } else {
                self.updated
            },
        }
    }
}

impl ProxyHealth {
    /// A change may wait for `timeout`.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            state: Mutex::new(State {
                updated: None,
                waiting: None,
                eligible: true,
            }),
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A change has come.
    pub(crate) fn queued(&self, now: Instant) {
        self.with(|state| {
            state.waiting.get_or_insert(now);
        });
    }

    /// All that came is in the kernel.
    pub(crate) fn updated(&self, now: SystemTime) {
        self.with(|state| {
            state.updated = Some(now);
            state.waiting = None;
        });
    }

    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.with(|state| state.eligible = eligible);
    }

    pub(crate) fn told(&self, now: Instant, wall: SystemTime) -> Told {
        self.with(|state| {
            // Before the first success there is nothing to be behind of.
            let late = state.updated.is_some()
                && state
                    .waiting
                    .is_some_and(|since| now.saturating_duration_since(since) >= self.timeout);
            Told {
                healthy: !late,
                eligible: state.eligible,
                updated: if late { state.updated } else { Some(wall) },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_makes_it_unhealthy() {
        let health = ProxyHealth::new(Duration::from_secs(60));
        let (start, wall) = (Instant::now(), SystemTime::now());
        let at = |seconds| {
            let wait = Duration::from_secs(seconds);
            health.told(start + wait, wall + wait)
        };
        health.queued(start);
        assert!(at(100).healthy, "nothing was ever in the kernel");
        health.updated(wall);
        assert!(at(1000).healthy);
        health.queued(start + Duration::from_secs(10));
        health.queued(start + Duration::from_secs(60));
        assert!(at(69).healthy);
        assert_eq!(
            at(70),
            Told {
                healthy: false,
                eligible: true,
                updated: Some(wall)
            }
        );
        health.updated(wall);
        assert!(at(70).healthy);
        health.set_eligible(false);
        assert!(at(70).healthy && !at(70).eligible);

        // Two functions are as well as the one that is worse off.
        let late = Told {
            healthy: false,
            eligible: true,
            updated: Some(wall),
        };
        let both = at(80).and(late);
        assert_eq!(
            (both.healthy, both.eligible, both.updated),
            (false, false, Some(wall))
        );
        assert_eq!(late.and(at(80)), both);
    }
}
