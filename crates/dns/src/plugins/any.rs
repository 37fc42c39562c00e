//! `any`: a question for ANY is answered with HINFO, as RFC 8482 says.

use crate::query::{Answer, Query};
use crate::wire::{Data, Record, Type};

/// The answer to a question for ANY.
pub fn answer(query: &Query) -> Option<Answer> {
    let question = &query.question;
    (question.kind == Type::ANY).then(|| {
        let text = b"\x0dANY obsoleted\x0cSee RFC 8482";
        let data = Data::Other(Type::HINFO, text.as_slice().into());
        Answer {
            answers: vec![Record::new(question.name.clone(), 8482, data)],
            by: "any",
            ..Answer::default()
        }
    })
}
