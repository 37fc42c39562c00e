//! `chaos`: what the server says about itself in class CH.

use rand::seq::SliceRandom;

use crate::corefile::plugins::Chaos;
use crate::query::{Answer, Query};
use crate::wire::{Class, Data, Record, Type};

/// The longest string of a TXT record.
const LONGEST: usize = 255;

/// The answer, where the question is one of those about the server.
pub fn answer(options: &Chaos, query: &Query, host: &str) -> Option<Answer> {
    let question = &query.question;
    if question.class != Class::CH || question.kind != Type::TXT {
        return None;
    }
    let name = question.name.to_string().to_ascii_lowercase();
    let texts = match name.as_str() {
        "version.bind." | "version.server." => vec![version(options)],
        "hostname.bind." | "id.server." => vec![host.to_owned()],
        "authors.bind." => authors(options),
        _ => return None,
    };
    let record = |text: &String| Record {
        class: Class::CH,
        ..Record::new(question.name.clone(), 0, Data::text(cut(text)))
    };
    Some(Answer {
        answers: texts.iter().map(record).collect(),
        by: "chaos",
        ..Answer::default()
    })
}

fn version(options: &Chaos) -> String {
    let own = || format!("flatnet-{}", env!("CARGO_PKG_VERSION"));
    options.version.clone().unwrap_or_else(own)
}

fn authors(options: &Chaos) -> Vec<String> {
    let own = || vec!["flatnet".to_owned()];
    let mut authors = options.authors.clone().unwrap_or_else(own);
    authors.shuffle(&mut rand::rng());
    authors
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
