//! What a plugin's answer is, seen from above: plugins that judge answers share this.

use crate::query::{Answer, Query};
use crate::wire::{Rcode, Type};

/// What kind of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There are records.
    NoError,
    /// There is no such name.
    NameError,
    /// SERVFAIL or NOTIMP.
    ServerError,
    /// There is such a name, but nothing of this type.
    NoData,
    /// Others know.
    Delegation,
    /// A zone transfer.
    Meta,
    /// Anything else.
    OtherError,
}

/// Kinds taken together, as the `log` plugin selects them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Records or a delegation.
    Success,
    /// No such name, or no such records.
    Denial,
    /// All else.
    Error,
}

impl Kind {
    /// What kind an answer is.
    pub fn of(query: &Query, answer: &Answer) -> Self {
        if [Type::AXFR, Type::IXFR].contains(&query.question.kind) {
            return Self::Meta;
        }
        if !answer.answers.is_empty() {
            match answer.rcode {
                Rcode::NOERROR => return Self::NoError,
                Rcode::NXDOMAIN => return Self::OtherError,
                _ => {}
            }
        }
        let has = |kind| {
            answer
                .authorities
                .iter()
                .any(|record| record.kind() == kind)
        };
        match answer.rcode {
            Rcode::NOERROR if has(Type::SOA) => Self::NoData,
            Rcode::NXDOMAIN => Self::NameError,
            Rcode::SERVFAIL | Rcode::NOTIMP => Self::ServerError,
            Rcode::NOERROR if has(Type::NS) => Self::Delegation,
            Rcode::NOERROR => Self::NoError,
            _ => Self::OtherError,
        }
    }

    /// The class it belongs to.
    pub fn class(self) -> Class {
        match self {
            Self::NoError | Self::Delegation => Class::Success,
            Self::NameError | Self::NoData => Class::Denial,
            Self::ServerError | Self::Meta | Self::OtherError => Class::Error,
        }
    }
}
