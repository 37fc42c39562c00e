//! The stages from the top down to the cache: plugins that change what goes by.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::timeout;

use super::{Autopath, Balance, Chain, LoadBalancePolicy, Reply, Way};
use crate::cache::Renewal;
use crate::corefile::plugins::AclAction;
use crate::plugins::acl::Verdict;
use crate::plugins::log::Told;
use crate::plugins::metrics::{OfServer, Place, ServerView};
use crate::plugins::{
    any, autopath, chaos, dns64, header, loadbalance, local, minimal, nsid, rewrite,
};
use crate::query::{Failure, Outcome, Query};
use crate::wire::{Name, Type};

impl Chain {
    /// The top: what is watched from above, and told.
    pub(super) async fn enter(&self, way: Way<'_>, query: &Query) -> Reply {
        let mut reply = match self.cancel {
            None => self.answered(way, query).await,
            Some(most) => match timeout(most, Box::pin(self.answered(way, query))).await {
                Ok(reply) => reply,
                Err(_) => Err(Failure::servfail("context deadline exceeded", "cancel")),
            },
        };
        if let Err(failure) = &reply
            && let Some(errors) = &self.errors
            && !failure.text.is_empty()
            && let Some(line) = errors.line(query, failure.rcode, &failure.text)
        {
            self.resources.output.line(&line);
        }
        if !self.log.is_empty() {
            self.tell(query, &reply);
        }
        if let Some(identifier) = &self.nsid
            && nsid::asked(query)
            && let Ok(Outcome::Answer(answer)) = &mut reply
        {
            nsid::add(identifier, answer);
        }
        reply
    }

    fn tell(&self, query: &Query, reply: &Reply) {
        let took = Instant::now().saturating_duration_since(query.now);
        if let Some(line) = self.log.line(&Told { query, reply }, took) {
            self.resources.output.line(&line);
        }
    }

    /// Plugins that answer before anybody else is asked.
    async fn answered(&self, way: Way<'_>, query: &Query) -> Reply {
        if let Some(prefix) = self.local
            && let Some(answer) = local::answer(query, prefix)
        {
            if query.question.name.depth() > 1 && query.question.kind != Type::PTR {
                self.resources.metrics.local_localhost.inc();
            }
            return Ok(Outcome::Answer(answer));
        }
        if let Some(options) = &self.dns64
            && dns64::concerns(options, query)
        {
            return Box::pin(self.translated(way, query, options)).await;
        }
        self.balanced(way, query).await
    }

    /// `dns64`.
    async fn translated(
        &self,
        way: Way<'_>,
        query: &Query,
        options: &crate::corefile::plugins::Dns64,
    ) -> Reply {
        let reply = self.balanced(way, query).await;
        let Ok(Outcome::Answer(answer)) = &reply else {
            return reply;
        };
        if !dns64::needed(options, query, answer) {
            return reply;
        }
        let name = query.question.name.clone();
        let Some(v4) = way.ask(query, name, Type::A).await else {
            return Err(Failure::servfail(
                "dns64: upstream returned no response",
                "dns64",
            ));
        };
        let server = way.router.server.clone();
        self.resources
            .metrics
            .dns64_translated
            .get_or_create(&OfServer { server })
            .inc();
        Ok(Outcome::Answer(dns64::translate(options, answer, v4)))
    }

    /// `any`, `chaos`, `loadbalance`.
    async fn balanced(&self, way: Way<'_>, query: &Query) -> Reply {
        if self.any
            && let Some(answer) = any::answer(query)
        {
            return Ok(Outcome::Answer(answer));
        }
        if let Some(options) = &self.chaos
            && let Some(answer) = chaos::answer(options, query, &self.resources.host)
        {
            return Ok(Outcome::Answer(answer));
        }
        let mut reply = if self.rewrite.is_empty() {
            self.completed(way, query).await
        } else {
            Box::pin(self.rewritten(way, query)).await
        };
        if let Some(balance) = &self.loadbalance
            && let Ok(Outcome::Answer(answer)) = &mut reply
        {
            balance.order(query, answer);
        }
        reply
    }

    /// `rewrite`.
    async fn rewritten(&self, way: Way<'_>, query: &Query) -> Reply {
        let rewritten = match rewrite::question(&self.rewrite, query) {
            Ok(None) => return self.completed(way, query).await,
            Ok(Some(rewritten)) => rewritten,
            Err(error) => return Err(Failure::servfail(error, "rewrite")),
        };
        let mut reply = self.completed(way, &rewritten.query).await;
        match &mut reply {
            Ok(Outcome::Answer(answer)) => {
                rewritten.reverts.apply(answer);
                for target in rewritten.reverts.targets(answer) {
                    let kind = rewritten.query.question.kind;
                    let asked = way.ask(&rewritten.query, target.to.clone(), kind);
                    if let Some(resolved) = asked.await {
                        rewrite::retarget(answer, target, resolved);
                    }
                }
            }
            Ok(Outcome::Messages(_) | Outcome::Drop) => {}
            Err(failure) => failure.rcode = rewritten.reverts.rcode(failure.rcode),
        }
        reply
    }

    /// `autopath`.
    async fn completed(&self, way: Way<'_>, query: &Query) -> Reply {
        if let Some(autopath) = &self.autopath
            && let Some(names) = self.searched(autopath, query)
        {
            return Box::pin(self.searching(way, query, names)).await;
        }
        self.admitted(way, query).await
    }

    /// The names that are tried, where this is the first that a client with a search path asks for.
    fn searched(&self, options: &Autopath, query: &Query) -> Option<Vec<Name>> {
        let name = &query.question.name;
        if !options.zones.iter().any(|zone| name.is_within(zone)) {
            return None;
        }
        if let Some(path) = &options.path {
            return autopath::names(&options.zones, path, name);
        }
        let view = self.resources.view.load();
        let (kubernetes, view) = (self.kubernetes.as_ref()?, view.as_deref()?);
        let (client, node) = (query.client.ip(), &self.resources.search);
        let path = autopath::path_of_pod(kubernetes, view, client, node, name)?;
        autopath::names(&options.zones, &path, name)
    }

    /// One name after the other until one is there; else what the first one came to.
    async fn searching(&self, way: Way<'_>, query: &Query, names: Vec<Name>) -> Reply {
        let mut first = None;
        for name in names {
            let mut step = query.clone();
            step.question.name = name;
            match self.admitted(way, &step).await {
                Ok(Outcome::Answer(answer)) if autopath::is_end(&answer) => {
                    let server = way.router.server.clone();
                    let counter = &self.resources.metrics.autopath_success;
                    counter.get_or_create(&OfServer { server }).inc();
                    let answer = autopath::answered(answer, &query.question.name);
                    return Ok(Outcome::Answer(answer));
                }
                Err(failure) if !failure.text.is_empty() => return Err(failure),
                reply => {
                    first.get_or_insert(reply);
                }
            }
        }
        first.unwrap_or(Ok(Outcome::Drop))
    }

    /// `acl`.
    async fn admitted(&self, way: Way<'_>, query: &Query) -> Reply {
        let Some(acl) = &self.acl else {
            return self.cached(way, query).await;
        };
        let metrics = &self.resources.metrics;
        let place = |zone: &Name| Place {
            server: way.router.server.clone(),
            zone: zone.to_string(),
            view: self.view_name().to_owned(),
        };
        match acl.judge(query) {
            Verdict::Allowed => {
                let Place { server, view, .. } = place(&Name::root());
                metrics
                    .acl_allowed
                    .get_or_create(&ServerView { server, view })
                    .inc();
            }
            Verdict::Dropped(zone) => {
                metrics.acl_dropped.get_or_create(&place(zone)).inc();
                return Ok(Outcome::Drop);
            }
            Verdict::Denied(answer, action, zone) => {
                let counter = match action {
                    AclAction::Filter => &metrics.acl_filtered,
                    _ => &metrics.acl_blocked,
                };
                counter.get_or_create(&place(zone)).inc();
                return Ok(Outcome::Answer(answer));
            }
        }
        self.cached(way, query).await
    }

    /// `cache`.
    async fn cached(&self, way: Way<'_>, query: &Query) -> Reply {
        let Some(cache) = &self.cache else {
            return self.below(way, query).await;
        };
        let below = async |query: &Query| self.below(way, query).await;
        cache
            .answer(query, below, |renewal| self.renew(way, renewal))
            .await
    }

    /// Asks again in the background, for those who come later.
    fn renew(&self, way: Way<'_>, renewal: Renewal) {
        let (router, chain) = (Arc::clone(way.router), Arc::clone(way.chain));
        tokio::spawn(async move {
            let way = Way {
                router: &router,
                chain: &chain,
                depth: 0,
            };
            let below = async |query: &Query| chain.below(way, query).await;
            renewal.run(below).await;
        });
    }

    /// What is below the cache: `header` and `minimal`.
    async fn below(&self, way: Way<'_>, query: &Query) -> Reply {
        let mut reply = match &self.header {
            Some(rules) if !rules.query.is_empty() => {
                let mut changed = query.clone();
                header::change_query(&rules.query, &mut changed);
                let mut reply = Box::pin(self.sources(way, &changed)).await;
                if let Ok(Outcome::Answer(answer)) = &mut reply
                    && changed.recursion_desired != query.recursion_desired
                {
                    answer.recursion_desired = Some(changed.recursion_desired);
                }
                reply
            }
            _ => self.sources(way, query).await,
        };
        if let Ok(Outcome::Answer(answer)) = &mut reply {
            if self.minimal {
                minimal::reduce(query, answer);
            }
            if let Some(rules) = &self.header {
                header::change_answer(&rules.response, answer);
            }
        }
        reply
    }
}

impl Balance {
    fn order(&self, query: &Query, answer: &mut crate::query::Answer) {
        // Nearly every answer has one record: nothing to put in order.
        if answer.answers.len() <= 1
            && answer.additionals.len() <= 1
            && answer.authorities.len() <= 1
        {
            return;
        }
        let mut rng = rand::rng();
        match &self.options.policy {
            LoadBalancePolicy::RoundRobin => loadbalance::shuffle(query, answer, &mut rng),
            LoadBalancePolicy::Weighted { .. } => {
                loadbalance::weigh(query, answer, &self.weights.load(), &mut rng);
            }
        }
        if !self.options.prefer.is_empty() {
            loadbalance::prefer(query, answer, &self.options.prefer);
        }
    }
}
