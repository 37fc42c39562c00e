//! `file` and `transfer`: whole zones.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::corefile::reader::{Reader, Result};
use crate::corefile::{Zone, value};

/// Zones out of master files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// The files.
    pub files: Vec<ZoneFile>,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
}

/// A master file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneFile {
    /// The file; it need not be there from the start unless `reload` is zero.
    pub path: String,
    /// The zones it is read for.
    pub zones: Vec<Zone>,
    /// How often it is looked at; zero is never again.
    pub reload: Duration,
    /// It is read again when its time of change differs; else when the SOA's serial does.
    pub reload_by_mtime: bool,
}

/// Who may have whole zones, and who is told of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// The zones.
    pub zones: Vec<Zone>,
    /// Who.
    pub to: Vec<TransferTo>,
    /// The address notifications are sent from.
    pub source: Option<IpAddr>,
}

/// Who may have whole zones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferTo {
    /// Everyone; nobody is notified.
    Anyone,
    /// This server, which is notified of changes.
    Server(SocketAddr),
}

pub(super) fn parse_file(reader: &mut Reader<'_>) -> Option<File> {
    const OPTIONS: [&str; 3] = ["fallthrough", "reload", "reload_by_mtime"];
    let mut file = File::default();
    // As in CoreDNS, an option of one file holds for the next ones too, and `fallthrough` for all.
    let (mut reload, mut by_mtime) = (Duration::from_secs(60), false);
    reader.each(|reader| {
        let path = reader.value("a file and zones")?;
        let args = reader.args();
        let (path, zones) = (reader.file(path), reader.zones(&args));
        reader.options(|reader, name| {
            match name {
                "fallthrough" => file.fallthrough = reader.fallthrough(),
                "reload" => {
                    let args = reader.some_args("a duration; 0s is never again")?;
                    reload = reader.check(value::duration(args[0]))?.or_zero();
                }
                "reload_by_mtime" => by_mtime = true,
                "upstream" => {
                    reader.args();
                    reader.warn("upstream is without effect, here as in CoreDNS");
                }
                _ => return Err(reader.unknown_option(&OPTIONS)),
            }
            Ok(())
        });
        file.files.push(ZoneFile {
            path,
            zones,
            reload,
            reload_by_mtime: by_mtime,
        });
        Ok(())
    });
    (!file.files.is_empty()).then_some(file)
}

pub(super) fn parse_transfer(reader: &mut Reader<'_>) -> Vec<Transfer> {
    let mut all = Vec::new();
    reader.each(|reader| {
        let args = reader.args();
        let mut transfer = Transfer {
            zones: reader.zones(&args),
            to: Vec::new(),
            source: None,
        };
        let before = reader.report.errors.len();
        reader.options(|reader, name| match name {
            "to" => transfer_to(reader, &mut transfer),
            "source" => transfer_source(reader, &mut transfer),
            _ => Err(reader.unknown_option(&["to", "source"])),
        });
        if transfer.to.is_empty() && reader.report.errors.len() == before {
            return Err(reader.error("\"to\" is missing: * is everyone, an address one server"));
        }
        all.push(transfer);
        Ok(())
    });
    all
}

fn transfer_to(reader: &mut Reader<'_>, transfer: &mut Transfer) -> Result<()> {
    for host in reader.some_args("* or addresses")? {
        transfer.to.push(if host == "*" {
            TransferTo::Anyone
        } else {
            TransferTo::Server(reader.check(value::socket_address(host, 53))?)
        });
    }
    Ok(())
}

fn transfer_source(reader: &mut Reader<'_>, transfer: &mut Transfer) -> Result<()> {
    let text = reader.one_arg("an address")?;
    if transfer.source.is_some() {
        return Err(reader.error("source may be there only once"));
    }
    match text.parse() {
        Ok(address) => transfer.source = Some(address),
        Err(_) => return Err(reader.error(format!("the source {text:?} is no IP address"))),
    }
    Ok(())
}
