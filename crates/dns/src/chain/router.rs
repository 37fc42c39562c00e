//! Which server block answers.

use std::sync::Arc;

use super::{Chain, Reply, Way, coded};
use crate::query::{Failure, Outcome, Query};
use crate::wire::{Class, Name, Rcode, Type};

/// The server blocks of a listener.
#[derive(Debug, Default)]
pub struct Router {
    /// The listener, as metrics name it: `dns://:53`.
    pub server: String,
    /// The longest zone first; those of one zone in the order of the Corefile.
    sites: Vec<Site>,
    chaos: bool,
}

/// A zone and what answers for it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The zone.
    pub zone: Name,
    /// What answers.
    pub chain: Arc<Chain>,
}

impl Router {
    /// Of a listener's zones, in the order of the Corefile.
    pub fn new(server: String, mut sites: Vec<Site>) -> Self {
        sites.sort_by_key(|site| std::cmp::Reverse(site.zone.as_bytes().len()));
        let chaos = sites.iter().any(|site| site.chain.takes_chaos());
        Self {
            server,
            sites,
            chaos,
        }
    }

    /// The zones and what answers for them, the longest zone first.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The site that answers: the one with the longest zone, for DS the one with the shortest
    /// that is not the root, since DS is the parent's.
    pub fn route(&self, query: &Query) -> Option<&Site> {
        let question = &query.question;
        if question.class != Class::IN && !self.chaos {
            return None;
        }
        let takes = |site: &&Site| {
            (site.zone.is_root() || question.name.is_within(&site.zone)) && site.chain.views(query)
        };
        let mut matching = self.sites.iter().filter(takes);
        let longest = matching.next();
        if question.kind != Type::DS {
            return longest;
        }
        matching.rfind(|site| !site.zone.is_root()).or(longest)
    }

    /// What comes of a query. The size of its buffer is bounded by `bufsize` on the way.
    pub async fn answer(self: &Arc<Self>, query: &mut Query) -> Outcome {
        if let Some(site) = self.route(query) {
            site.chain.bound(query);
        }
        match self.enter(query, 0).await {
            Ok(outcome) => outcome,
            Err(failure) => Outcome::Answer(coded(failure.rcode)),
        }
    }

    /// From the top, once more.
    pub(super) async fn enter(self: &Arc<Self>, query: &Query, depth: u8) -> Reply {
        let Some(Site { chain, .. }) = self.route(query) else {
            return Err(Failure::code(Rcode::REFUSED, ""));
        };
        let way = Way {
            router: self,
            chain,
            depth,
        };
        chain.enter(way, query).await
    }
}
