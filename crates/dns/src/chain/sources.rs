//! The stages that know answers, one asked after the other.

use super::{Chain, Reply, Way};
use crate::plugins::kubernetes::{Found, Section};
use crate::plugins::metrics::{Matched as OfTemplate, Mistaken};
use crate::plugins::template::{Made, Matched, Mistake, Templates};
use crate::plugins::whoami;
use crate::query::{Failure, Outcome, Query};

impl Chain {
    /// The first that has something to say.
    pub(super) async fn sources(&self, way: Way<'_>, query: &Query) -> Reply {
        if let Some(templates) = &self.templates
            && let Some(reply) = Box::pin(self.of_templates(templates, way, query)).await
        {
            return reply;
        }
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
            let external = self
                .external
                .as_ref()
                .and_then(|external| external.answer(kubernetes, view.as_deref(), &query.question));
            let cluster = || kubernetes.answer(view.as_deref(), &query.question);
            let found = external.or_else(cluster);
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

    /// What `template` says.
    async fn of_templates(
        &self,
        templates: &Templates,
        way: Way<'_>,
        query: &Query,
    ) -> Option<Reply> {
        let metrics = &self.resources.metrics;
        let count = |matched: Matched| {
            let Matched { zone, class, kind } = matched;
            let labels = OfTemplate {
                server: way.router.server.clone(),
                zone,
                view: self.view_name().to_owned(),
                class,
                r#type: kind,
            };
            metrics.template_matches.get_or_create(&labels).inc();
            labels
        };
        match templates.answer(query) {
            Made::Next => None,
            Made::Code(rcode, matched) => {
                matched.map(count);
                Some(Err(Failure::code(rcode, "template")))
            }
            Made::Mistake(mistake, matched) => {
                let OfTemplate {
                    server,
                    zone,
                    view,
                    class,
                    r#type,
                } = count(matched);
                let Mistake {
                    section,
                    template,
                    is_record,
                    why,
                } = mistake;
                let labels = Mistaken {
                    server,
                    zone,
                    view,
                    class,
                    r#type,
                    section,
                    template,
                };
                let counter = match is_record {
                    true => &metrics.template_rr_failures,
                    false => &metrics.template_failures,
                };
                counter.get_or_create(&labels).inc();
                Some(Err(Failure::servfail(why, "template")))
            }
            Made::Answer(mut written, matched) => {
                count(matched);
                let mut resolved = Vec::new();
                for (at, target) in std::mem::take(&mut written.aliases) {
                    let kind = query.question.kind;
                    resolved.push((at, way.ask(query, target, kind).await));
                }
                for (at, answer) in resolved.into_iter().rev() {
                    if let Some(answer) = answer {
                        written.resolved(at, answer);
                    }
                }
                Some(Ok(Outcome::Answer(written.answer)))
            }
        }
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
