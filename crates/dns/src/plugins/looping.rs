//! `loop`: does what is forwarded come back?
//!
//! At the start a name that nobody else can know is asked for. Where the upstreams lead to this
//! server again, the question arrives here: that is seen and said, and the question is not passed
//! on. `CoreDNS` waits for it to come round twice; here the second would wait in the cache for the
//! answer to the first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::query::{Failure, Query, Transport};
use crate::wire::{Class, Name, Question, Type};

/// Upstreams may take this long to come up.
pub const MOST: Duration = Duration::from_secs(30);
/// Until the next attempt.
pub const PAUSE: Duration = Duration::from_secs(1);
/// What went out may still come back within this time.
pub const LATE: Duration = Duration::from_secs(2);

/// What is said where a loop was found. Whoever runs the server waits for it: `CoreDNS` ends
/// then, since every question would go round and round.
#[derive(Clone, Debug)]
pub struct Finding(Arc<watch::Sender<Option<String>>>);

impl Default for Finding {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Finding {
    /// Waits until there is one, and says what it is: where and why, and what to do.
    pub async fn found(&self) -> String {
        let mut found = self.0.subscribe();
        // The sender is here: it cannot go away meanwhile.
        let text = found.wait_for(Option::is_some).await;
        text.ok().and_then(|text| text.clone()).unwrap_or_default()
    }

    /// Forgets what was found: something else is served now.
    pub fn clear(&self) {
        self.0.send_replace(None);
    }
}

/// The detector of a server block.
#[derive(Debug)]
pub struct Loop {
    zone: Name,
    name: Name,
    off: AtomicBool,
    finding: Finding,
}

impl Loop {
    /// For a block of this zone.
    pub fn new(zone: Name, finding: Finding) -> Self {
        // Two numbers of 62 bits, as CoreDNS's: nobody guesses them.
        let number = || (rand::random::<u64>() >> 2).to_string();
        let (first, second) = (number(), number());
        let labels = [first.as_bytes(), second.as_bytes()].into_iter();
        let name = Name::from_labels(labels.chain(zone.labels())).unwrap_or_else(|_| zone.clone());
        Self {
            zone,
            name,
            off: AtomicBool::new(false),
            finding,
        }
    }

    /// The question that is sent out.
    pub fn question(&self, now: std::time::Instant) -> Query {
        // Of nobody but the server itself: peers are not asked for that.
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        Query {
            id: 0,
            question: Question {
                name: self.name.clone(),
                kind: Type::HINFO,
                class: Class::IN,
            },
            recursion_desired: true,
            authentic: false,
            checking_disabled: false,
            edns: None,
            serial: None,
            client: nobody,
            server: nobody,
            transport: Transport::Udp,
            now,
        }
    }

    /// No more is looked for: questions cost nothing here from now on.
    pub fn stop(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// Looks at a question on its way down.
    ///
    /// # Errors
    /// It has come round, and is not passed on.
    pub fn look(&self, query: &Query) -> Result<(), Failure> {
        let question = &query.question;
        if question.kind != Type::HINFO
            || self.off.load(Ordering::Relaxed)
            || question.name != self.name
        {
            return Ok(());
        }
        let text = format!(
            "Loop ({} -> {}) detected for zone \"{}\", see \
             https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO {}\". What this \
             server forwards comes back to it: an upstream, or a nameserver of the resolv.conf it \
             forwards to, leads here (127.0.0.53 and the cluster's own DNS address often do). \
             Forward to the real upstreams instead: name them, or a file that has them, such as \
             /run/systemd/resolve/resolv.conf",
            query.client, query.server, self.zone, self.name
        );
        self.finding.0.send_if_modified(|found| {
            let first = found.is_none();
            found.get_or_insert_with(|| text.clone());
            first
        });
        Err(Failure::servfail(text, "loop"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_in_a_loop() {
        let finding = Finding::default();
        let detector = Loop::new("example.org".parse().unwrap(), finding.clone());
        let now = std::time::Instant::now();
        let question = detector.question(now);
        assert_eq!(question.question.name.depth(), 4);
        assert!(
            question
                .question
                .name
                .is_within(&"example.org".parse().unwrap())
        );
        let other = Loop::new("example.org".parse().unwrap(), finding.clone()).question(now);
        for _ in 0..5 {
            assert!(detector.look(&other).is_ok(), "another name");
        }
        let failure = detector.look(&question).unwrap_err();
        let begin = "Loop (0.0.0.0:0 -> 0.0.0.0:0) detected for zone \"example.org.\", see \
                     https://coredns.io/plugins/loop#troubleshooting. Query: \"HINFO ";
        assert!(failure.text.starts_with(begin), "{}", failure.text);
        let found = finding.0.borrow().clone();
        assert_eq!(found, Some(failure.text));
        finding.clear();
        assert_eq!(*finding.0.borrow(), None);
        detector.stop();
        assert!(detector.look(&question).is_ok());
    }
}
