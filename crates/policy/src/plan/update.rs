//! What changes of a plan when the cluster or the pods that are here change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use model::{Changed, Cluster, Pod};

use super::attached::World;
use super::judge::{Judge, Targets};
use super::list::{List, ListId};
use super::set::{Set, SetId};
use super::sets::{Candidates, Moved};
use super::{Local, Locals, Mute, OPEN, Plan};

/// What changed of a plan.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    /// Sets that came, with the elements that the plan says.
    pub new_sets: BTreeMap<SetId, Arc<Set>>,
    /// Sets that went.
    pub gone_sets: BTreeMap<SetId, Arc<Set>>,
    /// Elements of sets that stay.
    pub moved: BTreeMap<SetId, Moved>,
    /// Lists that came.
    pub new_lists: BTreeMap<ListId, Arc<List>>,
    /// Lists that went.
    pub gone_lists: BTreeMap<ListId, Arc<List>>,
    /// What became of each address's connections, and what becomes of them now.
    pub subjects: BTreeMap<IpAddr, (Targets, Targets)>,
    /// By which protocols each address could not ask for names, and cannot now.
    pub mute: BTreeMap<IpAddr, (Mute, Mute)>,
}

impl Delta {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.new_sets.is_empty()
            && self.gone_sets.is_empty()
            && self.moved.is_empty()
            && self.new_lists.is_empty()
            && self.gone_lists.is_empty()
            && self.subjects.is_empty()
            && self.mute.is_empty()
    }
}

/// What may be different.
#[derive(Debug, Default)]
struct Touched {
    /// Addresses that may be another's, or of a pod that is selected by other sets.
    ips: BTreeSet<IpAddr>,
    /// Addresses whose rules may be others.
    subjects: BTreeSet<IpAddr>,
}

impl Plan {
    /// Takes the cluster as it is now, of which `changed` names what differs from the last call,
    /// and the pods that are here. The first call takes everything.
    pub fn update(&mut self, cluster: &Cluster, changed: &Changed, locals: &Locals) -> Delta {
        let was = std::mem::replace(&mut self.cluster, cluster.clone());
        let attached = self.attached.take(locals);
        let touched = self.touched(&was, changed, &attached);
        let mut delta = Delta::default();
        self.refresh(&touched.ips, &mut delta);
        if !changed.nodes.is_empty() {
            self.sets.refresh_nodes(&self.cluster, &mut delta.moved);
        }
        self.judge(&touched.subjects, &mut delta);
        let Self {
            cluster,
            subjects,
            sets,
            resolver,
            ..
        } = self;
        resolver.update(cluster, changed, subjects, sets, &mut delta);
        delta
    }

    fn touched(&self, was: &Cluster, changed: &Changed, attached: &[Local]) -> Touched {
        let mut touched = Touched::default();
        for local in attached {
            touched.ips.extend(&local.ips);
            touched.subjects.extend(&local.ips);
        }
        for key in &changed.pods {
            let (old, new) = (was.pods.get(key), self.cluster.pods.get(key));
            let said = old.into_iter().chain(new).flat_map(|pod| &pod.ips);
            touched.ips.extend(said);
            for ip in self.attached.ips_of(key) {
                touched.ips.insert(ip);
                touched.subjects.insert(ip);
            }
        }
        for name in &changed.namespaces {
            self.touched_by_namespace(was, name, &mut touched);
        }
        for key in &changed.policies {
            let policies = [was, &self.cluster].map(|cluster| cluster.policies.get(key));
            let locals = self.attached.of_namespace(&key.0);
            self.touched_by(locals, &mut touched, |pod| {
                let mut policies = policies.iter().flatten();
                policies.any(|policy| policy.pods.matches(&pod.labels))
            });
        }
        for name in &changed.cluster_policies {
            let clusters = [was, &self.cluster];
            let policies = clusters.map(|cluster| cluster.cluster_policies.get(name));
            self.touched_by(self.attached.all(), &mut touched, |pod| {
                let namespace = self.cluster.namespaces.get(&pod.namespace);
                namespace.is_none_or(|namespace| {
                    policies.iter().flatten().any(|policy| {
                        policy.namespaces.matches(&namespace.labels)
                            && policy.pods.matches(&pod.labels)
                    })
                })
            });
        }
        touched
    }

    /// The pods here that a policy is about; it may be about those of which nothing is known.
    fn touched_by<'a>(
        &self,
        locals: impl Iterator<Item = &'a Local>,
        touched: &mut Touched,
        is_about: impl Fn(&Pod) -> bool,
    ) {
        let world = self.world();
        let about = locals.filter(|local| world.known(local).is_none_or(|pod| is_about(pod)));
        touched.subjects.extend(about.flat_map(|local| &local.ips));
    }

    /// Its labels decide which ClusterNetworkPolicies are about its pods, and which sets they are
    /// in.
    fn touched_by_namespace(&self, was: &Cluster, name: &str, touched: &mut Touched) {
        if self.sets.ask_for_namespaces() {
            let world = self.world();
            let pods = world.cluster.pods.range((name.to_owned(), String::new())..);
            let pods = pods.take_while(|((namespace, _), _)| namespace == name);
            touched.ips.extend(pods.flat_map(|(_, pod)| &pod.ips));
            let locals = self.attached.of_namespace(name);
            touched.ips.extend(locals.flat_map(|local| &local.ips));
        }
        if !was.cluster_policies.is_empty() || !self.cluster.cluster_policies.is_empty() {
            let locals = self.attached.of_namespace(name);
            touched.subjects.extend(locals.flat_map(|local| &local.ips));
        }
    }

    /// Who is in which set, of sets that are there.
    fn refresh(&mut self, ips: &BTreeSet<IpAddr>, delta: &mut Delta) {
        if self.sets.live().is_empty() {
            return;
        }
        let world = World {
            cluster: &self.cluster,
            attached: &self.attached,
            node: &self.node,
        };
        let mut of_namespace: BTreeMap<&str, Candidates> = BTreeMap::new();
        for ip in ips {
            let owner: Option<&Pod> = world.owner(*ip).map(|pod| &**pod);
            let candidates: &[Arc<Set>] = match owner {
                Some(pod) => of_namespace
                    .entry(&pod.namespace)
                    .or_insert_with(|| self.sets.candidates(world.cluster, &pod.namespace)),
                None => &[],
            };
            self.sets.refresh(*ip, owner, candidates, &mut delta.moved);
        }
    }

    /// What becomes of the connections of addresses.
    fn judge(&mut self, ips: &BTreeSet<IpAddr>, delta: &mut Delta) {
        let world = World {
            cluster: &self.cluster,
            attached: &self.attached,
            node: &self.node,
        };
        // Those of a namespace together.
        let mut here: Vec<(Option<&Local>, IpAddr)> =
            ips.iter().map(|ip| (world.attached.at(*ip), *ip)).collect();
        here.sort_by_key(|(local, ip)| (local.map(|local| &local.pod), *ip));
        let mut judge = Judge::new(world);
        for (local, ip) in here {
            let now = local.map_or(OPEN, |local| judge.targets(local, ip.is_ipv6()));
            let before = self.subjects.get(&ip).cloned().unwrap_or(OPEN);
            if before != now {
                delta.subjects.insert(ip, (before, now));
            }
        }
        drop(judge);
        // First what comes: what both need stays.
        let subjects = std::mem::take(&mut delta.subjects);
        for target in subjects.values().flat_map(|(_, now)| now) {
            self.lists.acquire(target, &mut self.sets, &world, delta);
        }
        for target in subjects.values().flat_map(|(before, _)| before) {
            self.lists.release(target, &mut self.sets, delta);
        }
        for (ip, (_, now)) in &subjects {
            if *now == OPEN {
                self.subjects.remove(ip);
            } else {
                self.subjects.insert(*ip, now.clone());
            }
        }
        delta.subjects = subjects;
    }
}
