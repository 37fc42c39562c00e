//! Which server block answers.

use std::sync::Arc;

use super::{Chain, Reply, Way, coded};
use crate::query::{Failure, Outcome, Query};
use crate::serve::{self, Answers};
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
    /// The plugins that are enabled, for metrics.
    pub plugins: Vec<&'static str>,
}

impl Router {
    /// Of a listener's zones, in the order of the Corefile.
    pub fn new(server: String, mut sites: Vec<Site>) -> Self {
        sites.sort_by_key(|site| std::cmp::Reverse(site.zone.as_bytes().len()));
        for Site { chain, .. } in &sites {
            if let Some(cache) = chain.cache() {
                let caches = &chain.resources.metrics.caches;
                caches.add(&server, chain.view_name(), cache);
            }
        }
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
        self.number(query).map(|number| &self.sites[number])
    }

    /// The number of that site.
    fn number(&self, query: &Query) -> Option<usize> {
        let question = &query.question;
        if question.class != Class::IN && !self.chaos {
            return None;
        }
        let takes = |(_, site): &(usize, &Site)| {
            (site.zone.is_root() || question.name.is_within(&site.zone)) && site.chain.views(query)
        };
        let mut matching = self.sites.iter().enumerate().filter(takes);
        let longest = matching.next();
        if question.kind != Type::DS {
            return longest.map(|(number, _)| number);
        }
        let shortest = matching.rfind(|(_, site)| !site.zone.is_root());
        shortest.or(longest).map(|(number, _)| number)
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

impl Answers for Router {
    fn sites(&self) -> Vec<serve::Site> {
        let each = self.sites.iter().map(|site| serve::Site {
            zone: site.zone.clone(),
            view: site.chain.view_name().to_owned(),
            plugins: site.plugins.clone(),
        });
        each.collect()
    }

    fn route(&self, query: &Query) -> Option<usize> {
        self.number(query)
    }

    /// What comes of a query. The size of its buffer is bounded by `bufsize` on the way.
    async fn answer(self: &Arc<Self>, site: usize, query: &mut Query) -> Outcome {
        let chain = &self.sites[site].chain;
        chain.bound(query);
        let way = Way {
            router: self,
            chain,
            depth: 0,
        };
        match chain.enter(way, query).await {
            Ok(outcome) => outcome,
            Err(failure) => Outcome::Answer(coded(failure.rcode)),
        }
    }
}
