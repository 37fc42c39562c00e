//! `log`: log of queries.

use crate::corefile::Zone;

/// `{common}` of the log's format, which is also the default.
pub(super) const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} \
                                 {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";

/// Queries that are logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The line, with `{placeholders}`; `{common}` and `{combined}` are already replaced.
    pub format: String,
    /// Which answers.
    pub classes: LogClasses,
}

/// Classes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogClasses {
    /// Answers with data, and delegations.
    pub success: bool,
    /// NXDOMAIN and NODATA.
    pub denial: bool,
    /// Everything else.
    pub error: bool,
}

impl LogClasses {
    /// Every answer.
    pub const ALL: Self = Self {
        success: true,
        denial: true,
        error: true,
    };
}

impl Default for Log {
    fn default() -> Self {
        Self {
            zones: vec![Zone::root()],
            format: COMMON.to_owned(),
            classes: LogClasses::ALL,
        }
    }
}
