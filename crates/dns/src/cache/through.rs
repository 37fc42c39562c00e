//! The way of a question through the cache to what is below it, and back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::shard::Landed;
use super::{Cache, Kept, Look, Ticket, Verify};
use crate::corefile::plugins::Refresh;
use crate::query::{Answer, Failure, Outcome, Query, Transport};
use crate::wire::Rcode;

/// A question to be asked again in the background, to have its answer ready for those who come
/// later.
#[derive(Debug)]
pub struct Renewal {
    ticket: Ticket,
    query: Query,
    /// What there is must not be replaced by a failure.
    verify: bool,
}

/// What came of waiting.
enum Waited {
    Answer(Answer),
    AskYourself,
    Gone,
}

impl Cache {
    /// The answer from the cache or, where it has none, from `next`, which is then kept. Whoever
    /// is asked for a [`Renewal`] in `later` runs it in a task of its own.
    ///
    /// # Errors
    /// Those of `next`.
    pub async fn answer<N, L>(
        self: &Arc<Self>,
        query: &Query,
        next: N,
        later: L,
    ) -> Result<Outcome, Failure>
    where
        N: AsyncFnOnce(&Query) -> Result<Outcome, Failure>,
        L: FnOnce(Renewal),
    {
        loop {
            match self.look(query) {
                Look::Pass => return next(query).await,
                Look::Hit(answer) => return Ok(Outcome::Answer(answer)),
                Look::Early(answer, ticket) => {
                    let verify = self.options.serve_stale.is_some();
                    later(Renewal::new(ticket, query, verify));
                    return Ok(Outcome::Answer(answer));
                }
                Look::Miss(ticket) => return ticket.ask(query, next).await,
                Look::Wait(flight) => match self.wait(flight, query).await {
                    Waited::Answer(answer) => return Ok(Outcome::Answer(answer)),
                    Waited::AskYourself => return next(query).await,
                    Waited::Gone => {}
                },
                Look::Verify(entry, verify) => {
                    let fresh = match verify {
                        Verify::Ask(ticket) => match self.verify_time() {
                            Some(time) => self.verify_within(ticket, query, time, later).await,
                            None => ticket.verify(query, next).await,
                        },
                        Verify::Wait(flight) => match self.wait(flight, query).await {
                            Waited::Answer(answer) => acceptable(answer),
                            _ => None,
                        },
                    };
                    let answer = fresh.unwrap_or_else(|| self.give_old(&entry, query));
                    return Ok(Outcome::Answer(answer));
                }
            }
        }
    }

    fn verify_time(&self) -> Option<Duration> {
        match self.options.serve_stale?.refresh {
            Refresh::Verify(time) => time,
            Refresh::Immediate => None,
        }
    }

    async fn wait(&self, mut flight: watch::Receiver<Landed>, query: &Query) -> Waited {
        let landed = flight
            .wait_for(|landed| !matches!(landed, Landed::Nothing))
            .await;
        match landed.as_deref() {
            Ok(Landed::Answer(entry)) => Waited::Answer(entry.answer(query, None)),
            Ok(Landed::AskYourself) => Waited::AskYourself,
            Ok(Landed::Nothing) | Err(_) => Waited::Gone,
        }
    }

    /// Asks in the background, and waits for what comes of it only so long.
    async fn verify_within(
        self: &Arc<Self>,
        ticket: Ticket,
        query: &Query,
        time: Duration,
        later: impl FnOnce(Renewal),
    ) -> Option<Answer> {
        let flight = {
            let mut shard = self.shard(ticket.hash);
            self.board(&mut shard, ticket.hash, query).err()?
        };
        later(Renewal::new(ticket, query, true));
        match tokio::time::timeout(time, self.wait(flight, query)).await {
            Ok(Waited::Answer(answer)) => acceptable(answer),
            _ => None,
        }
    }
}

/// Whether an answer may take the place of a stale one (RFC 8767, section 4).
fn acceptable(answer: Answer) -> Option<Answer> {
    matches!(answer.rcode, Rcode::NOERROR | Rcode::NXDOMAIN).then_some(answer)
}

fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

/// As it is asked below: AD is wanted, for those to come who want it.
fn below(query: &Query) -> Query {
    let mut query = query.clone();
    query.authentic = true;
    query
}

impl Ticket {
    /// Asks, keeps what comes and tells the others.
    async fn ask<N>(mut self, query: &Query, next: N) -> Result<Outcome, Failure>
    where
        N: AsyncFnOnce(&Query) -> Result<Outcome, Failure>,
    {
        let outcome = next(&below(query)).await;
        let cache = Arc::clone(&self.cache);
        match outcome {
            Ok(Outcome::Answer(answer)) => {
                let mut answer = cache.keep(&mut self, answer, false, now()).answer;
                // Who did not say that AD is understood does not get it (RFC 6840, section 5.8).
                answer.authentic &= query.authentic || self.key.dnssec;
                Ok(Outcome::Answer(answer))
            }
            Err(failure) => {
                // Who asks again at once must not find the upstreams as they were.
                if failure.rcode == Rcode::SERVFAIL {
                    cache.keep(&mut self, failed(), false, now());
                }
                Err(failure)
            }
            other => other,
        }
    }

    /// Asks; nothing where what comes is no better than what was stale.
    async fn verify<N>(mut self, query: &Query, next: N) -> Option<Answer>
    where
        N: AsyncFnOnce(&Query) -> Result<Outcome, Failure>,
    {
        let outcome = next(&below(query)).await;
        let cache = Arc::clone(&self.cache);
        if let Ok(Outcome::Answer(answer)) = outcome {
            let Kept {
                mut answer,
                refreshed,
            } = cache.keep(&mut self, answer, true, now());
            if refreshed {
                answer.authentic &= query.authentic || self.key.dnssec;
                return Some(answer);
            }
        } else {
            cache.land(&mut self, failed_landing(query));
        }
        cache.rest(self.hash, now());
        None
    }
}

/// What those are told who wait for a question that failed.
fn failed_landing(query: &Query) -> Landed {
    let entry = super::Entry::new(
        super::Key::of(query),
        &failed(),
        super::Kind::Failure,
        0,
        now(),
    );
    Landed::Answer(Arc::new(entry))
}

fn failed() -> Answer {
    Answer {
        rcode: Rcode::SERVFAIL,
        by: "cache",
        ..Answer::default()
    }
}

impl Renewal {
    fn new(ticket: Ticket, query: &Query, verify: bool) -> Self {
        let mut query = below(query);
        // Nobody's buffer bounds this answer.
        query.transport = Transport::Tcp;
        Self {
            ticket,
            query,
            verify,
        }
    }

    /// Asks `next`, and keeps what comes.
    pub async fn run<N>(self, next: N)
    where
        N: AsyncFnOnce(&Query) -> Result<Outcome, Failure>,
    {
        let Self {
            mut ticket,
            mut query,
            verify,
        } = self;
        query.now = now();
        if verify {
            ticket.verify(&query, next).await;
            return;
        }
        if let Ok(Outcome::Answer(answer)) = next(&query).await {
            let cache = Arc::clone(&ticket.cache);
            cache.keep(&mut ticket, answer, false, now());
        }
    }
}
