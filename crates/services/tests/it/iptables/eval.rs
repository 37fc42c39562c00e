//! What iptables' rules do with a new connection: the rules' text, read as the kernel reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use linux::fake::{Fake, Iptables};
use nft::IpFamily;
use services::explain::{Origin, Question};

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It goes where it is addressed to.
    Untouched,
    /// It goes to this endpoint, with the node's address where so said.
    To(SocketAddr, bool),
    /// The sender is told.
    Rejected,
    /// The sender hears nothing.
    Dropped,
}

/// The tables of one family, and the sources that the `recent` match remembers.
pub struct Rules {
    nat: Iptables,
    filter: Iptables,
    recent: BTreeSet<(String, IpAddr)>,
    own: Vec<IpAddr>,
}

/// A new connection on its way.
struct Packet {
    question: Question,
    link: String,
    to: SocketAddr,
    translated: bool,
    mark: u32,
}

/// How a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fell,
    Accept,
    Drop,
    Reject,
}

/// Random matches, steered: as many answers as were drawn so far, and then no more.
struct Draws<'a> {
    script: &'a [bool],
    used: usize,
    /// The probability of the draw that has no answer yet.
    open: Option<f64>,
}

impl Draws<'_> {
    fn draw(&mut self, probability: f64) -> bool {
        let answer = self.script.get(self.used).copied();
        self.used += 1;
        if answer.is_none() && self.open.is_none() {
            self.open = Some(probability);
        }
        answer.unwrap_or(true)
    }
}

impl Rules {
    /// The tables that were written into a kernel in memory; `own` are the node's addresses.
    pub fn of(fake: &Fake, v6: bool, own: &[IpAddr]) -> Self {
        let family = if v6 { IpFamily::V6 } else { IpFamily::V4 };
        let table = |name: &str| {
            let key = (family, name.to_owned());
            let found = fake.iptables.get(&key).cloned();
            found.unwrap_or_else(|| Iptables::new(name).unwrap())
        };
        Self {
            nat: table("nat"),
            filter: table("filter"),
            recent: BTreeSet::new(),
            own: own.to_vec(),
        }
    }

    /// Every fate that a connection may have, with its probability. `link` is the one by which it
    /// comes, where it does by one.
    pub fn fates(&mut self, question: &Question, link: &str) -> BTreeMap<Fate, f64> {
        let mut fates = BTreeMap::new();
        let mut scripts = vec![(Vec::new(), 1.0)];
        let before = self.recent.clone();
        while let Some((script, weight)) = scripts.pop() {
            let mut draws = Draws {
                script: &script,
                used: 0,
                open: None,
            };
            self.recent.clone_from(&before);
            let fate = self.fate(question, link, &mut draws);
            match draws.open {
                None => *fates.entry(fate).or_default() += weight,
                Some(probability) => {
                    let with = |answer| script.iter().copied().chain([answer]).collect();
                    scripts.push((with(true), weight * probability));
                    scripts.push((with(false), weight * (1.0 - probability)));
                }
            }
        }
        self.recent = before;
        fates
    }

    /// The fate of one connection that draws these numbers; the `recent` match remembers it.
    pub fn connect(&mut self, question: &Question, link: &str, script: &[bool]) -> Fate {
        let mut draws = Draws {
            script,
            used: 0,
            open: None,
        };
        self.fate(question, link, &mut draws)
    }

    fn fate(&mut self, question: &Question, link: &str, draws: &mut Draws<'_>) -> Fate {
        let mut packet = Packet {
            question: *question,
            link: link.to_owned(),
            to: SocketAddr::new(question.destination, question.port),
            translated: false,
            mark: 0,
        };
        let from_node = question.origin == Origin::Node;
        let hook = if from_node { "OUTPUT" } else { "PREROUTING" };
        let nat = self.nat.clone();
        self.walk(&nat, hook, &mut packet, draws);
        let here = self.is_own(packet.to.ip());
        let hooks: &[&str] = match (from_node, here) {
            (true, true) => &["OUTPUT", "INPUT"],
            (true, false) => &["OUTPUT"],
            (false, true) => &["INPUT"],
            (false, false) => &["FORWARD"],
        };
        let filter = self.filter.clone();
        for hook in hooks {
            match self.walk(&filter, hook, &mut packet, draws) {
                End::Drop => return Fate::Dropped,
                End::Reject => return Fate::Rejected,
                End::Fell | End::Accept => {}
            }
        }
        if !packet.translated {
            return Fate::Untouched;
        }
        let masqueraded = self.walk(&nat, "POSTROUTING", &mut packet, draws) == End::Accept;
        assert_eq!(packet.mark, 0, "the mark does not leave with the packet");
        Fate::To(packet.to, masqueraded)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.own.contains(&ip)
    }

    fn walk(
        &mut self,
        table: &Iptables,
        chain: &str,
        packet: &mut Packet,
        draws: &mut Draws<'_>,
    ) -> End {
        let rules = table.chains.get(chain);
        for rule in rules.unwrap_or_else(|| panic!("chain {chain} is not there")) {
            let words = words(rule);
            let Some(target) = self.matches(&words, packet, draws) else {
                continue;
            };
            let option = |name: &str| {
                let at = words.iter().position(|word| word == name).unwrap();
                words[at + 1].clone()
            };
            match target.as_str() {
                "" => {}
                "ACCEPT" | "MASQUERADE" => return End::Accept,
                "DROP" => return End::Drop,
                "REJECT" => return End::Reject,
                "RETURN" => return End::Fell,
                "MARK" => {
                    let (value, mask) = masked(&option("--set-xmark"));
                    packet.mark = (packet.mark & !mask) ^ value;
                }
                "DNAT" => {
                    packet.to = option("--to-destination").parse().unwrap();
                    packet.translated = true;
                    return End::Accept;
                }
                chain => match self.walk(table, chain, packet, draws) {
                    End::Fell => {}
                    end => return end,
                },
            }
        }
        End::Fell
    }

    /// The rule's target where the packet matches, empty where it has none.
    fn matches(
        &mut self,
        words: &[String],
        packet: &Packet,
        draws: &mut Draws<'_>,
    ) -> Option<String> {
        let mut words = words.iter().map(String::as_str);
        let mut not = false;
        let mut recent = None;
        let mut target = String::new();
        while let Some(word) = words.next() {
            if word == "!" {
                not = true;
                continue;
            }
            let mut value = || words.next().unwrap();
            let holds = match word {
                "-s" => within(value(), packet.question.source),
                "-d" => within(value(), packet.to.ip()),
                "-i" => {
                    let link = value();
                    match link.strip_suffix('+') {
                        Some(prefix) => packet.link.starts_with(prefix),
                        None => packet.link == link,
                    }
                }
                "-p" => value() == packet.question.protocol.word().to_lowercase(),
                "--dport" => value() == packet.to.port().to_string(),
                "--dst-type" => value() == "LOCAL" && self.is_own(packet.to.ip()),
                "--src-type" => value() == "LOCAL" && self.is_own(packet.question.source),
                "--ctstate" => value().split(',').any(|state| match state {
                    "NEW" => true,
                    "DNAT" => packet.translated,
                    "INVALID" | "RELATED" | "ESTABLISHED" => false,
                    other => panic!("state {other}"),
                }),
                "--mark" => {
                    let (value, mask) = masked(value());
                    packet.mark & mask == value
                }
                "--probability" => draws.draw(value().parse().unwrap()),
                "--rcheck" | "--set" => {
                    recent = Some(word);
                    true
                }
                "--name" => {
                    let key = (value().to_owned(), packet.question.source);
                    match recent {
                        Some("--set") => {
                            self.recent.insert(key);
                            true
                        }
                        _ => self.recent.contains(&key),
                    }
                }
                "-m" | "--comment" | "--mode" | "--seconds" | "--mask" => {
                    value();
                    true
                }
                "--reap" | "--rsource" | "--random-fully" => true,
                "-j" => {
                    target = value().to_owned();
                    true
                }
                "--set-xmark" | "--to-destination" | "--reject-with" => {
                    value();
                    true
                }
                other => panic!("word {other}"),
            };
            if holds == std::mem::take(&mut not) {
                return None;
            }
        }
        Some(target)
    }
}

fn within(range: &str, ip: IpAddr) -> bool {
    range.parse::<IpNet>().unwrap().contains(&ip)
}

fn masked(text: &str) -> (u32, u32) {
    let number = |hex: &str| u32::from_str_radix(hex.strip_prefix("0x").unwrap(), 16).unwrap();
    let (value, mask) = text.split_once('/').unwrap();
    (number(value), number(mask))
}

/// Words, of which those in quotes are one.
fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in rule.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}
