//! `template`: answers made out of the question.

#[cfg(test)]
mod tests;

use super::zones::Zones;
use crate::corefile::Pattern;
use crate::corefile::plugins::{ExtendedError, Template as Options};
use crate::expression::{Environment, Expression};
use crate::gotext::{self, Data};
use crate::query::{Answer, Query};
use crate::wire::{Class, EdnsOption, Name, Rcode, Record, Type};
use crate::zonefile;

/// The templates of a server block.
#[derive(Debug)]
pub struct Templates {
    zones: Zones,
    all: Vec<Template>,
}

#[derive(Debug)]
struct Template {
    class: Class,
    kind: Type,
    zones: Zones,
    patterns: Vec<Pattern>,
    variables: Vec<(String, Expression)>,
    conditions: Vec<Expression>,
    answer: Vec<gotext::Template>,
    additional: Vec<gotext::Template>,
    authority: Vec<gotext::Template>,
    rcode: Rcode,
    error: Option<ExtendedError>,
    fallthrough: Zones,
}

/// What comes of a query.
#[derive(Debug)]
pub enum Made {
    /// The next plugin is asked.
    Next,
    /// A code alone: no template is for the name, or one says so.
    Code(Rcode, Option<Matched>),
    /// An answer.
    Answer(Written, Matched),
    /// A template could not be worked out.
    Mistake(Mistake, Matched),
}

/// An answer, and the targets of aliases in it that are to be resolved.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The answer.
    pub answer: Answer,
    /// Targets, and behind how many answers what they stand for belongs.
    pub aliases: Vec<(usize, Name)>,
}

/// What matched, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The template's zone.
    pub zone: String,
    /// The class asked for.
    pub class: String,
    /// The type asked for.
    pub kind: String,
}

/// Why there is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The section it was for.
    pub section: &'static str,
    /// The template.
    pub template: String,
    /// What the template wrote is no record; otherwise it wrote nothing.
    pub is_record: bool,
    /// Why.
    pub why: String,
}

enum Match<'a> {
    Other,
    /// It is for another name, and the next one is not asked.
    Ends,
    Data(Data<'a>),
}

impl Templates {
    /// Of the options.
    ///
    /// # Errors
    /// What is not understood.
    pub fn new(options: &[Options]) -> Result<Self, String> {
        let zones: Vec<Name> = options.iter().flat_map(|one| one.zones.clone()).collect();
        Ok(Self {
            zones: Zones::new(&zones),
            all: options
                .iter()
                .map(Template::new)
                .collect::<Result<_, _>>()?,
        })
    }

    /// What comes of a query.
    pub fn answer(&self, query: &Query) -> Made {
        if !self.zones.contain(&query.question.name) {
            return Made::Next;
        }
        for template in &self.all {
            match template.matched(query) {
                Match::Other => {}
                Match::Ends => return Made::Code(Rcode::SERVFAIL, None),
                Match::Data(data) => return template.made(query, &data),
            }
        }
        Made::Next
    }
}

impl Template {
    fn new(options: &Options) -> Result<Self, String> {
        let texts = |texts: &[String]| {
            let each = texts.iter().map(|text| gotext::Template::new(text));
            each.collect::<Result<Vec<_>, _>>()
        };
        let mut names = Vec::new();
        let mut variables = Vec::new();
        for variable in &options.variables {
            let expression = Expression::new(&variable.expression, &names, true)?;
            names.push(variable.name.clone());
            variables.push((variable.name.clone(), expression));
        }
        let condition = |text: &String| Expression::new(text, &names, true);
        Ok(Self {
            class: options.class,
            kind: options.kind,
            zones: Zones::new(&options.zones),
            patterns: options.matches.clone(),
            conditions: options
                .conditions
                .iter()
                .map(condition)
                .collect::<Result<_, _>>()?,
            variables,
            answer: texts(&options.answer)?,
            additional: texts(&options.additional)?,
            authority: texts(&options.authority)?,
            rcode: options.rcode,
            error: options.extended_error.clone(),
            fallthrough: Zones::new(&options.fallthrough),
        })
    }

    fn matched<'a>(&'a self, query: &'a Query) -> Match<'a> {
        let question = &query.question;
        let Some(zone) = self.zones.matching(&question.name) else {
            return Match::Other;
        };
        let class =
            [self.class, question.class].contains(&Class::ANY) || self.class == question.class;
        let kind = [self.kind, question.kind].contains(&Type::ANY) || self.kind == question.kind;
        if !class || !kind {
            return Match::Other;
        }
        let through = match self.fallthrough.contain(&question.name) {
            true => Match::Other,
            false => Match::Ends,
        };
        let name = question.name.lower().to_string();
        let Some((pattern, captures)) = self.patterns.iter().find_map(|pattern| {
            let captures = pattern.regex().captures(&name)?;
            Some((pattern, captures))
        }) else {
            return through;
        };
        let or = |asked: String, is_any: bool, own: String| if is_any { own } else { asked };
        let mut data = Data {
            query,
            zone: zone.to_string(),
            regex: pattern.as_str(),
            matched: Vec::new(),
            groups: std::collections::BTreeMap::new(),
            class: or(
                question.class.to_string(),
                question.class == Class::ANY,
                self.class.to_string(),
            ),
            kind: or(
                question.kind.to_string(),
                question.kind == Type::ANY,
                self.kind.to_string(),
            ),
            variables: Vec::new(),
        };
        for (number, group) in pattern.regex().capture_names().enumerate() {
            let text = captures.get(number).map_or("", |found| found.as_str());
            data.matched.push(text.to_owned());
            data.groups.insert(number.to_string(), text.to_owned());
            if let Some(group) = group {
                data.groups.insert(group.to_owned(), text.to_owned());
            }
        }
        match self.holds(&mut data) {
            Ok(true) => Match::Data(data),
            Ok(false) => through,
            Err(_) => Match::Ends,
        }
    }

    /// Works the variables out, and then whether the conditions hold.
    fn holds(&self, data: &mut Data<'_>) -> Result<bool, String> {
        for (name, expression) in &self.variables {
            let value = expression.value(&Environment {
                query: data.query,
                groups: &data.groups,
                variables: &data.variables,
            })?;
            data.variables.push((name.clone(), value));
        }
        let environment = Environment {
            query: data.query,
            groups: &data.groups,
            variables: &data.variables,
        };
        for condition in &self.conditions {
            if !condition.holds(&environment)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn made(&self, query: &Query, data: &Data<'_>) -> Made {
        let matched = Matched {
            zone: data.zone.clone(),
            class: data.class.clone(),
            kind: data.kind.clone(),
        };
        if self.rcode == Rcode::SERVFAIL {
            return Made::Code(self.rcode, Some(matched));
        }
        match self.records(query, data) {
            Ok(made) => Made::Answer(made, matched),
            Err(mistake) => Made::Mistake(mistake, matched),
        }
    }

    fn records(&self, query: &Query, data: &Data<'_>) -> Result<Written, Mistake> {
        let section = |name: &'static str, templates: &[gotext::Template]| {
            let each = templates
                .iter()
                .map(|template| record(name, template, data));
            each.collect::<Result<Vec<Record>, _>>()
        };
        let answers = section("answer", &self.answer)?;
        let mut aliases = Vec::new();
        if [Type::A, Type::AAAA].contains(&query.question.kind) {
            for (at, record) in answers.iter().enumerate() {
                if let crate::wire::Data::Cname(target) = &record.data {
                    aliases.push((at + 1, target.clone()));
                }
            }
        }
        Ok(Written {
            answer: Answer {
                rcode: self.rcode,
                authoritative: true,
                answers,
                additionals: section("additional", &self.additional)?,
                authorities: section("authority", &self.authority)?,
                options: self.error.iter().map(extended).collect(),
                by: "template",
                ..Answer::default()
            },
            aliases,
        })
    }
}

fn record(
    section: &'static str,
    template: &gotext::Template,
    data: &Data<'_>,
) -> Result<Record, Mistake> {
    let mistake = |is_record, why| Mistake {
        section,
        template: template.text().to_owned(),
        is_record,
        why,
    };
    let text = template.render(data).map_err(|why| mistake(false, why))?;
    zonefile::record(&text).map_err(|why| mistake(true, why))
}

fn extended(error: &ExtendedError) -> EdnsOption {
    let mut data = error.code.to_be_bytes().to_vec();
    data.extend_from_slice(error.reason.as_bytes());
    EdnsOption {
        code: EdnsOption::EXTENDED_ERROR,
        data: data.into(),
    }
}

impl Written {
    /// The answer with what an alias stands for; the last alias first, so that places stay.
    pub fn resolved(&mut self, at: usize, resolved: Answer) {
        let at = at.min(self.answer.answers.len());
        self.answer.answers.splice(at..at, resolved.answers);
        self.answer.truncated |= resolved.truncated;
    }
}
