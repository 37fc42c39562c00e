//! What becomes of a message: bytes in, bytes out.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::FutureExt;
use rustls::ServerConfig;

use super::Limits;
use super::cookie::Cookies;
use super::message::{self, Asked, Read};
use super::site::Answers;
use crate::metrics::{Counters, HttpsLabels, Metrics, Served, SiteLabels};
use crate::query::{Answer, Outcome, Query, Transport};
use crate::wire::Rcode;

/// Who asks whom by what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
}

/// What listeners of all workers at one address have in common.
#[derive(Debug)]
pub(super) struct Shared<A> {
    /// As metrics name it: `dns://:53`.
    pub(super) server: String,
    /// Replaced as a whole when the Corefile changes.
    pub(super) answers: ArcSwap<A>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cookies: Arc<Cookies>,
    /// How connections are treated.
    pub(super) how: ArcSwap<How>,
}

/// How connections to a listener are treated.
#[derive(Debug, Default)]
pub(super) struct How {
    /// What a listener for TLS shows; without it such a listener speaks in the clear.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) limits: Limits,
}

/// What this worker has counted for a site.
#[derive(Debug)]
pub(super) struct Tally {
    counters: Option<Arc<Counters>>,
    /// Answers whose time is still to be counted.
    untimed: Cell<u64>,
}

impl Tally {
    /// An answer took this long.
    pub(super) fn took(&self, time: Duration) {
        if let Some(counters) = &self.counters {
            counters.took(time, 1);
        }
    }

    /// An answer is done, and how long it took will be known with the end of its batch.
    pub(super) fn took_as_its_batch(&self) {
        self.untimed.set(self.untimed.get() + 1);
    }
}

/// What answers, as one worker sees it: reference counts that other workers share would travel
/// between processors with every question.
struct Local<A> {
    answers: Arc<A>,
    sites: Vec<Rc<Tally>>,
    /// Of questions that no site answers.
    dropped: Arc<Counters>,
}

/// A listener at one worker.
pub(super) struct Desk<A> {
    shared: Arc<Shared<A>>,
    worker: usize,
    local: RefCell<Rc<Local<A>>>,
    /// Replies on their way out. Whoever appends takes its own off again before it awaits.
    out: RefCell<Vec<u8>>,
}

/// A question that a site is to answer.
pub(super) struct Ask<A> {
    local: Rc<Local<A>>,
    site: usize,
    query: Query,
    asked: Asked,
}

/// What a message asks for.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are questions, and a box would be an allocation for each"
)]
pub(super) enum Step<A> {
    /// Nothing is answered.
    Nothing,
    /// This part of [`Desk::out`] is the answer.
    Reply(Range<usize>),
    /// [`Desk::answer`] will tell.
    Ask(Ask<A>),
}

/// What was answered: a part of [`Desk::out`], empty where nothing is.
pub(super) struct Reply {
    pub(super) bytes: Range<usize>,
    pub(super) tally: Rc<Tally>,
}

impl<A: Answers> Desk<A> {
    pub(super) fn new(shared: Arc<Shared<A>>, worker: usize) -> Self {
        let local = Local::new(&shared, worker);
        Self {
            shared,
            worker,
            local: RefCell::new(Rc::new(local)),
            out: RefCell::new(Vec::with_capacity(64 << 10)),
        }
    }

    /// Sees whether the Corefile has changed; to be called now and then, for a batch.
    pub(super) fn refresh(&self) {
        let current = self.shared.answers.load();
        if !Arc::ptr_eq(&current, &self.local.borrow().answers) {
            *self.local.borrow_mut() = Rc::new(Local::new(&self.shared, self.worker));
        }
    }

    /// What a message asks for.
    pub(super) fn read(&self, bytes: &[u8], line: Line, now: Instant) -> Step<A> {
        let mut out = self.out.borrow_mut();
        let begin = out.len();
        let (query, mut asked) = match message::read(bytes, line, now, &mut out) {
            Read::Nothing => return Step::Nothing,
            Read::Reply => return Step::Reply(begin..out.len()),
            Read::Query(query, asked) => (query, asked),
        };
        if asked.keepalive().is_some() {
            asked.set_keepalive(self.shared.how.load().limits.idle);
        }
        let local = self.local.borrow();
        if asked.version > 0 {
            self.refuse(&query, &asked, Rcode::BADVERS, &mut out);
            return Step::Reply(begin..out.len());
        }
        if let Some(site) = local.answers.route(&query) {
            return Step::Ask(Ask {
                local: Rc::clone(&local),
                site,
                query,
                asked,
            });
        }
        self.refuse(&query, &asked, Rcode::REFUSED, &mut out);
        let served = served(&query, &asked, Rcode::REFUSED, "", out.len() - begin);
        local.dropped.served(&served);
        local.dropped.took(now.elapsed(), 1);
        Step::Reply(begin..out.len())
    }

    fn refuse(&self, query: &Query, asked: &Asked, rcode: Rcode, out: &mut Vec<u8>) {
        let answer = Answer {
            rcode,
            ..Answer::default()
        };
        let cookies = &self.shared.cookies;
        message::write(query, asked, &answer, cookies, out);
    }

    /// Answers a question, appending to [`Desk::out`].
    pub(super) async fn answer(self: Rc<Self>, ask: Ask<A>) -> Reply {
        let Ask {
            local,
            site,
            mut query,
            asked,
        } = ask;
        let outcome = AssertUnwindSafe(local.answers.answer(site, &mut query)).catch_unwind();
        let outcome = match outcome.await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.shared.metrics.panics.inc();
                let asked = &query.question;
                tracing::error!("a plugin panicked over {} {}", asked.name, asked.kind);
                Outcome::Answer(Answer {
                    rcode: Rcode::SERVFAIL,
                    ..Answer::default()
                })
            }
        };
        let tally = Rc::clone(&local.sites[site]);
        let bytes = self.write(&tally, &query, &asked, &outcome);
        Reply { bytes, tally }
    }

    fn write(
        &self,
        tally: &Tally,
        query: &Query,
        asked: &Asked,
        outcome: &Outcome,
    ) -> Range<usize> {
        let mut out = self.out.borrow_mut();
        let begin = out.len();
        let stream = matches!(query.transport, Transport::Tcp | Transport::Tls);
        let answers = match outcome {
            Outcome::Answer(answer) => std::slice::from_ref(answer),
            Outcome::Messages(answers) if stream => answers.as_slice(),
            // Only a connection has room for more than one.
            Outcome::Messages(answers) => answers.get(..1).unwrap_or_default(),
            Outcome::Drop => &[],
        };
        for answer in answers {
            let cookies = &self.shared.cookies;
            message::write(query, asked, answer, cookies, &mut out);
        }
        if let (Some(counters), Some(answer)) = (&tally.counters, answers.first()) {
            let response = out.len() - begin;
            counters.served(&served(query, asked, answer.rcode, answer.by, response));
        }
        begin..out.len()
    }

    /// What is answered where there is too much to do: that it failed.
    pub(super) fn overloaded(&self, bytes: &[u8], transport: Transport) -> Range<usize> {
        let mut out = self.out.borrow_mut();
        let begin = out.len();
        message::refuse(bytes, transport, Rcode::SERVFAIL, &mut out);
        begin..out.len()
    }

    /// The replies that are on their way out.
    pub(super) fn with_out<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.out.borrow_mut())
    }

    /// Hands over the last reply.
    pub(super) fn take<T>(&self, bytes: Range<usize>, act: impl FnOnce(&[u8]) -> T) -> T {
        let mut out = self.out.borrow_mut();
        debug_assert_eq!(out.len(), bytes.end);
        let taken = act(&out[bytes.clone()]);
        out.truncate(bytes.start);
        taken
    }

    /// How connections are treated, as of now.
    pub(super) fn how(&self) -> Arc<How> {
        self.shared.how.load_full()
    }

    /// Counts an HTTP response.
    pub(super) fn count_https(&self, status: u16) {
        let server = self.shared.server.clone();
        let labels = HttpsLabels { server, status };
        self.shared.metrics.https.get_or_create(&labels).inc();
    }

    /// A batch took this long.
    pub(super) fn batch_took(&self, time: Duration) {
        for tally in &self.local.borrow().sites {
            let count = tally.untimed.take();
            if let (Some(counters), 1..) = (&tally.counters, count) {
                counters.took(time, count);
            }
        }
    }
}

fn served(
    query: &Query,
    asked: &Asked,
    rcode: Rcode,
    plugin: &'static str,
    response: usize,
) -> Served {
    Served {
        transport: query.transport,
        ipv6: query.client.is_ipv6(),
        kind: query.question.kind,
        dnssec_ok: query.edns.as_ref().is_some_and(|edns| edns.dnssec_ok),
        request: asked.len,
        response,
        rcode,
        plugin,
    }
}

impl<A: Answers> Local<A> {
    fn new(shared: &Shared<A>, worker: usize) -> Self {
        let answers = shared.answers.load_full();
        let counters = |zone: String, view: &str| {
            let labels = SiteLabels {
                server: shared.server.clone(),
                view: view.to_owned(),
                zone,
            };
            shared.metrics.counters(labels, worker)
        };
        let sites = answers.sites().into_iter().map(|site| {
            let counted = site.plugins.contains(&"prometheus");
            let counters = || counters(site.zone.lower().to_string(), &site.view);
            Rc::new(Tally {
                counters: counted.then(counters),
                untimed: Cell::new(0),
            })
        });
        Self {
            sites: sites.collect(),
            dropped: counters("dropped".to_owned(), ""),
            answers,
        }
    }
}
