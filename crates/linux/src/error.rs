//! Errors that name operation, object and the kernel's cause.

use std::fmt;
use std::io;

/// What a call returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refused or failed request to the kernel, printed as
/// `link fn-vxlan: create: operation not supported (is the vxlan module in this kernel?)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What it was about, for example `link fn-vxlan`.
    pub object: String,
    /// What was tried, for example `create`.
    pub operation: &'static str,
    /// The kernel's error number, where it gave one.
    pub errno: Option<i32>,
    /// The cause: the kernel's own message, or what was wrong with its answer.
    pub cause: String,
    /// Likely reason and next step, where one is known.
    pub hint: Option<&'static str>,
}

impl Error {
    /// An error of the kernel, with the message it sent along (extended acknowledgement).
    pub fn kernel(
        object: impl Into<String>,
        operation: &'static str,
        errno: i32,
        message: Option<&str>,
    ) -> Self {
        let mut cause = describe(errno);
        if let Some(message) = message.filter(|m| !m.is_empty()) {
            cause = format!("{cause}: {}", message.trim_end_matches('.'));
        }
        Self {
            object: object.into(),
            operation,
            errno: Some(errno),
            cause,
            hint: (errno == libc::EPERM)
                .then_some("this needs root or CAP_NET_ADMIN in the network namespace"),
        }
    }

    /// An error of the system's I/O.
    pub fn io(object: impl Into<String>, operation: &'static str, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self::kernel(object, operation, errno, None),
            None => Self::other(object, operation, error.to_string()),
        }
    }

    /// An error without a number.
    pub fn other(
        object: impl Into<String>,
        operation: &'static str,
        cause: impl Into<String>,
    ) -> Self {
        Self {
            object: object.into(),
            operation,
            errno: None,
            cause: cause.into(),
            hint: None,
        }
    }

    /// The same error with a likely reason, where it has none yet.
    #[must_use]
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint.get_or_insert(hint);
        self
    }

    /// Whether the kernel's number is this one.
    pub fn is(&self, errno: i32) -> bool {
        self.errno == Some(errno)
    }

    /// Whether the object was not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno,
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL)
        )
    }

    /// Whether the kernel found the request itself wrong.
    pub fn is_invalid(&self) -> bool {
        self.is(libc::EINVAL)
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        self.is(libc::EEXIST)
    }
}

/// The system's words for an error number, without a capital, so that they stand in a sentence.
fn describe(errno: i32) -> String {
    let words = io::Error::from_raw_os_error(errno).to_string();
    let words = words
        .strip_suffix(&format!(" (os error {errno})"))
        .unwrap_or(&words);
    // Not where the capital is part of the word: "RFS specific error", "I/O error".
    let ordinary = words
        .chars()
        .nth(1)
        .is_some_and(|second| second.is_lowercase() || second == ' ');
    match words.split_at_checked(1) {
        Some((first, rest)) if ordinary => first.to_lowercase() + rest,
        _ => words.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.operation, self.cause)?;
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn an_error_names_object_operation_cause_and_hint() {
        let error = Error::kernel(
            "link fn-vxlan",
            "create",
            libc::EOPNOTSUPP,
            Some("Unknown device type."),
        )
        .hint("is the vxlan module in this kernel?");
        assert_eq!(
            error.to_string(),
            "link fn-vxlan: create: operation not supported: Unknown device type (is the vxlan module in this kernel?)"
        );
    }
}
