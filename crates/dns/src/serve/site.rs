//! Which server block answers a question.

use std::fmt;
use std::sync::Arc;

use crate::query::{Outcome, Query};
use crate::wire::{Name, Type};

/// What answers questions: a server block's plugins.
pub trait Answers: Send + Sync + 'static {
    /// Answers a question.
    fn answer(&self, query: &Query) -> impl Future<Output = Outcome>;

    /// Whether the block's `view` takes this question; where it does not, another block for the
    /// same zone may.
    fn takes(&self, query: &Query) -> bool {
        let _ = query;
        true
    }

    /// The most that a UDP answer may have, where plugin `bufsize` limits it.
    fn most_udp(&self) -> Option<u16> {
        None
    }

    /// Whether questions of other classes than IN are understood.
    fn knows_classes(&self) -> bool {
        false
    }
}

/// A zone of a server block, as it is served at a listener.
pub struct Site<A> {
    /// The zone.
    pub zone: Name,
    /// The name of its view, if it is one.
    pub view: String,
    /// Whether plugin `prometheus` counts its questions.
    pub counted: bool,
    /// The plugins that are enabled, for the metrics.
    pub plugins: Vec<&'static str>,
    /// What answers.
    pub answers: Arc<A>,
}

impl<A> fmt::Debug for Site<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("zone", &self.zone)
            .field("view", &self.view)
            .finish_non_exhaustive()
    }
}

/// All that is served at a listener.
#[derive(Debug)]
pub(super) struct Sites<A> {
    /// The longest zones first, those of the same zone in the order of the Corefile.
    pub(super) all: Vec<Site<A>>,
    /// Whether any of them understands classes other than IN.
    pub(super) knows_classes: bool,
}

impl<A: Answers> Sites<A> {
    pub(super) fn new(mut all: Vec<Site<A>>) -> Self {
        all.sort_by_key(|site| std::cmp::Reverse(site.zone.depth()));
        let knows_classes = all.iter().any(|site| site.answers.knows_classes());
        Self { all, knows_classes }
    }

    /// The site for a question: that of the longest zone. About a delegation the parent is
    /// asked, so that for DS it is the shortest zone but the root.
    pub(super) fn select(&self, query: &Query) -> Option<usize> {
        let name = &query.question.name;
        let mut matching = self.all.iter().enumerate().filter(|(_, site)| {
            (site.zone.is_root() || name.is_within(&site.zone)) && site.answers.takes(query)
        });
        let first = matching.next()?;
        if query.question.kind != Type::DS {
            return Some(first.0);
        }
        let shortest = matching.rfind(|(_, site)| !site.zone.is_root());
        Some(shortest.unwrap_or(first).0)
    }
}
