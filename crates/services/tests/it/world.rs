//! A cluster that changes at random, the same way for the same seed: what the killed process and
//! the one that watches it agree on without talking.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Change, Protocol, Service, ServicePort, TrafficPolicy};

use crate::cases::{Member, slice};
use crate::spread::service;

/// So many Services come and go.
pub const SERVICES: u8 = 24;
const PODS: [&str; 6] = ["1a", "1b", "1c", "2a", "2b", "2c"];

/// Numbers that follow from a seed (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    pub fn chance(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// One Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub ready: Vec<&'static str>,
    pub affinity: bool,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
    /// Its node port is the other one.
    pub moved: bool,
}

impl State {
    /// Who may answer at its node port for a client outside.
    pub fn outside(&self) -> Vec<&'static str> {
        let ready = self.ready.iter().copied();
        ready
            .filter(|pod| !self.external_local || pod.starts_with('1'))
            .collect()
    }

    pub fn service(&self, number: u8) -> Service {
        let mut service = service(number);
        // Each change of a port of UDP walks the tables of connection tracking, which is what
        // takes the most time by far.
        if !number.is_multiple_of(4) {
            let tcp = |port: &ServicePort| port.protocol == Protocol::Tcp;
            service.ports.retain(tcp);
        }
        service.affinity = self.affinity.then_some(10);
        if self.external_local {
            service.external_policy = TrafficPolicy::Local;
        }
        if self.moved {
            for port in &mut service.ports {
                port.node_port = port.node_port.map(|port| port + 100);
            }
        }
        service
    }
}

/// All Services after so many changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World(pub BTreeMap<u8, State>);

impl World {
    /// Every Service has two endpoints.
    fn first() -> Self {
        let state = |number: u8| State {
            ready: [0, 3]
                .map(|at| PODS[(at + usize::from(number)) % PODS.len()])
                .into(),
            ..State::default()
        };
        Self(
            (1..=SERVICES)
                .map(|number| (number, state(number)))
                .collect(),
        )
    }

    /// All of it, as changes of an empty cluster.
    pub fn changes(&self) -> Vec<Change> {
        let services = self.0.iter();
        services
            .flat_map(|(number, state)| all_of(*number, state))
            .collect()
    }

    /// One more change.
    pub fn step(&mut self, random: &mut Random) -> Vec<Change> {
        let number = 1 + random.below(SERVICES.into()) as u8;
        let kind = random.below(20);
        if kind == 0 && self.0.remove(&number).is_some() {
            let service = service(number);
            let (namespace, name) = service.key();
            let slices = ["v4", "v6"].map(|family| format!("{name}-{family}"));
            let gone = |slice| Change::SliceGone(namespace.clone(), slice);
            let mut changes: Vec<Change> = slices.map(gone).into();
            changes.push(Change::ServiceGone(namespace, name));
            return changes;
        }
        let state = self.0.entry(number).or_default();
        match kind {
            1 => state.affinity = !state.affinity,
            2 => state.external_local = !state.external_local,
            3 => state.moved = !state.moved,
            4 => state.ready.clear(),
            _ => {
                let pod = PODS[random.below(PODS.len() as u64) as usize];
                match state.ready.iter().position(|there| *there == pod) {
                    Some(at) => drop(state.ready.remove(at)),
                    None => state.ready.push(pod),
                }
            }
        }
        all_of(number, state)
    }
}

fn all_of(number: u8, state: &State) -> Vec<Change> {
    let service = state.service(number);
    let members: Vec<Member> = state
        .ready
        .iter()
        .map(|pod| (*pod, true, true, false))
        .collect();
    let slices = [false, true].map(|v6| Change::Slice(Arc::new(slice(&service, &members, v6))));
    let mut changes = vec![Change::Service(Arc::new(service))];
    changes.extend(slices);
    changes
}

/// The worlds from the first to that after so many changes.
pub fn history(seed: u64, steps: usize) -> Vec<World> {
    let mut random = Random(seed);
    let mut worlds = vec![World::first()];
    for _ in 0..steps {
        let mut world = worlds[worlds.len() - 1].clone();
        world.step(&mut random);
        worlds.push(world);
    }
    worlds
}
