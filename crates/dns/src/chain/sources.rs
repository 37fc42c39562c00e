//! The stages that know answers, one asked after the other.

use super::{Chain, Reply, Way};
use crate::plugins::kubernetes::{Found, Section};
use crate::plugins::whoami;
use crate::query::{Failure, Outcome, Query};

impl Chain {
    /// The first that has something to say.
    pub(super) async fn sources(&self, way: Way<'_>, query: &Query) -> Reply {
        if let Some(transfer) = &self.transfer
            && let Some(reply) = self.transferred(transfer, query)
        {
            return reply;
        }
        if let Some(reply) = self.of_hosts(query) {
            return reply;
        }
        if let Some(kubernetes) = &self.kubernetes {
            let view = self.resources.view.load();
            let found = kubernetes.answer(view.as_deref(), &query.question);
            drop(view);
            if let Some(found) = found {
                return self.led(found, way, query).await;
            }
        }
        if let Some(files) = &self.files
            && let Some(reply) = Box::pin(self.of_files(files, way, query)).await
        {
            return reply;
        }
        if let Some(looping) = &self.looping {
            looping.look(query)?;
        }
        if let Some(upstreams) = &self.forward
            && let Some(answer) = Box::pin(upstreams.forwards.answer(query)).await?
        {
            return Ok(Outcome::Answer(answer));
        }
        if let Some(erratic) = &self.erratic {
            let trouble = erratic.next(query);
            if let Some(delay) = trouble.delay {
                tokio::time::sleep(delay).await;
            }
            return match trouble.answer {
                None => Ok(Outcome::Drop),
                Some(Ok(answer)) => Ok(Outcome::Answer(answer)),
                Some(Err(rcode)) => Err(Failure::code(rcode, "erratic")),
            };
        }
        if self.whoami {
            return Ok(Outcome::Answer(whoami::answer(query)));
        }
        let text = format!("plugin/{}: no next plugin found", self.last);
        Err(Failure::servfail(text, self.last))
    }

    /// What was found, with what it leads to outside of where it was found.
    async fn led(&self, found: Found, way: Way<'_>, query: &Query) -> Reply {
        let mut answer = found.answer;
        for lookup in found.lookups {
            let Some(more) = way.ask(query, lookup.name, lookup.kind).await else {
                continue;
            };
            answer.truncated |= more.truncated;
            match lookup.section {
                Section::Answers => answer.answers.extend(more.answers),
                Section::Additionals => answer.additionals.extend(more.answers),
            }
        }
        Ok(Outcome::Answer(answer))
    }

    fn of_hosts(&self, query: &Query) -> Option<Reply> {
        let source = self.hosts.as_ref()?;
        let said = source.hosts.answer(&source.file.load(), query)?;
        Some(match said {
            Ok(answer) => Ok(Outcome::Answer(answer)),
            Err(rcode) => Err(Failure::code(rcode, "hosts")),
        })
    }
}
