//! A zone's records, ready for look-ups.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::wire::{Data, Name, Record, Soa, Type};
use crate::zonefile::{self, Include};

/// A zone.
#[derive(Clone, Debug)]
pub struct Zone {
    pub(super) origin: Name,
    soa: Record,
    /// Every name, and every name that is only there because others are below it.
    nodes: HashMap<Name, Node>,
    /// The names with NSEC records, by their keys in canonical order.
    nsec: Vec<(Box<[u8]>, Name)>,
    records: usize,
}

/// The records of a name, by type. A name in the middle of others has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Node(SmallVec<[(Type, Vec<Record>); 1]>);

/// What a file is read for.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Everything.
    All,
    /// Everything, unless the serial is this one.
    Unless(u32),
}

impl Node {
    pub fn of(&self, kind: Type) -> &[Record] {
        let found = self.0.iter().find(|(there, _)| *there == kind);
        found.map_or(&[][..], |(_, records)| records.as_slice())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The signatures over the records of a type.
    pub fn signatures(&self, covered: Type) -> impl Iterator<Item = &Record> {
        let covered = covered.0.to_be_bytes();
        let over = move |record: &&Record| match &record.data {
            Data::Other(_, bytes) => bytes.starts_with(&covered),
            _ => false,
        };
        self.of(Type::RRSIG).iter().filter(over)
    }

    fn add(&mut self, record: Record) {
        let kind = record.kind();
        match self.0.iter_mut().find(|(there, _)| *there == kind) {
            Some((_, records)) if records.contains(&record) => {}
            Some((_, records)) => records.push(record),
            None => self.0.push((kind, vec![record])),
        }
    }
}

impl Zone {
    /// Reads a zone's file; nothing where the serial says that there is nothing new.
    ///
    /// # Errors
    /// What is wrong with the file, with its name and line.
    pub fn read(
        text: &str,
        origin: &Name,
        file: &str,
        include: Include<'_>,
        what: &Read,
    ) -> Result<Option<Self>, String> {
        let mut zone = Builder {
            origin: origin.lower(),
            soa: None,
            nodes: HashMap::new(),
            records: 0,
            unchanged: false,
        };
        let each = &mut |record| zone.take(record, what);
        let read = zonefile::parse(text, &origin.lower(), file, include, each);
        if zone.unchanged {
            return Ok(None);
        }
        read.map_err(|error| error.to_string())?;
        zone.done(file).map(Some)
    }

    /// Its name.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether it has no records; none has not at least one.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Its version.
    pub fn serial(&self) -> u32 {
        match &self.soa.data {
            Data::Soa(soa) => soa.serial,
            _ => 0,
        }
    }

    pub(super) fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The name's node, or else that of the name before it that has an NSEC record.
    pub(super) fn before(&self, name: &Name) -> Option<(&Name, &Node)> {
        let key = canonical(name);
        let at = self.nsec.partition_point(|(there, _)| **there <= *key);
        let (_, name) = self.nsec.get(at.checked_sub(1)?)?;
        self.nodes.get(name).map(|node| (name, node))
    }

    /// All records: the SOA first and last, then those of the apex, then the others in canonical
    /// order; the SOA alone for who has this version already.
    pub fn transfer(&self, has: Option<u32>) -> Vec<Record> {
        if has == Some(self.serial()) {
            return vec![self.soa.clone()];
        }
        let mut names: Vec<&Name> = self.nodes.keys().collect();
        names.sort_by_cached_key(|name| canonical(name));
        let mut records = Vec::with_capacity(self.records + 1);
        records.push(self.soa.clone());
        for name in names {
            let sets = self.nodes.get(name).into_iter().flat_map(|node| &node.0);
            let but_soa = sets.filter(|(kind, _)| *kind != Type::SOA);
            records.extend(but_soa.flat_map(|(_, set)| set.iter().cloned()));
        }
        records.push(self.soa.clone());
        records
    }
}

struct Builder {
    origin: Name,
    soa: Option<Record>,
    nodes: HashMap<Name, Node>,
    records: usize,
    unchanged: bool,
}

impl Builder {
    fn take(&mut self, mut record: Record, what: &Read) -> Result<(), String> {
        let (kind, origin) = (record.kind(), &self.origin);
        if let Data::Soa(soa) = &record.data {
            if record.name != *origin {
                let name = &record.name;
                return Err(format!("the SOA is of {name}, the zone is {origin}"));
            }
            if self.soa.is_none() && *what == Read::Unless(soa.serial) {
                self.unchanged = true;
                return Err("nothing new".to_owned());
            }
        }
        // Nobody asks this zone for what is outside it.
        if !record.name.is_within(origin) {
            return Ok(());
        }
        if [Type::NSEC3, Type::NSEC3PARAM].contains(&kind) {
            return Err("zones with NSEC3 are not supported, only those with NSEC".to_owned());
        }
        lower(&mut record);
        if kind == Type::SOA {
            // A transfer that was kept as a file ends with the SOA it began with.
            if self.soa.is_some() {
                return Ok(());
            }
            self.soa = Some(record.clone());
        }
        self.records += 1;
        self.ancestors(&record.name);
        self.nodes
            .entry(record.name.clone())
            .or_default()
            .add(record);
        Ok(())
    }

    /// The names above, up to the apex, are there too.
    fn ancestors(&mut self, name: &Name) {
        let mut above = name.parent();
        while let Some(name) = above.filter(|name| name.is_within(&self.origin)) {
            if self.nodes.contains_key(&name) {
                return;
            }
            above = name.parent();
            self.nodes.insert(name, Node::default());
        }
    }

    fn done(self, file: &str) -> Result<Zone, String> {
        let Self {
            origin,
            soa,
            nodes,
            records,
            ..
        } = self;
        let soa = soa.ok_or_else(|| format!("{file}: there is no SOA for {origin}"))?;
        let signed = nodes
            .iter()
            .filter(|(_, node)| !node.of(Type::NSEC).is_empty());
        let mut nsec: Vec<_> = signed
            .map(|(name, _)| (canonical(name), name.clone()))
            .collect();
        nsec.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        Ok(Zone {
            origin,
            soa,
            nodes,
            nsec,
            records,
        })
    }
}

/// Owners, and names in data that compression leads to, are in lower case.
fn lower(record: &mut Record) {
    record.name = record.name.lower();
    match &mut record.data {
        Data::Ns(name) | Data::Cname(name) | Data::Mx(_, name) => *name = name.lower(),
        Data::Soa(soa) => {
            let Soa {
                primary, mailbox, ..
            } = &mut **soa;
            *primary = primary.lower();
            *mailbox = mailbox.lower();
        }
        _ => {}
    }
}

/// A key whose order is the canonical one (RFC 4034, section 6.1): labels from the last, the end
/// of a label before any byte.
fn canonical(name: &Name) -> Box<[u8]> {
    let mut key = Vec::with_capacity(name.as_bytes().len() * 2);
    let labels: SmallVec<[&[u8]; 16]> = name.labels().collect();
    for label in labels.iter().rev() {
        for byte in label.iter().map(u8::to_ascii_lowercase) {
            key.push(byte);
            if byte == 0 {
                key.push(1);
            }
        }
        key.extend_from_slice(&[0, 0]);
    }
    key.into()
}
