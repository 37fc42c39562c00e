//! `nsid`: who asks for it is told which server it is (RFC 5001).

use crate::query::{Answer, Query};
use crate::wire::EdnsOption;

/// Whether the question asks for it.
pub fn asked(query: &Query) -> bool {
    let edns = query.edns.as_ref();
    edns.is_some_and(|edns| edns.option(EdnsOption::NSID).is_some())
}

/// Puts the identifier into the answer, in place of one that came from elsewhere.
pub fn add(identifier: &str, answer: &mut Answer) {
    answer
        .options
        .retain(|option| option.code != EdnsOption::NSID);
    answer.options.push(EdnsOption {
        code: EdnsOption::NSID,
        data: identifier.as_bytes().into(),
    });
}
