//! Which policies are about a pod, in the order in which they are asked, and what that comes to.

use model::policy::{Action, Rule, Tier};
use model::{Cluster, ClusterPolicy, Direction, Key, Pod};
use serde::Serialize;

use super::{judge, words};

/// What policies say about one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The policies that are about it, by direction and in the order of the tiers.
    pub policies: Vec<Listed>,
    /// What comes in, in a sentence.
    pub ingress: String,
    /// What goes out.
    pub egress: String,
}

/// A policy as far as it is about one direction of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The direction.
    pub direction: Direction,
    /// `Admin`, `NetworkPolicy` or `Baseline`.
    pub tier: &'static str,
    /// Within the tier, of a ClusterNetworkPolicy.
    pub priority: Option<u16>,
    /// Its namespace (empty where it has none) and name.
    pub policy: Key,
    /// The labels by which it selects the pod, empty for all pods.
    pub selector: String,
    /// Its rules in words, in their order.
    pub rules: Vec<String>,
}

/// The policies about a pod.
pub fn list(cluster: &Cluster, pod: &Pod) -> Listing {
    let mut policies = Vec::new();
    for direction in Direction::ALL {
        policies.extend(of_tier(cluster, pod, direction, Tier::Admin));
        policies.extend(judge::selecting(cluster, pod).filter_map(|policy| {
            let rules = policy.rules(direction)?;
            let words = rules
                .iter()
                .map(|one| rule("allow", direction, one, &policy.namespace));
            Some(Listed {
                direction,
                tier: "NetworkPolicy",
                priority: None,
                policy: policy.key(),
                selector: words::selector(&policy.pods),
                rules: words.collect(),
            })
        }));
        policies.extend(of_tier(cluster, pod, direction, Tier::Baseline));
    }
    let comes = |direction| comes_to(pod, direction, &policies);
    Listing {
        ingress: comes(Direction::Ingress),
        egress: comes(Direction::Egress),
        policies,
    }
}

/// How many pods a ClusterNetworkPolicy is about.
pub fn subjects(cluster: &Cluster, policy: &ClusterPolicy) -> usize {
    let pods = cluster.pods.values();
    pods.filter(|pod| judge::is_subject(cluster, policy, pod))
        .count()
}

fn of_tier(cluster: &Cluster, pod: &Pod, direction: Direction, tier: Tier) -> Vec<Listed> {
    let all = judge::in_order(cluster, tier).into_iter();
    let ours = all.filter(|policy| judge::is_subject(cluster, policy, pod));
    ours.filter(|policy| !policy.rules(direction).is_empty())
        .map(|policy| Listed {
            direction,
            tier: words::tier(tier),
            priority: Some(policy.priority),
            policy: (String::new(), policy.name.clone()),
            selector: words::selector(&policy.pods),
            rules: policy
                .rules(direction)
                .iter()
                .map(|one| {
                    let does = match one.action {
                        Action::Accept => "accept",
                        Action::Deny => "deny",
                        Action::Pass => "pass",
                    };
                    rule(does, direction, &one.rule, "")
                })
                .collect(),
        })
        .collect()
}

/// `allow TCP 80 from pods with app=web of namespace shop`.
fn rule(does: &str, direction: Direction, rule: &Rule, namespace: &str) -> String {
    let toward = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let ports = words::ports(rule.ports.as_deref());
    let peers = words::peers(rule.peers.as_deref(), namespace);
    format!("{does} {ports} {toward} {peers}")
}

/// What all of them together mean for a direction.
fn comes_to(pod: &Pod, direction: Direction, policies: &[Listed]) -> String {
    if pod.host_network {
        return "hostNetwork: its traffic is its node's, and no policy is about it".into();
    }
    let of = |tier: &str| {
        let ours = policies.iter();
        let ours: Vec<&Listed> = ours
            .filter(|one| one.direction == direction && one.tier == tier)
            .collect();
        ours
    };
    let (admin, own, baseline) = (of("Admin"), of("NetworkPolicy"), of("Baseline"));
    let first = match admin.is_empty() {
        true => "",
        false => "what tier Admin decides; then ",
    };
    let names = |all: &[&Listed]| {
        let names: Vec<String> = all.iter().map(|one| words::key(&one.policy)).collect();
        words::list(&names)
    };
    let rest = if !own.is_empty() {
        let rules = own.iter().any(|one| !one.rules.is_empty());
        match rules {
            true => format!("isolated by {}: only what their rules allow", names(&own)),
            false => format!("isolated by {}, which have no rules: nothing", names(&own)),
        }
    } else if !baseline.is_empty() {
        format!(
            "no NetworkPolicy: what {} decides, all else is allowed",
            names(&baseline)
        )
    } else {
        "not isolated: everything".into()
    };
    format!("{first}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::tests::{cluster, cnp, does, own, peers, policy, tcp};

    #[test]
    fn the_policies_of_a_pod_come_in_the_order_of_the_tiers() {
        let mut cluster = cluster();
        let rule = Rule {
            ports: Some(vec![tcp(80, 80)]),
            ..peers([own("app=web")])
        };
        cluster.take(policy("shop/b", "app=api", Some(vec![rule]), None));
        cluster.take(policy("shop/a", "", Some(vec![]), Some(vec![])));
        let deny = || vec![does(Action::Deny, Rule::default())];
        cluster.take(cnp(Tier::Baseline, 1, "base", [deny(), deny()]));
        cluster.take(cnp(Tier::Admin, 9, "late", [deny(), vec![]]));
        cluster.take(cnp(Tier::Admin, 1, "soon", [deny(), vec![]]));
        let pod = cluster.pods[&("shop".to_owned(), "api".to_owned())].clone();
        let listing = list(&cluster, &pod);
        let into: Vec<String> = listing
            .policies
            .iter()
            .filter(|one| one.direction == Direction::Ingress)
            .map(|one| format!("{} {} {:?}", one.tier, words::key(&one.policy), one.rules))
            .collect();
        assert_eq!(
            into,
            [
                r#"Admin soon ["deny all ports from everybody"]"#,
                r#"Admin late ["deny all ports from everybody"]"#,
                r#"NetworkPolicy shop/a []"#,
                r#"NetworkPolicy shop/b ["allow TCP 80 from pods with app=web of namespace shop"]"#,
                r#"Baseline base ["deny all ports from everybody"]"#,
            ]
        );
        assert_eq!(
            listing.ingress,
            "what tier Admin decides; then isolated by shop/a and shop/b: only what their rules allow"
        );
        assert_eq!(
            listing.egress,
            "isolated by shop/a, which have no rules: nothing"
        );
    }
}
