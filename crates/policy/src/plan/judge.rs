//! What a pod's rules come to: which policies are about it, and what they say together.

use std::collections::BTreeMap;
use std::rc::Rc;

use model::policy::{Action, ClusterPolicy, Tier};
use model::{ContainerPort, Direction, Key, NetworkPolicy, Pod};

use super::Local;
use super::attached::World;
use super::draft::Draft;
use super::list::{List, Match, Target};

/// What becomes of connections, egress first.
pub type Targets = [Target; 2];

/// The directions as they stand in [`Targets`].
pub const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// Which policies decide: all that a list depends on but the cluster's state.
type Choice = (Direction, bool, Vec<usize>, Vec<usize>, Vec<ContainerPort>);

/// A policy by its place, and which of its rules: of a direction and of IPv6.
type Part = (usize, Direction, bool);

/// Judges pods one after the other, best those of a namespace together: it reads each policy once.
pub(super) struct Judge<'a> {
    world: World<'a>,
    /// In the order in which they are asked.
    cluster_policies: Vec<&'a ClusterPolicy>,
    cluster_drafts: BTreeMap<Part, Rc<Vec<(Draft, Action)>>>,
    room: Room<'a>,
}

/// A namespace.
#[derive(Default)]
struct Room<'a> {
    name: Option<&'a str>,
    policies: Vec<&'a NetworkPolicy>,
    drafts: BTreeMap<Part, Rc<Vec<Draft>>>,
    targets: BTreeMap<Choice, Target>,
}

impl<'a> Judge<'a> {
    pub fn new(world: World<'a>) -> Self {
        let policies = world.cluster.cluster_policies.values();
        let mut cluster_policies: Vec<&ClusterPolicy> = policies.map(|policy| &**policy).collect();
        cluster_policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
        Self {
            world,
            cluster_policies,
            cluster_drafts: BTreeMap::new(),
            room: Room::default(),
        }
    }

    /// What becomes of the connections of a pod that is here, of one family.
    pub fn targets(&mut self, local: &'a Local, v6: bool) -> Targets {
        self.enter(&local.pod);
        let pod = self.world.known(local);
        DIRECTIONS.map(|direction| match pod {
            Some(pod) => self.target(pod, direction, v6),
            None => self.unknown(direction),
        })
    }

    fn enter(&mut self, pod: &'a Key) {
        if self.room.name == Some(&pod.0) {
            return;
        }
        let from = (pod.0.clone(), String::new());
        let policies = self.world.cluster.policies.range(from..);
        self.room = Room {
            name: Some(&pod.0),
            policies: policies
                .map(|(_, policy)| &**policy)
                .take_while(|policy| policy.namespace == pod.0)
                .collect(),
            ..Room::default()
        };
    }

    /// Of a pod of which nothing is known: closed as soon as any policy may be about it.
    fn unknown(&self, direction: Direction) -> Target {
        let mut own = self.room.policies.iter();
        if own.any(|policy| policy.rules(direction).is_some()) || self.any_cluster_policy(direction)
        {
            Target::Denied
        } else {
            Target::Allowed
        }
    }

    fn any_cluster_policy(&self, direction: Direction) -> bool {
        let mut all = self.cluster_policies.iter();
        all.any(|policy| !policy.rules(direction).is_empty())
    }

    fn target(&mut self, pod: &Pod, direction: Direction, v6: bool) -> Target {
        let namespace = self.world.cluster.namespaces.get(&pod.namespace);
        if namespace.is_none() && self.any_cluster_policy(direction) {
            return Target::Denied;
        }
        let about = |policy: &ClusterPolicy| {
            !policy.rules(direction).is_empty()
                && namespace.is_some_and(|one| policy.namespaces.matches(&one.labels))
                && policy.pods.matches(&pod.labels)
        };
        let cluster = positions(&self.cluster_policies, |policy| about(policy));
        let own = positions(&self.room.policies, |policy| {
            policy.rules(direction).is_some() && policy.pods.matches(&pod.labels)
        });
        let ports = match direction {
            Direction::Ingress => pod.ports.clone(),
            Direction::Egress => Vec::new(),
        };
        let choice = (direction, v6, own, cluster, ports);
        if let Some(target) = self.room.targets.get(&choice) {
            return target.clone();
        }
        let target = self.decide(&choice);
        self.room.targets.insert(choice, target.clone());
        target
    }

    fn decide(&mut self, choice: &Choice) -> Target {
        let (direction, v6, own, cluster, ports) = choice;
        let (direction, v6) = (*direction, *v6);
        let tier = |at: &usize| self.cluster_policies[*at].tier;
        let (admin, baseline): (Vec<usize>, Vec<usize>) =
            cluster.iter().partition(|at| tier(at) == Tier::Admin);
        let below = if own.is_empty() {
            let rules = self.tier(&baseline, choice, &Target::Allowed);
            List::of(direction, v6, rules, Target::Allowed)
        } else {
            let mut rules: Vec<(Match, Target)> = Vec::new();
            for at in own {
                for draft in self.own_drafts(*at, direction, v6).iter() {
                    let matches = draft.matches(ports).into_iter();
                    rules.extend(matches.map(|one| (one, Target::Allowed)));
                }
            }
            List::of(direction, v6, rules, Target::Denied)
        };
        let rules = self.tier(&admin, choice, &below);
        List::of(direction, v6, rules, below)
    }

    /// The rules of a tier; what passes goes to `below`.
    fn tier(
        &mut self,
        policies: &[usize],
        (direction, v6, _, _, ports): &Choice,
        below: &Target,
    ) -> Vec<(Match, Target)> {
        let mut rules = Vec::new();
        for at in policies {
            for (draft, action) in self.cluster_drafts(*at, *direction, *v6).iter() {
                let target = match action {
                    Action::Accept => &Target::Allowed,
                    Action::Deny => &Target::Denied,
                    Action::Pass => below,
                };
                let matches = draft.matches(ports).into_iter();
                rules.extend(matches.map(|one| (one, target.clone())));
            }
        }
        rules
    }

    fn own_drafts(&mut self, at: usize, direction: Direction, v6: bool) -> Rc<Vec<Draft>> {
        let policy = self.room.policies[at];
        let drafts = self.room.drafts.entry((at, direction, v6));
        let read = || {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            let namespace = Some(policy.namespace.as_str());
            let drafts = rules.map(|rule| Draft::of(rule, namespace, direction, v6));
            Rc::new(drafts.collect())
        };
        Rc::clone(drafts.or_insert_with(read))
    }

    fn cluster_drafts(
        &mut self,
        at: usize,
        direction: Direction,
        v6: bool,
    ) -> Rc<Vec<(Draft, Action)>> {
        let policy = self.cluster_policies[at];
        let drafts = self.cluster_drafts.entry((at, direction, v6));
        let read = || {
            let rules = policy.rules(direction).iter();
            let drafts = rules.map(|rule| {
                let draft = Draft::of(&rule.rule, None, direction, v6);
                (draft, rule.action)
            });
            Rc::new(drafts.collect())
        };
        Rc::clone(drafts.or_insert_with(read))
    }
}

fn positions<T>(all: &[T], is: impl Fn(&T) -> bool) -> Vec<usize> {
    let all = all.iter().enumerate();
    all.filter(|(_, one)| is(one)).map(|(at, _)| at).collect()
}
