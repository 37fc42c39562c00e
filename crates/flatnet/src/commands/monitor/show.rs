//! A line for an event, its columns below each other.

use flows::{By, Drop, End, Event};
use jiff::Timestamp;

use super::merge::Shown;

const HEADER: [&str; 6] = ["TIME (UTC)", "NODE", "SIDE", "FROM", "TO", "DENIED BY"];
/// A column grows with what is in it, up to here.
const WIDEST: usize = 60;
/// Policies that are named in a line.
const NAMED: usize = 3;

/// The columns as they are so far.
#[derive(Debug)]
pub(super) struct Table {
    colours: bool,
    widths: [usize; 5],
}

impl Table {
    /// In colours, or not.
    pub(super) fn new(colours: bool) -> Self {
        Self {
            colours,
            widths: [12, 5, 7, 24, 32],
        }
    }

    /// The columns' names.
    pub(super) fn header(&self) -> String {
        let [front @ .., last] = HEADER.map(str::to_owned);
        self.aligned(&front, &last)
    }

    /// Widens the columns for what will be in them.
    pub(super) fn fit(&mut self, shown: &[Shown]) {
        for one in shown {
            if let Shown::Event(Event::Drop(drop)) = one {
                for (width, text) in self.widths.iter_mut().zip(columns(drop)) {
                    *width = (*width).max(text.chars().count().min(WIDEST));
                }
            }
        }
    }

    /// One line; none for further packets of what was shown.
    pub(super) fn line(&self, shown: &Shown) -> String {
        match shown {
            Shown::Event(Event::Drop(drop)) if drop.again => String::new(),
            Shown::Event(Event::Drop(drop)) => {
                let front = columns(drop);
                self.aligned(&front, &self.bad(&by(&drop.by)))
            }
            Shown::Event(Event::Unseen(unseen)) => {
                let side = unseen.direction.map_or("", model::Direction::word);
                let packets = match unseen.packets {
                    1 => "1 more packet was".to_owned(),
                    many => format!("{many} more packets were"),
                };
                let text = format!("{packets} denied; the kernel tells only some of a flood");
                let front = [time(unseen.time), unseen.node.clone(), side.to_owned()];
                self.aligned(&front, &self.bad(&text))
            }
            Shown::Missed(node, events) => {
                let text =
                    format!("{events} events are not shown: they came faster than they were read");
                let front = [time(Timestamp::now()), node.clone()];
                self.aligned(&front, &self.bad(&text))
            }
        }
    }

    fn aligned(&self, front: &[String], last: &str) -> String {
        let mut line = String::new();
        for (text, width) in front.iter().zip(self.widths) {
            line.push_str(&format!("{text:width$}  "));
        }
        line.push_str(last);
        line.push('\n');
        line
    }

    fn bad(&self, text: &str) -> String {
        match self.colours {
            true => format!("\u{1b}[31m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }
}

/// All but the last.
fn columns(drop: &Drop) -> [String; 5] {
    [
        time(drop.time),
        drop.node.clone(),
        drop.direction.word().to_owned(),
        end(&drop.from),
        target(drop),
    ]
}

fn time(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}

/// `shop/web-0`, `node/node1`, or the address.
fn end(end: &End) -> String {
    match (&end.namespace, &end.pod, &end.node) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, _, Some(node)) => format!("node/{node}"),
        _ => end.ip.to_string(),
    }
}

/// `shop/db-0:5432/TCP`, and the Service that was asked for.
fn target(drop: &Drop) -> String {
    let (end, protocol) = (end(&drop.to), &drop.protocol);
    let mut text = match (drop.port, drop.icmp) {
        (Some(port), _) if end.contains("::") => format!("[{end}]:{port}/{protocol}"),
        (Some(port), _) => format!("{end}:{port}/{protocol}"),
        (None, Some(icmp)) => format!("{end} {protocol} {}", icmp_words(protocol, icmp.kind)),
        (None, None) => format!("{end} {protocol}"),
    };
    if let Some(service) = &drop.service {
        match (&service.namespace, &service.name) {
            (Some(namespace), Some(name)) => text.push_str(&format!(" (svc/{namespace}/{name})")),
            _ => text.push_str(&format!(" (as {})", service.address)),
        }
    }
    text
}

fn icmp_words(protocol: &str, kind: u8) -> String {
    match (protocol, kind) {
        ("ICMP", 8) | ("ICMPv6", 128) => "echo request".into(),
        ("ICMP", 0) | ("ICMPv6", 129) => "echo reply".into(),
        _ => format!("type {kind}"),
    }
}

/// The policies by name, or why there is none.
fn by(by: &By) -> String {
    let [first, rest @ ..] = by.policies.as_slice() else {
        return by.words.clone();
    };
    if by.allowed_now {
        return by.words.clone();
    }
    let name = |policy: &flows::Policy| match &policy.namespace {
        Some(namespace) => format!("{namespace}/{}", policy.name),
        None => policy.name.clone(),
    };
    let mut text = format!("{} {}", first.kind, name(first));
    if let Some(rule) = first.rule {
        text.push_str(&format!(" rule [{rule}]"));
    }
    for policy in rest.iter().take(NAMED - 1) {
        text.push_str(&format!(", {}", name(policy)));
    }
    if by.policies.len() > NAMED {
        text.push_str(&format!(" and {} more", by.policies.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flows::{Icmp, Policy, Service, Unseen};

    use super::super::merge::tests::drop_at;
    use super::*;

    fn line(table: &Table, drop: Drop) -> String {
        table.line(&Shown::Event(Event::Drop(Arc::new(drop))))
    }

    #[test]
    fn an_event_is_a_line_below_the_header() {
        let table = Table::new(false);
        let drop = drop_at(1_700_000_000, "shop/web-0", "shop/db-0");
        let text = format!("{}{}", table.header(), line(&table, drop.clone()));
        assert_eq!(
            text,
            "TIME (UTC)    NODE   SIDE     FROM                      TO                                DENIED BY\n\
             22:13:20.000  node1  ingress  shop/web-0                shop/db-0:5432/TCP                NetworkPolicy shop/closed\n"
        );
        let again = Drop {
            again: true,
            ..drop
        };
        assert_eq!(line(&table, again), "");
    }

    #[test]
    fn what_a_line_says_of_the_target() {
        let mut drop = drop_at(0, "shop/web-0", "shop/db-0");
        drop.service = Some(Service {
            address: "10.96.0.7:5432".parse().unwrap(),
            namespace: Some("shop".into()),
            name: Some("db".into()),
        });
        assert_eq!(target(&drop), "shop/db-0:5432/TCP (svc/shop/db)");
        drop.service = None;
        drop.to = End {
            ip: "fd00::1".parse().unwrap(),
            namespace: None,
            pod: None,
            node: None,
        };
        assert_eq!(target(&drop), "[fd00::1]:5432/TCP");
        drop.port = None;
        drop.protocol = "ICMPv6".into();
        drop.icmp = Some(Icmp { kind: 128, code: 0 });
        assert_eq!(target(&drop), "fd00::1 ICMPv6 echo request");
    }

    #[test]
    fn many_policies_are_counted() {
        let policy = |name: &str, rule| Policy {
            kind: "NetworkPolicy".into(),
            namespace: Some("shop".into()),
            name: name.into(),
            rule,
        };
        let mut said = By {
            words: "in words".into(),
            policies: ["a", "b", "c", "d", "e"]
                .map(|name| policy(name, None))
                .into(),
            allowed_now: false,
        };
        assert_eq!(by(&said), "NetworkPolicy shop/a, shop/b, shop/c and 2 more");
        said.allowed_now = true;
        assert_eq!(by(&said), "in words");
        said = By {
            policies: vec![policy("a", Some(2))],
            ..By::default()
        };
        assert_eq!(by(&said), "NetworkPolicy shop/a rule [2]");
    }

    #[test]
    fn what_is_not_seen_is_said() {
        let unseen = Event::Unseen(Unseen {
            time: Timestamp::UNIX_EPOCH,
            node: "node1".into(),
            direction: Some(model::Direction::Egress),
            packets: 900,
        });
        let text = Table::new(false).line(&Shown::Event(unseen));
        assert!(
            text.contains("node1  egress   900 more packets were denied"),
            "{text}"
        );
    }
}
