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

use super::cookie::Cookies;
use super::message::{self, Asked, Read};
use super::site::{Answers, Site, Sites};
use crate::metrics::{Counters, Metrics, Served, SiteLabels};
use crate::query::{Answer, Outcome, Query, Transport};
use crate::wire::{Class, Rcode};

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
    pub(super) sites: ArcSwap<Sites<A>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) cookies: Arc<Cookies>,
}

/// A site, and what this worker has counted for it.
pub(super) struct LocalSite<A> {
    sites: Arc<Sites<A>>,
    index: usize,
    counters: Option<Arc<Counters>>,
    /// Answers whose time is still to be counted.
    untimed: Cell<u64>,
}

impl<A> LocalSite<A> {
    fn site(&self) -> &Site<A> {
        &self.sites.all[self.index]
    }

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

/// The sites as one worker sees them: reference counts that other workers share would travel
/// between processors with every question.
struct Local<A> {
    sites: Arc<Sites<A>>,
    each: Vec<Rc<LocalSite<A>>>,
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
    site: Rc<LocalSite<A>>,
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
pub(super) struct Reply<A> {
    pub(super) bytes: Range<usize>,
    pub(super) site: Rc<LocalSite<A>>,
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
        let current = self.shared.sites.load();
        if !Arc::ptr_eq(&current, &self.local.borrow().sites) {
            *self.local.borrow_mut() = Rc::new(Local::new(&self.shared, self.worker));
        }
    }

    /// What a message asks for.
    pub(super) fn read(&self, bytes: &[u8], line: Line, now: Instant) -> Step<A> {
        let mut out = self.out.borrow_mut();
        let begin = out.len();
        let (query, asked) = match message::read(bytes, line, now, &mut out) {
            Read::Nothing => return Step::Nothing,
            Read::Reply => return Step::Reply(begin..out.len()),
            Read::Query(query, asked) => (query, asked),
        };
        let local = self.local.borrow();
        if asked.version > 0 {
            self.refuse(&query, &asked, Rcode::BADVERS, &mut out);
            return Step::Reply(begin..out.len());
        }
        let understood = query.question.class == Class::IN || local.sites.knows_classes;
        let site = understood.then(|| local.sites.select(&query)).flatten();
        if let Some(site) = site {
            let site = Rc::clone(&local.each[site]);
            return Step::Ask(Ask { site, query, asked });
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
        message::write(query, asked, &answer, usize::from(u16::MAX), cookies, out);
    }

    /// Answers a question, appending to [`Desk::out`].
    pub(super) async fn answer(self: Rc<Self>, ask: Ask<A>) -> Reply<A> {
        let Ask { site, query, asked } = ask;
        let answers = &site.site().answers;
        let outcome = AssertUnwindSafe(answers.answer(&query)).catch_unwind();
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
        let bytes = self.write(&site, &query, &asked, &outcome);
        Reply { bytes, site }
    }

    fn write(
        &self,
        site: &LocalSite<A>,
        query: &Query,
        asked: &Asked,
        outcome: &Outcome,
    ) -> Range<usize> {
        let mut out = self.out.borrow_mut();
        let begin = out.len();
        let answers = match outcome {
            Outcome::Answer(answer) => std::slice::from_ref(answer),
            Outcome::Messages(answers) => answers.as_slice(),
            Outcome::Drop => &[],
        };
        let most = site
            .site()
            .answers
            .most_udp()
            .map_or(usize::MAX, usize::from);
        for answer in answers {
            let cookies = &self.shared.cookies;
            message::write(query, asked, answer, most, cookies, &mut out);
        }
        if let (Some(counters), Some(answer)) = (&site.counters, answers.first()) {
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

    /// A batch took this long.
    pub(super) fn batch_took(&self, time: Duration) {
        for site in &self.local.borrow().each {
            let count = site.untimed.take();
            if let (Some(counters), 1..) = (&site.counters, count) {
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
        let sites = shared.sites.load_full();
        let counters = |zone: String, view: &str| {
            let labels = SiteLabels {
                server: shared.server.clone(),
                view: view.to_owned(),
                zone,
            };
            shared.metrics.counters(labels, worker)
        };
        let each = sites.all.iter().enumerate().map(|(index, site)| {
            let counters = || counters(site.zone.lower().to_string(), &site.view);
            Rc::new(LocalSite {
                sites: Arc::clone(&sites),
                index,
                counters: site.counted.then(counters),
                untimed: Cell::new(0),
            })
        });
        Self {
            each: each.collect(),
            dropped: counters("dropped".to_owned(), ""),
            sites,
        }
    }
}
