//! `file`: zones out of master files.

mod lookup;
#[cfg(test)]
mod tests;
mod zone;

pub use lookup::{Found, Result as Kind, Said};
pub use zone::{Read, Zone};

use crate::query::{Answer, Failure};
use crate::wire::Rcode;

/// What the server makes of what a zone says.
///
/// # Errors
/// SERVFAIL where the zone cannot say anything.
pub fn answer(found: Found) -> Result<Answer, Failure> {
    let empty = found.answers.is_empty();
    let rcode = match found.result {
        Kind::Failure if empty => return Err(Failure::code(Rcode::SERVFAIL, "file")),
        // Of CNAMEs it is known where they lead to, if not what is there.
        Kind::Failure => Rcode::SERVFAIL,
        Kind::NameError => Rcode::NXDOMAIN,
        Kind::Success | Kind::Empty | Kind::NoData | Kind::Delegation => Rcode::NOERROR,
    };
    Ok(Answer {
        rcode,
        authoritative: !(found.result == Kind::Delegation && empty),
        answers: found.answers,
        authorities: found.authorities,
        additionals: found.additionals,
        by: "file",
        ..Answer::default()
    })
}

/// Whether somebody else may know more, where `fallthrough` is for the name.
pub fn is_unknown(found: &Found) -> bool {
    found.answers.is_empty() && matches!(found.result, Kind::NameError | Kind::Empty)
}
