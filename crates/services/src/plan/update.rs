//! The plan after a change, and what the change did.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use model::{Cluster, Key, Protocol};

use super::claims::Place;
use super::ports::{self, Wanted, WantedPort};
use super::{Delta, Frontend, FrontendKind, Plan, PortChange, PortId, PortPlan, Problem};

impl Plan {
    /// Plans these Services anew, and those that they pass a frontend on to.
    pub fn update(&mut self, cluster: &Cluster, services: &BTreeSet<Key>) -> Delta {
        let mut unsettled = BTreeSet::new();
        let mut delta = Delta::default();
        for key in services {
            let is = ports::wanted(&self.settings, cluster, key);
            self.want(key, is, &mut unsettled, &mut delta);
        }
        // Those that were asked for are in order already: no set of them all is built again.
        unsettled.retain(|key| !services.contains(key));
        for key in services.iter().chain(&unsettled) {
            self.settle(cluster, key, &mut delta);
        }
        delta
    }

    /// Takes note of what a Service asks for; `touched` gets the others for whom that matters.
    fn want(
        &mut self,
        key: &Key,
        is: Option<Wanted>,
        touched: &mut BTreeSet<Key>,
        delta: &mut Delta,
    ) {
        let was = self.wanted.remove(key);
        let same = match (&was, &is) {
            (Some(was), Some(is)) => was.claims_as(is),
            (was, is) => was.is_none() && is.is_none(),
        };
        if !same {
            let asked = is.as_ref().map_or(&[][..], |is| &is.ports);
            for port in was.iter().flat_map(|was| &was.ports) {
                self.claims.release(&port.owner, &port.plan, touched);
                if !is_among(asked, &port.owner.id) {
                    let was = self.ports.remove(&port.owner.id);
                    delta.ports.push(PortChange { was, is: None });
                }
            }
            for port in is.iter().flat_map(|is| &is.ports) {
                self.claims.take(&port.owner, &port.plan, touched);
            }
            if let Some((wanted, check)) = with_check(was.as_ref()) {
                let created = wanted.created;
                self.claims.release_check(check, created, key, touched);
            }
            if let Some((wanted, check)) = with_check(is.as_ref()) {
                let created = wanted.created;
                self.claims.take_check(check, created, key, touched);
            }
        }
        if let Some(mut is) = is {
            if let Some(was) = was.filter(|_| same) {
                is.share(&was);
            }
            self.wanted.insert(key.clone(), is);
        }
    }

    /// Gives a Service what it asks for and nobody with a better claim has.
    fn settle(&mut self, cluster: &Cluster, key: &Key, delta: &mut Delta) {
        let wanted = self.wanted.get(key);
        let asked = wanted.map_or(&[][..], |wanted| &wanted.ports);
        let mut problems = wanted.map_or_else(Vec::new, |wanted| wanted.problems.clone());
        let mut health = wanted.and_then(|wanted| wanted.health.clone());
        if let Some(check) = &health {
            let (winner, problem) = self.check_problem(key, check.port);
            problems.extend(problem);
            health = health.filter(|_| winner);
        }
        let mut settled: Vec<Arc<PortPlan>> = Vec::with_capacity(asked.len());
        for port in asked {
            let lost: Vec<&Frontend> = self.lost(port).collect();
            let all = Arc::clone(&port.plan);
            if lost.is_empty() {
                settled.push(all);
                continue;
            }
            problems.extend(lost.iter().map(|lost| self.loss(cluster, key, port, lost)));
            let mut plan = PortPlan::clone(&all);
            plan.frontends.retain(|frontend| !lost.contains(&frontend));
            if !plan.uses_local() {
                plan.local.clear();
            }
            settled.push(Arc::new(plan));
        }
        for port in settled {
            self.put(port, delta);
        }
        match health {
            Some(health) => drop(self.health.insert(key.clone(), health)),
            None => drop(self.health.remove(key)),
        }
        if problems.is_empty() {
            self.problems.remove(key);
        } else {
            problems.sort();
            self.problems.insert(key.clone(), problems);
        }
    }

    fn put(&mut self, port: Arc<PortPlan>, delta: &mut Delta) {
        let was = match self.ports.entry(port.id()) {
            Entry::Occupied(old) if *old.get() == port => return,
            Entry::Occupied(mut old) => Some(old.insert(Arc::clone(&port))),
            Entry::Vacant(new) => {
                new.insert(Arc::clone(&port));
                None
            }
        };
        let is = Some(port);
        delta.ports.push(PortChange { was, is });
    }

    /// The frontends that somebody else has.
    fn lost<'a>(&self, port: &'a WantedPort) -> impl Iterator<Item = &'a Frontend> {
        port.plan.frontends.iter().filter(move |frontend| {
            let winner = self.claims.winner(&Place::of(&port.plan, frontend));
            winner.is_none_or(|winner| *winner.owner != *port.owner)
        })
    }

    fn loss(&self, cluster: &Cluster, key: &Key, port: &WantedPort, lost: &Frontend) -> Problem {
        let place = Place::of(&port.plan, lost);
        let protocol = port.owner.id.0.protocol;
        let number = lost.port;
        let what = match lost.ip {
            Some(ip) => format!("{ip} port {number}/{protocol}"),
            None => format!("node port {number}/{protocol}"),
        };
        let index = port.owner.index;
        let service = cluster.services.get(key);
        let at = |find: &dyn Fn(&model::Service) -> Option<usize>| {
            service
                .and_then(|service| find(service))
                .map_or_else(String::new, |index| format!("[{index}]"))
        };
        let field = match lost.kind {
            FrontendKind::ClusterIp => {
                let at = at(&|s| s.cluster_ips.iter().position(|ip| Some(*ip) == lost.ip));
                format!("spec.clusterIPs{at}")
            }
            FrontendKind::ExternalIp => {
                let at = at(&|s| s.external_ips.iter().position(|ip| Some(*ip) == lost.ip));
                format!("spec.externalIPs{at}")
            }
            FrontendKind::LoadBalancer => {
                let at = at(&|s| s.load_balancer.iter().position(|a| Some(a.ip) == lost.ip));
                format!("status.loadBalancer.ingress{at}.ip")
            }
            FrontendKind::NodePort => format!("spec.ports[{index}].nodePort"),
        };
        let message = match self.claims.rival(&place) {
            Some(rival) if rival.service() == *key => {
                let other = rival.index;
                format!("{what} is that of spec.ports[{other}] already; give this port another")
            }
            Some(rival) => {
                let (namespace, name) = rival.service();
                let right = match lost.ip {
                    Some(ip) if self.is_cluster_ip(ip) => "whose ClusterIP it is",
                    _ => "which is older",
                };
                format!(
                    "{what} belongs to Service {namespace}/{name}, {right}; not served here until \
                     that one gives it up: take another"
                )
            }
            None => format!("{what} is not to be had; take another"),
        };
        Problem {
            kind: "Service",
            object: key.clone(),
            field,
            message,
        }
    }

    /// Whether the Service has its health check port, and what is wrong with that.
    fn check_problem(&self, key: &Key, port: u16) -> (bool, Option<Problem>) {
        let problem = |message| Problem {
            kind: "Service",
            object: key.clone(),
            field: "spec.healthCheckNodePort".to_owned(),
            message,
        };
        match self.claims.check_winner(port) {
            Some(winner) if winner != key => {
                let (namespace, name) = winner;
                return (
                    false,
                    Some(problem(format!(
                        "port {port} answers for Service {namespace}/{name}, which is older; take \
                         another"
                    ))),
                );
            }
            _ => {}
        }
        let hidden = [false, true]
            .into_iter()
            .find_map(|v6| self.claims.winner(&Place::of_node(v6, Protocol::Tcp, port)));
        let problem = hidden.map(|claimant| {
            let (namespace, name) = claimant.owner.service();
            problem(format!(
                "port {port} is a node port of Service {namespace}/{name}, which gets its \
                 connections; take another"
            ))
        });
        (true, problem)
    }
}

fn with_check(wanted: Option<&Wanted>) -> Option<(&Wanted, u16)> {
    let wanted = wanted?;
    Some((wanted, wanted.health.as_ref()?.port))
}

/// Whether a port is one of these, which are sorted by id.
fn is_among(asked: &[WantedPort], id: &PortId) -> bool {
    asked
        .binary_search_by(|wanted| wanted.owner.id.cmp(id))
        .is_ok()
}
