//! What a zone says about a name (RFC 1034, section 4.3.2; RFC 4592; RFC 6672).

use super::zone::{Node, Zone};
use crate::query::{Answer, Query};
use crate::wire::{Data, Name, Rcode, Reader, Record, Type};

/// CNAMEs within the zone are followed so often.
const MOST_CNAMES: usize = 9;

/// What comes of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// The records.
    Success,
    /// The name is there because others are below it.
    Empty,
    /// No such name.
    NameError,
    /// No such records.
    NoData,
    /// Others know.
    Delegation,
    /// It cannot be said.
    Failure,
}

/// Records for each section.
#[derive(Clone, Debug)]
pub struct Found {
    /// What came of it.
    pub result: Result,
    /// Answers.
    pub answers: Vec<Record>,
    /// Authority.
    pub authorities: Vec<Record>,
    /// Additional records.
    pub additionals: Vec<Record>,
}

/// What a zone says.
#[derive(Clone, Debug)]
pub enum Said {
    /// This.
    All(Found),
    /// These CNAMEs; the name at their end the zone does not have, so the server is asked. Then
    /// [`Zone::completed`] says the rest.
    Part(Vec<Record>, Name),
}

impl From<Found> for Said {
    fn from(found: Found) -> Self {
        Self::All(found)
    }
}

/// A look-up under way.
struct Lookup<'a> {
    zone: &'a Zone,
    kind: Type,
    /// Signatures are wanted.
    signed: bool,
}

/// How far down towards a name the zone goes.
enum Walk<'a> {
    /// To the name.
    Whole(&'a Node),
    /// Others know.
    Cut(&'a Node),
    /// A name above has a DNAME.
    Dname(&'a Node),
    /// To this name above it.
    Above(Name),
}

impl Zone {
    /// What the zone says about a question for a name within it.
    pub fn answer(&self, query: &Query) -> Said {
        let name = query.question.name.lower();
        self.lookup(query).name(&name)
    }

    fn lookup(&self, query: &Query) -> Lookup<'_> {
        Lookup {
            zone: self,
            kind: query.question.kind,
            signed: query.edns.as_ref().is_some_and(|edns| edns.dnssec_ok),
        }
    }

    /// What the zone says, given what the server says about the name at the end of CNAMEs.
    pub fn completed(&self, query: &Query, mut answers: Vec<Record>, end: Option<Answer>) -> Found {
        let lookup = self.lookup(query);
        let result = match &end {
            None => Result::Success,
            Some(end) => match end.rcode {
                Rcode::NXDOMAIN => Result::NameError,
                Rcode::SERVFAIL => Result::Failure,
                Rcode::NOERROR if end.answers.is_empty() => Result::NoData,
                _ => Result::Success,
            },
        };
        answers.extend(end.into_iter().flat_map(|end| end.answers));
        let authorities = match result {
            Result::NameError | Result::NoData => lookup.soa(),
            _ => lookup.ns(),
        };
        Found {
            result,
            authorities,
            additionals: lookup.additional(&answers),
            answers,
        }
    }
}

impl Lookup<'_> {
    fn name(&self, name: &Name) -> Said {
        match self.walk(name) {
            Walk::Cut(node) => self.cut(Vec::new(), node).into(),
            Walk::Dname(node) => self.dname(node, name),
            Walk::Whole(node) => self.whole(node, name),
            Walk::Above(above) => self.missing(name, &above),
        }
    }

    /// From the apex down.
    fn walk(&self, name: &Name) -> Walk<'_> {
        let mut path = vec![name.clone()];
        let mut above = name.parent();
        while let Some(next) = above.filter(|next| next.is_within(&self.zone.origin)) {
            above = next.parent();
            path.push(next);
        }
        let mut deepest = self.zone.origin.clone();
        for next in path.into_iter().rev() {
            let Some(node) = self.zone.node(&next) else {
                return Walk::Above(deepest);
            };
            let itself = next == *name;
            if !itself && !node.of(Type::DNAME).is_empty() {
                return Walk::Dname(node);
            }
            let cut = !node.of(Type::NS).is_empty() && next != self.zone.origin;
            // DS is the parent's.
            if cut && !(itself && self.kind == Type::DS) {
                return Walk::Cut(node);
            }
            if itself {
                return Walk::Whole(node);
            }
            deepest = next;
        }
        Walk::Above(deepest)
    }

    fn cut(&self, answers: Vec<Record>, node: &Node) -> Found {
        let servers = node.of(Type::NS);
        let mut authorities = servers.to_vec();
        if self.signed {
            authorities.extend_from_slice(node.of(Type::DS));
            authorities.extend(node.signatures(Type::DS).cloned());
        }
        Found {
            result: Result::Delegation,
            answers,
            authorities,
            additionals: self.glue(servers),
        }
    }

    /// A DNAME above the name: the CNAME that comes of it.
    fn dname(&self, node: &Node, name: &Name) -> Said {
        let Some(record) = node.of(Type::DNAME).first() else {
            return failure().into();
        };
        let Data::Dname(to) = &record.data else {
            return failure().into();
        };
        let below = name.below(&record.name).into_iter().flatten();
        let Ok(target) = Name::from_labels(below.chain(to.labels())) else {
            // The name that comes of it is too long (RFC 6672, section 2.2).
            return Found {
                result: Result::Failure,
                answers: vec![record.clone()],
                authorities: Vec::new(),
                additionals: Vec::new(),
            }
            .into();
        };
        if target == *name {
            return failure().into();
        }
        let mut answers = node.of(Type::DNAME).to_vec();
        if self.signed {
            answers.extend(node.signatures(Type::DNAME).cloned());
        }
        answers.push(Record::new(
            name.clone(),
            record.ttl,
            Data::Cname(target.clone()),
        ));
        if self.kind == Type::CNAME {
            return Found {
                result: Result::Success,
                answers,
                authorities: self.ns(),
                additionals: Vec::new(),
            }
            .into();
        }
        self.follow(answers, target)
    }

    fn whole(&self, node: &Node, name: &Name) -> Said {
        if *name == self.zone.origin && self.kind == Type::NS {
            let servers = self.ns();
            return Found {
                result: Result::Success,
                additionals: self.glue(&servers),
                answers: servers,
                authorities: Vec::new(),
            }
            .into();
        }
        self.records(node, None)
    }

    /// The records of a node, as those of another name where that is what a wildcard stands for.
    fn records(&self, node: &Node, instead: Option<&Name>) -> Said {
        let named = |kind: Type| {
            let mut records = node.of(kind).to_vec();
            if self.signed {
                records.extend(node.signatures(kind).cloned());
            }
            if let Some(name) = instead {
                records
                    .iter_mut()
                    .for_each(|record| record.name = name.clone());
            }
            records
        };
        if self.kind != Type::CNAME
            && let [
                Record {
                    data: Data::Cname(target),
                    ..
                },
                ..,
            ] = node.of(Type::CNAME)
        {
            return self.follow(named(Type::CNAME), target.clone());
        }
        if node.of(self.kind).is_empty() {
            let mut authorities = self.soa();
            if self.signed {
                authorities.extend_from_slice(node.of(Type::NSEC));
                authorities.extend(node.signatures(Type::NSEC).cloned());
            }
            let result = match node.is_empty() {
                true => Result::Empty,
                false => Result::NoData,
            };
            return denial(result, authorities).into();
        }
        let answers = named(self.kind);
        let mut authorities = self.ns();
        if self.signed
            && let Some((_, before)) = instead.and_then(|name| self.zone.before(name))
        {
            // No closer name is there.
            authorities.extend_from_slice(before.of(Type::NSEC));
            authorities.extend(before.signatures(Type::NSEC).cloned());
        }
        Found {
            result: Result::Success,
            authorities,
            additionals: self.additional(&answers),
            answers,
        }
        .into()
    }

    /// No such name, unless a wildcard stands for it: the one below the closest name there is.
    fn missing(&self, name: &Name, closest: &Name) -> Said {
        if let Ok(wildcard) = closest.child(b"*")
            && let Some(node) = self.zone.node(&wildcard)
        {
            if node.is_empty() {
                return denial(Result::NoData, self.soa()).into();
            }
            return self.records(node, Some(name));
        }
        let mut authorities = self.soa();
        if self.signed {
            let before = self.zone.before(name);
            let wildcard = closest.child(b"*").ok();
            let no_wildcard = wildcard.and_then(|wildcard| self.zone.before(&wildcard));
            let second =
                no_wildcard.filter(|(name, _)| before.is_none_or(|(other, _)| other != *name));
            for (_, node) in before.into_iter().chain(second) {
                authorities.extend_from_slice(node.of(Type::NSEC));
                authorities.extend(node.signatures(Type::NSEC).cloned());
            }
        }
        denial(Result::NameError, authorities).into()
    }

    /// Follows CNAMEs as far as the zone goes.
    fn follow(&self, mut answers: Vec<Record>, mut target: Name) -> Said {
        for _ in 0..MOST_CNAMES {
            if !target.is_within(&self.zone.origin) {
                return Said::Part(answers, target);
            }
            let node = match self.walk(&target) {
                Walk::Cut(node) => return self.cut(answers, node).into(),
                // NS and SOA of the apex, wildcards and DNAMEs: as if it were asked for.
                Walk::Whole(node) if ![Type::NS, Type::SOA].contains(&self.kind) => node,
                _ => return Said::Part(answers, target),
            };
            let [
                Record {
                    data: Data::Cname(next),
                    name,
                    ..
                },
                ..,
            ] = node.of(Type::CNAME)
            else {
                answers.extend_from_slice(node.of(self.kind));
                if self.signed {
                    answers.extend(node.signatures(self.kind).cloned());
                }
                break;
            };
            if next == name {
                return failure().into();
            }
            answers.extend_from_slice(node.of(Type::CNAME));
            if self.signed {
                answers.extend(node.signatures(Type::CNAME).cloned());
            }
            target = next.clone();
        }
        Found {
            result: Result::Success,
            authorities: self.ns(),
            additionals: self.additional(&answers),
            answers,
        }
        .into()
    }

    fn apex(&self, kind: Type) -> Vec<Record> {
        let Some(node) = self.zone.node(&self.zone.origin) else {
            return Vec::new();
        };
        let mut records = node.of(kind).to_vec();
        if self.signed {
            records.extend(node.signatures(kind).cloned());
        }
        records
    }

    fn soa(&self) -> Vec<Record> {
        self.apex(Type::SOA)
    }

    fn ns(&self) -> Vec<Record> {
        self.apex(Type::NS)
    }

    /// Addresses of servers that are below what they serve.
    fn glue(&self, servers: &[Record]) -> Vec<Record> {
        let mut glue = Vec::new();
        for record in servers {
            if let Data::Ns(server) = &record.data
                && server.is_within(&record.name)
            {
                self.addresses(server, &mut glue);
            }
        }
        glue
    }

    fn addresses(&self, name: &Name, into: &mut Vec<Record>) {
        let Some(node) = self.zone.node(name) else {
            return;
        };
        for kind in [Type::A, Type::AAAA] {
            into.extend_from_slice(node.of(kind));
            if self.signed {
                into.extend(node.signatures(kind).cloned());
            }
        }
    }

    /// Addresses of the hosts that answers name.
    fn additional(&self, answers: &[Record]) -> Vec<Record> {
        let (mut additional, mut seen) = (Vec::new(), Vec::new());
        for record in answers {
            let target = match &record.data {
                Data::Mx(_, host) | Data::Srv { target: host, .. } => host.clone(),
                Data::Other(Type::SVCB | Type::HTTPS, bytes) => {
                    let name = bytes
                        .get(2..)
                        .and_then(|rest| Reader::new(rest).name().ok());
                    let Some(name) = name else { continue };
                    name
                }
                _ => continue,
            };
            if target.is_within(&self.zone.origin) && !seen.contains(&target) {
                self.addresses(&target, &mut additional);
                seen.push(target);
            }
        }
        additional
    }
}

fn denial(result: Result, authorities: Vec<Record>) -> Found {
    Found {
        result,
        answers: Vec::new(),
        authorities,
        additionals: Vec::new(),
    }
}

fn failure() -> Found {
    denial(Result::Failure, Vec::new())
}
