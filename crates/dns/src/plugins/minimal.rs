//! `minimal`: positive answers without authority and additional records.

use super::outcome::Kind;
use crate::query::{Answer, Query};

/// Leaves out what nobody has to have; delegations, denials and errors stay whole.
pub fn reduce(query: &Query, answer: &mut Answer) {
    if Kind::of(query, answer) == Kind::NoError {
        answer.authorities = Vec::new();
        answer.additionals = Vec::new();
    }
}
