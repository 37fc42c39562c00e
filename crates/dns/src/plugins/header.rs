//! `header`: flags set or cleared in queries and answers.

use crate::corefile::plugins::{Flag, HeaderRule};
use crate::query::{Answer, Query};

/// The query as the plugins below see it. Of the flags only RD means something to them.
pub fn change_query(rules: &[HeaderRule], query: &mut Query) {
    for rule in rules {
        if rule.flag == Flag::RecursionDesired {
            query.recursion_desired = rule.set;
        }
    }
}

/// The answer as the plugins above see it.
pub fn change_answer(rules: &[HeaderRule], answer: &mut Answer) {
    for rule in rules {
        match rule.flag {
            Flag::Authoritative => answer.authoritative = rule.set,
            Flag::RecursionAvailable => answer.recursion_available = rule.set,
            Flag::RecursionDesired => answer.recursion_desired = Some(rule.set),
        }
    }
}
