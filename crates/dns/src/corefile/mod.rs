//! The Corefile as values: what `CoreDNS` would make of the same text, with its defaults.
//!
//! Nothing here reads a file, an environment variable or the clock by itself: what the text
//! refers to comes from [`Sources`]; [`files`] is the real one.

mod address;
mod blocks;
pub mod files;
mod lexer;
mod pattern;
pub mod plugins;
mod problem;
mod reader;
mod sources;
mod value;
mod variables;
mod zone;

use std::sync::Arc;

use blocks::Block;
use problem::Report;
use reader::Surroundings;

pub use pattern::Pattern;
pub use plugins::Plugins;
pub use problem::{Error, ErrorKind, Warning};
pub use sources::{NoSources, Sources};

/// A zone's name, in lower case.
pub type Zone = crate::wire::Name;

/// A Corefile.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Corefile {
    /// Its server blocks, in the order of the text.
    pub servers: Vec<ServerBlock>,
}

/// One server block: what is served where, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerBlock {
    /// The zones, transports and ports it serves; never empty.
    pub addresses: Vec<Address>,
    /// What it does with a query.
    pub plugins: Plugins,
    /// Where it starts.
    pub at: Position,
}

/// One key of a server block.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The transport.
    pub scheme: Scheme,
    /// The zone.
    pub zone: Zone,
    /// The port.
    pub port: u16,
}

/// The transport of a server or of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Scheme {
    /// DNS over UDP and TCP.
    #[default]
    Dns,
    /// DNS over TLS (RFC 7858).
    Tls,
    /// DNS over HTTPS (RFC 8484).
    Https,
}

impl Scheme {
    /// The port when none is given; that of plain DNS can be set for servers (`-dns.port`).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Dns => 53,
            Self::Tls => 853,
            Self::Https => 443,
        }
    }

    /// What stands before `://`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Https => "https",
        }
    }
}

/// A place in the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The file, as it was given or imported.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What is served when a Corefile has no server block.
const NOTHING_CONFIGURED: &str = ". {\nwhoami\nlog\n}\n";

/// The Corefile that a text is. `file` is its name, to which imports are relative; `port` is that
/// of plain DNS where none is named.
///
/// # Errors
/// Everything that is wrong with it, in the order of the text.
pub fn parse(
    file: &str,
    text: &str,
    port: u16,
    sources: &dyn Sources,
) -> Result<(Corefile, Vec<Warning>), Vec<Error>> {
    let mut report = Report::default();
    let (mut blocks, mut files) = blocks::blocks(file, text, sources, &mut report);
    if blocks.is_empty() && report.errors.is_empty() {
        (blocks, files) = blocks::blocks(file, NOTHING_CONFIGURED, sources, &mut report);
        report.warn(Warning {
            at: Position {
                file: file.into(),
                line: 1,
            },
            plugin: None,
            message: "there is no server block: as with CoreDNS, whoami and log are served"
                .to_owned(),
        });
    }
    let mut servers = Vec::new();
    for block in &blocks {
        servers.extend(server(block, &files, port, &mut report));
    }
    address::overlaps(&servers, &mut report);
    if report.errors.is_empty() {
        return Ok((Corefile { servers }, report.warnings));
    }
    let order = |at: &Position| (files.order(&at.file), at.line);
    report.errors.sort_by_key(|error| order(&error.at));
    Err(report.errors)
}

/// The server that a block describes.
fn server(
    block: &Block,
    files: &blocks::FileNames,
    port: u16,
    report: &mut Report,
) -> Option<ServerBlock> {
    let at = files.position(block.keys.first()?);
    let addresses = address::addresses(&block.keys, files, port, report);
    let mut surroundings = Surroundings {
        zones: addresses.iter().map(|one| one.zone.clone()).collect(),
        root: None,
    };
    let plugins = Plugins::parse(&block.plugins, files, &mut surroundings, report);
    let server = ServerBlock {
        addresses,
        plugins,
        at,
    };
    address::transports(&server, report);
    Some(server)
}

#[cfg(test)]
mod tests;
