//! What should become of a connection, by [`policy::explain`].

use std::net::IpAddr;

use model::Cluster;
use policy::{Answer, End, Question, explain};

use crate::lab::Lab;
use crate::probe::{Place, Probe};

/// What is asked of the oracle.
pub fn question(lab: &Lab, probe: &Probe) -> Question {
    let from = probe.from.source(lab, &probe.to, probe.v6);
    Question {
        from: end(lab, &probe.from, from),
        to: end(lab, &probe.to, probe.to.ip(lab, probe.v6)),
        port: probe.port,
    }
}

fn end(lab: &Lab, place: &Place, ip: IpAddr) -> End {
    let node = |at: usize| Some(format!("node{}", at + 1));
    match place {
        Place::Pod(key) => End {
            ip,
            pod: Some(key.clone()),
            node: node(lab.pods[key].node),
        },
        Place::Node(at) => End {
            ip,
            pod: None,
            node: node(*at),
        },
        Place::Host(_) => End {
            ip,
            pod: None,
            node: None,
        },
    }
}

/// What the oracle says.
pub fn answer(lab: &Lab, cluster: &Cluster, probe: &Probe) -> Answer {
    explain(cluster, &question(lab, probe))
}

/// Whether each is to be let through.
pub fn expected(lab: &Lab, cluster: &Cluster, probes: &[Probe]) -> Vec<bool> {
    let allowed = |probe| answer(lab, cluster, probe).allowed();
    probes.iter().map(allowed).collect()
}
