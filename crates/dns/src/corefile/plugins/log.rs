//! `log`: log of queries.

use crate::corefile::Zone;
use crate::corefile::reader::{Reader, Result};

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
    const NONE: Self = Self {
        success: false,
        denial: false,
        error: false,
    };

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

pub(super) fn parse(reader: &mut Reader<'_>) -> Vec<Log> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let args = reader.args();
        let mut log = Log::default();
        let mut zones = args.as_slice();
        // The format comes after a name: a word alone is a name, whatever it looks like.
        if let [_, .., format] = zones
            && format.contains('{')
        {
            log.format = format
                .replace("{common}", COMMON)
                .replace("{combined}", &format!("{COMMON} \"{{>opcode}}\""));
            zones = &zones[..zones.len() - 1];
        }
        if !zones.is_empty() {
            log.zones.clear();
        }
        for name in zones {
            match name.parse::<Zone>() {
                Ok(zone) => log.zones.push(zone.lower()),
                Err(error) => reader.warn(format!("{name:?} is no name: {error}: it is left out")),
            }
        }
        let mut classes = LogClasses::NONE;
        reader.options(|reader, name| match name {
            "class" => class(reader, &mut classes),
            _ => Err(reader.unknown_option(&["class"])),
        });
        if classes != LogClasses::NONE {
            log.classes = classes;
        }
        all.push(log);
        Ok(())
    });
    all
}

fn class(reader: &mut Reader<'_>, classes: &mut LogClasses) -> Result<()> {
    const KNOWN: [&str; 4] = ["all", "success", "denial", "error"];
    for name in reader.some_args("all, success, denial or error")? {
        match name {
            "all" => *classes = LogClasses::ALL,
            "success" => classes.success = true,
            "denial" => classes.denial = true,
            "error" => classes.error = true,
            _ => return Err(reader.unknown_value("class", name, &KNOWN)),
        }
    }
    Ok(())
}
