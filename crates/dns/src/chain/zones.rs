//! `file` and `transfer`: zones out of files, read, read again, and given away whole.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::chores::Seen;
use super::{Chain, Reply, Way, coded};
use crate::corefile::plugins::{self as options, TransferTo};
use crate::plugins::file::{self, Read, Said, Zone};
use crate::plugins::transfer::{self, Transfer, Verdict};
use crate::plugins::zones::Zones;
use crate::query::{Answer, Failure, Outcome, Query};
use crate::wire::{Class, Data, Header, Message, Name, Opcode, Question, Rcode, Record, Type};

/// A server is told of a change so often until it says that it has heard.
const TRIES: u32 = 3;
/// It has so long to say so.
const PATIENCE: Duration = Duration::from_secs(2);

/// `file`: its zones, as they were last read.
#[derive(Debug)]
pub(super) struct Files {
    fallthrough: Zones,
    zones: Vec<Source>,
}

/// A zone and its file.
#[derive(Debug)]
struct Source {
    origin: Name,
    options: options::ZoneFile,
    /// None until the file is there for the first time.
    zone: ArcSwapOption<Zone>,
    seen: Seen,
}

impl Files {
    pub(super) fn new(options: &options::File) -> Self {
        let zones = options.files.iter().flat_map(|file| {
            file.zones.iter().map(|origin| Source {
                origin: origin.clone(),
                options: file.clone(),
                zone: ArcSwapOption::empty(),
                seen: Seen::default(),
            })
        });
        Self {
            fallthrough: Zones::new(&options.fallthrough),
            zones: zones.collect(),
        }
    }

    /// The one with the longest name that has this one.
    fn of(&self, name: &Name) -> Option<&Source> {
        let within = self
            .zones
            .iter()
            .filter(|source| name.is_within(&source.origin));
        within.max_by_key(|source| source.origin.as_bytes().len())
    }
}

impl Chain {
    /// What `file` says.
    pub(super) async fn of_files(
        &self,
        files: &Files,
        way: Way<'_>,
        query: &Query,
    ) -> Option<Reply> {
        let question = &query.question;
        let Some(source) = files.of(&question.name) else {
            // A server of zones refuses what is in none of them, where nobody else is asked.
            let alone = self.last == "file";
            return alone.then(|| Err(Failure::code(Rcode::REFUSED, "file")));
        };
        let Some(zone) = source.zone.load_full() else {
            return Some(Err(Failure::code(Rcode::SERVFAIL, "file")));
        };
        if [Type::AXFR, Type::IXFR].contains(&question.kind) {
            return Some(Err(Failure::code(Rcode::REFUSED, "file")));
        }
        let found = match zone.answer(query) {
            Said::All(found) => found,
            Said::Part(records, target) => {
                let end = way.ask(query, target, question.kind).await;
                zone.completed(query, records, end)
            }
        };
        if file::is_unknown(&found) && files.fallthrough.contain(&question.name) {
            return None;
        }
        Some(file::answer(found).map(Outcome::Answer))
    }

    /// What `transfer` says.
    pub(super) fn transferred(&self, transfer: &Transfer, query: &Query) -> Option<Reply> {
        let has = match transfer.judge(query) {
            Verdict::Next => return None,
            Verdict::Code(rcode) => return Some(Err(Failure::code(rcode, "transfer"))),
            Verdict::Refused => {
                let by = "transfer";
                let refused = Answer {
                    by,
                    ..coded(Rcode::REFUSED)
                };
                return Some(Ok(Outcome::Answer(refused)));
            }
            Verdict::Granted(has) => has,
        };
        let name = &query.question.name;
        let records = self.whole(name, has)?;
        let serial = match records.first().map(|record| &record.data) {
            Some(Data::Soa(soa)) => soa.serial,
            _ => 0,
        };
        let (count, client) = (records.len(), query.client.ip().to_canonical());
        let outcome = transfer::messages(records.into_iter(), "transfer");
        let what = match &outcome {
            Outcome::Messages(_) => format!("transfer of {count} records of zone"),
            _ => "noop, incremental transfer for up to date zone".to_owned(),
        };
        self.resources.output.line(&format!(
            "[INFO] plugin/transfer: Outgoing {what} \"{name}\" to {client} for {serial} SOA serial"
        ));
        Some(Ok(outcome))
    }

    /// All records of a zone, from the first plugin that has it.
    fn whole(&self, name: &Name, has: Option<u32>) -> Option<Vec<Record>> {
        let view = self.resources.view.load();
        if let (Some(kubernetes), Some(view)) = (&self.kubernetes, view.as_deref()) {
            let external = self.external.as_ref();
            let records = external
                .and_then(|external| external.transfer(kubernetes, view, name, has))
                .or_else(|| kubernetes.transfer(view, name, has));
            if let Some(records) = records {
                return Some(records.collect());
            }
        }
        let mut zones = self.files.iter().flat_map(|files| &files.zones);
        let source = zones.find(|source| source.origin == *name)?;
        source.zone.load_full().map(|zone| zone.transfer(has))
    }

    /// Reads all zones for the first time. What is wrong with a file is an error; that it is not
    /// there only if nobody looks for it later.
    pub(super) fn read_zones(&self) -> Result<(), String> {
        for source in self.files.iter().flat_map(|files| &files.zones) {
            let path = Path::new(&source.options.path);
            match source.seen.changed(path) {
                Ok(text) => {
                    let Some((text, _)) = text else { continue };
                    let zone = source.read(&text, &Read::All)?;
                    source.zone.store(zone.map(Arc::new));
                }
                Err(error) if source.options.reload.is_zero() => {
                    return Err(format!("{}: {error}", source.options.path));
                }
                Err(error) => self.resources.output.line(&format!(
                    "[WARNING] plugin/file: Failed to open \"{}: {error}\": trying again in {:?}",
                    source.options.path, source.options.reload
                )),
            }
        }
        Ok(())
    }

    /// How often zones are read again, by their numbers.
    pub(super) fn zone_reloads(&self) -> Vec<(usize, Duration)> {
        let zones = self.files.iter().flat_map(|files| &files.zones);
        zones
            .map(|source| source.options.reload)
            .enumerate()
            .collect()
    }

    /// Reads a zone again; its name if it has changed.
    pub(super) fn read_zone_again(&self, number: usize) -> Option<Name> {
        let source = self.files.as_ref()?.zones.get(number)?;
        let (origin, path) = (&source.origin, &source.options.path);
        let output = &self.resources.output;
        match source.again() {
            Ok(None) => None,
            Ok(Some(zone)) => {
                let serial = zone.serial();
                source.zone.store(Some(Arc::new(zone)));
                output.line(&format!(
                    "[INFO] plugin/file: Successfully reloaded zone \"{origin}\" in \"{path}\" \
                     with {serial} SOA serial"
                ));
                Some(origin.clone())
            }
            Err(error) => {
                let line = format!("[ERROR] plugin/file: Parsing zone \"{origin}\": {error}");
                output.line(&line);
                None
            }
        }
    }

    /// Tells the servers of all zones that they are there.
    pub(super) async fn notify_all(&self) {
        for source in self.files.iter().flat_map(|files| &files.zones) {
            self.notify(&source.origin).await;
        }
    }

    /// Tells those who have a zone from here that it has changed (RFC 1996).
    pub(super) async fn notify(&self, zone: &Name) {
        let Some(rule) = self
            .transfer
            .as_ref()
            .and_then(|transfer| transfer.of(zone))
        else {
            return;
        };
        for to in &rule.to {
            if let TransferTo::Server(server) = to
                && let Err(error) = notify(zone, *server, rule.source).await
            {
                self.resources.output.line(&format!(
                    "[WARNING] plugin/file: Failed sending notifies: notify for zone \"{zone}\" \
                     was not accepted by \"{server}\": {error}"
                ));
            }
        }
    }
}

impl Source {
    fn read(&self, text: &str, what: &Read) -> Result<Option<Zone>, String> {
        let include = &mut |path: &str| {
            let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Zone::read(text, &self.origin, &self.options.path, include, what)
    }

    /// The zone, if there is something new about it: the file's time of change where that is
    /// asked for, otherwise the serial.
    fn again(&self) -> Result<Option<Zone>, String> {
        let path = Path::new(&self.options.path);
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        if self.options.reload_by_mtime {
            let Some((text, _)) = self.seen.changed(path).map_err(told)? else {
                return Ok(None);
            };
            return self.read(&text, &Read::All);
        }
        let text = String::from_utf8_lossy(&std::fs::read(path).map_err(told)?).into_owned();
        match self.zone.load_full() {
            Some(zone) => self.read(&text, &Read::Unless(zone.serial())),
            None => self.read(&text, &Read::All),
        }
    }
}

async fn notify(zone: &Name, to: SocketAddr, from: Option<IpAddr>) -> Result<(), String> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let told = |error: std::io::Error| error.to_string();
    let message = Message {
        header: Header {
            id: rand::random(),
            opcode: Opcode::NOTIFY,
            authoritative: true,
            ..Header::default()
        },
        question: Some(Question {
            name: zone.clone(),
            kind: Type::SOA,
            class: Class::IN,
        }),
        ..Message::default()
    };
    let mut last = String::new();
    for _ in 0..TRIES {
        let socket = UdpSocket::bind((from.unwrap_or(any), 0))
            .await
            .map_err(told)?;
        socket.connect(to).await.map_err(told)?;
        last = match timeout(PATIENCE, exchange(&socket, &message)).await {
            Ok(Ok(Rcode::NOERROR)) => return Ok(()),
            Ok(Ok(rcode)) => format!("rcode was \"{rcode}\""),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
    }
    Err(last)
}

/// Asks, and waits for what belongs to it.
async fn exchange(socket: &UdpSocket, message: &Message) -> std::io::Result<Rcode> {
    socket.send(&message.to_bytes()).await?;
    let mut buffer = [0; 1500];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Ok(reply) = Message::parse(&buffer[..len])
            && reply.header.response
            && reply.header.id == message.header.id
        {
            return Ok(reply.header.rcode);
        }
    }
}
