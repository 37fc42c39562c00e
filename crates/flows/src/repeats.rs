//! A client that gets no answer asks again: which packets belong to what was told just now.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::{Connection, Drop};

/// The connections told within a while, at most so many, and their further packets.
#[derive(Debug)]
pub struct Repeats {
    room: usize,
    window: SignedDuration,
    told: BTreeMap<Connection, Told>,
    /// Until when each counts as told; the first ends first.
    order: VecDeque<(Timestamp, Connection)>,
}

#[derive(Debug)]
struct Told {
    drop: Arc<Drop>,
    again: u64,
    last: Timestamp,
}

/// Further packets of a connection that was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Again {
    /// As it was told.
    pub drop: Arc<Drop>,
    /// How many packets came behind.
    pub packets: u64,
    /// When the last of them did.
    pub last: Timestamp,
}

impl Again {
    /// As an event of its own.
    pub fn event(self) -> Drop {
        Drop {
            time: self.last,
            packets: self.packets,
            again: true,
            ..(*self.drop).clone()
        }
    }
}

impl Repeats {
    /// Remembers a connection for so long, and at most so many of them.
    pub fn new(window: SignedDuration, room: usize) -> Self {
        Self {
            room: room.max(1),
            window,
            told: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Takes a packet; true where its connection was told and the packet is counted with it.
    pub fn is_known(&mut self, connection: &Connection, now: Timestamp) -> bool {
        let Some(told) = self.told.get_mut(connection) else {
            return false;
        };
        told.again += 1;
        told.last = now;
        true
    }

    /// Remembers what is told now. Gives what has to make room for it.
    pub fn remember(
        &mut self,
        connection: Connection,
        drop: Arc<Drop>,
        now: Timestamp,
    ) -> Option<Again> {
        let oldest = (self.told.len() >= self.room).then(|| self.forget());
        let until = now.checked_add(self.window).unwrap_or(Timestamp::MAX);
        self.order.push_back((until, connection));
        let told = Told {
            drop,
            again: 0,
            last: now,
        };
        self.told.insert(connection, told);
        oldest.flatten()
    }

    /// Forgets what was told long enough ago; gives what had further packets.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Again> {
        let mut again = Vec::new();
        while self.next().is_some_and(|until| until <= now) {
            again.extend(self.forget());
        }
        again
    }

    /// When there will be something to forget.
    pub fn next(&self) -> Option<Timestamp> {
        self.order.front().map(|(until, _)| *until)
    }

    fn forget(&mut self) -> Option<Again> {
        let (_, connection) = self.order.pop_front()?;
        let told = self.told.remove(&connection)?;
        (told.again > 0).then_some(Again {
            drop: told.drop,
            packets: told.again,
            last: told.last,
        })
    }
}

#[cfg(test)]
mod tests {
    use model::{Cluster, Direction};
    use proptest::prelude::*;

    use super::*;
    use crate::{By, End, Scene, describe};

    const WINDOW: SignedDuration = SignedDuration::from_secs(10);

    fn connection(port: u16) -> Connection {
        Connection {
            direction: Direction::Ingress,
            protocol: 6,
            from: "10.244.1.5".parse().unwrap(),
            to: "10.244.2.9".parse().unwrap(),
            ports: Some((port, 80)),
            icmp: None,
            asked: None,
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn drop_of(connection: &Connection, time: Timestamp) -> Arc<Drop> {
        let scene = Scene {
            cluster: &Cluster::default(),
            node: "node1",
            time,
            interface: None,
        };
        let [from, to] = [connection.from, connection.to].map(|ip| End {
            ip,
            namespace: None,
            pod: None,
            node: None,
        });
        Arc::new(describe(&scene, connection, from, to, By::default()))
    }

    /// The packets that each event stands for, as an agent would tell them.
    fn take(repeats: &mut Repeats, port: u16, now: Timestamp) -> Vec<u64> {
        let mut told: Vec<u64> = repeats.expire(now).iter().map(|a| a.packets).collect();
        let connection = connection(port);
        if !repeats.is_known(&connection, now) {
            told.push(1);
            let drop = drop_of(&connection, now);
            told.extend(
                repeats
                    .remember(connection, drop, now)
                    .map(|again| again.packets),
            );
        }
        told
    }

    #[test]
    fn retransmissions_are_one_event_with_a_count() {
        let mut repeats = Repeats::new(WINDOW, 8);
        assert_eq!(take(&mut repeats, 1, at(0)), [1]);
        for second in [1, 3, 7] {
            assert_eq!(take(&mut repeats, 1, at(second)), [0; 0]);
        }
        assert_eq!(repeats.next(), Some(at(10)));
        assert_eq!(repeats.expire(at(9)), []);
        let again = repeats.expire(at(10));
        let [again] = again.as_slice() else {
            panic!("{again:?}");
        };
        assert_eq!((again.packets, again.last), (3, at(7)));
        let event = again.clone().event();
        assert!(event.again && event.packets == 3 && event.time == at(7));
        // The next is told anew.
        assert_eq!(take(&mut repeats, 1, at(15)), [1]);
        assert_eq!(repeats.expire(at(100)), []);
        assert_eq!(repeats.next(), None);
    }

    proptest! {
        /// Each packet is in exactly one event, a connection's first packet in one at once, and
        /// no more is remembered than there is room for.
        #[test]
        fn no_packet_is_lost_or_counted_twice(
            room in 1_usize..6,
            packets in prop::collection::vec((0_u16..10, 0_i64..7), 0..200),
        ) {
            let mut repeats = Repeats::new(WINDOW, room);
            let (mut now, mut told, mut last) = (0, 0, BTreeMap::new());
            for (port, wait) in &packets {
                now += wait;
                let events = take(&mut repeats, *port, at(now));
                let first = last.insert(*port, now).is_none_or(|before| now - before >= 10);
                prop_assert!(!first || events.contains(&1));
                told += events.iter().sum::<u64>();
                prop_assert!(repeats.told.len() <= room && repeats.order.len() <= room);
            }
            told += repeats.expire(at(now + 100)).iter().map(|again| again.packets).sum::<u64>();
            prop_assert_eq!(told, packets.len() as u64);
            prop_assert!(repeats.told.is_empty() && repeats.order.is_empty());
        }
    }
}
