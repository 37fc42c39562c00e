//! Whether upstreams that failed are well again.
//!
//! Nobody is checked who answers. After a failure the upstream is asked for a name's NS records
//! again and again until anything comes back; a question that it answers meanwhile ends this as
//! well, so that who answers everything but that question is never taken for broken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::server::{Asked, Server};
use crate::wire::{Class, Header, Message, Name, Question, Type};

/// How long a check waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// How upstreams are checked.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub interval: Duration,
    pub recursion_desired: bool,
    pub domain: Name,
    /// Over TCP.
    pub stream: bool,
}

/// Says that nobody checks any more, however the check ended.
struct Checking<'a>(&'a Server);

impl Drop for Checking<'_> {
    fn drop(&mut self) {
        self.0.checking.store(false, Ordering::Release);
    }
}

impl Server {
    /// Checks until it is well, if nobody does yet.
    pub(super) fn check(self: &Arc<Self>) {
        if self.common.max_fails == 0 || self.checking.swap(true, Ordering::AcqRel) {
            return;
        }
        let server = Arc::clone(self);
        tokio::spawn(async move {
            let server = server;
            let _checking = Checking(&server);
            let answered = server.answered.load(Ordering::Relaxed);
            loop {
                if server.is_well().await || server.answered.load(Ordering::Relaxed) != answered {
                    server.fails.store(0, Ordering::Relaxed);
                    return;
                }
                server.count_failed_check();
                tokio::time::sleep(server.common.health.interval).await;
                // Nobody else knows this upstream any more: nobody asks it.
                if Arc::strong_count(&server) == 1 {
                    return;
                }
            }
        });
    }

    /// Whether anything comes back.
    async fn is_well(self: &Arc<Self>) -> bool {
        let check = &self.common.health;
        let id = rand::random();
        let question = Question {
            name: check.domain.clone(),
            kind: Type::NS,
            class: Class::IN,
        };
        let message = Message {
            header: Header {
                id,
                recursion_desired: check.recursion_desired,
                ..Header::default()
            },
            question: Some(question.clone()),
            ..Message::default()
        };
        let deadline = Instant::now() + PATIENCE;
        let asked = Asked {
            question: &question,
            id,
            framed: &super::framed(&message),
            stream: check.stream,
            deadline,
            dial_by: deadline,
        };
        self.asked(asked).await.is_ok()
    }
}
