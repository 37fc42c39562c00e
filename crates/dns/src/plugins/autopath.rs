//! `autopath`: the client's search path, gone through by the server: one question and one answer
//! instead of one for each step.
//!
//! Where the path is that of pods, the pod is known by its address: nothing has to be configured
//! for that, and pods on the host's network go through their own path themselves.

use std::net::IpAddr;

use crate::plan::View;
use crate::plugins::kubernetes::Kubernetes;
use crate::query::Answer;
use crate::wire::{Data, Name, Rcode, Record};

/// The search path of the pod that asks, as its kubelet has written it: nothing where it is not
/// known who asks, or where the name is in no zone of the cluster. `node` is what the node's own
/// path adds.
pub fn path_of_pod(
    kubernetes: &Kubernetes,
    view: &View,
    client: IpAddr,
    node: &[Name],
    name: &Name,
) -> Option<Vec<Name>> {
    let zone = kubernetes.zone_of(name)?;
    let pod = view.cluster.pod_at(client.to_canonical())?;
    let services = zone.child(b"svc").ok()?;
    let own = services.child(pod.namespace.as_bytes()).ok()?;
    let mut path = vec![own, services, zone.clone()];
    path.extend(node.iter().cloned());
    path.push(Name::root());
    Some(path)
}

/// The names that are asked for, one after the other until one is there, where a name is the first
/// that a client with this search path asks for. The first is the name itself.
pub fn names(zones: &[Name], path: &[Name], name: &Name) -> Option<Vec<Name>> {
    if !zones.iter().any(|zone| name.is_within(zone)) {
        return None;
    }
    let base = name.below(path.first()?)?;
    // The path's own domain is nobody's short name.
    base.clone().next()?;
    let longer = path.iter().skip(1);
    let longer =
        longer.filter_map(|domain| Name::from_labels(base.clone().chain(domain.labels())).ok());
    Some(std::iter::once(name.clone()).chain(longer).collect())
}

/// The search path that a file like /etc/resolv.conf has: that of its last line about it.
pub fn searched(resolv_conf: &str) -> Vec<Name> {
    let words = resolv_conf.lines().rev().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let key = words.next()?;
        ["search", "domain"].contains(&key).then_some(words)
    });
    let names = words
        .into_iter()
        .flatten()
        .filter_map(|word| word.parse().ok());
    names.filter(|name: &Name| !name.is_root()).collect()
}

/// Whether an answer ends the search.
pub fn is_end(answer: &Answer) -> bool {
    answer.rcode != Rcode::NXDOMAIN
}

/// What is answered to who asked for the first name: that it is an alias of the one that is there.
pub fn answered(mut answer: Answer, asked: &Name) -> Answer {
    if let Some(first) = answer.answers.first()
        && first.name != *asked
    {
        let alias = Record::new(asked.clone(), first.ttl, Data::Cname(first.name.clone()));
        answer.answers.insert(0, alias);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{Town, question};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn town() -> Town {
        let mut town = Town::default();
        town.namespace("shop").node("node1", "10.0.1.10");
        town.pod("shop/web", "10.244.1.2", false)
            .pod("shop/host", "10.0.1.10", true);
        town
    }

    fn plugin() -> Kubernetes {
        let options = crate::corefile::plugins::Kubernetes {
            zones: vec![name("cluster.local")],
            ..Default::default()
        };
        Kubernetes::new(&options, &[]).unwrap()
    }

    fn tried(client: &str, asked: &str) -> Option<Vec<String>> {
        let view = town().view();
        let asked = name(asked);
        let node = [name("corp.example")];
        let path = path_of_pod(&plugin(), &view, client.parse().unwrap(), &node, &asked)?;
        let names = names(&[name("cluster.local")], &path, &asked)?;
        Some(names.iter().map(Name::to_string).collect())
    }

    #[test]
    fn a_pods_path_ends_with_the_name_as_it_is() {
        assert_eq!(
            tried("10.244.1.2", "Google.com.shop.svc.cluster.local").unwrap(),
            [
                "Google.com.shop.svc.cluster.local.",
                "Google.com.svc.cluster.local.",
                "Google.com.cluster.local.",
                "Google.com.corp.example.",
                "Google.com.",
            ]
        );
    }

    #[test]
    fn who_is_no_pod_goes_through_the_path_itself() {
        let first = "google.com.shop.svc.cluster.local";
        assert_eq!(tried("10.0.1.10", first), None);
        assert_eq!(tried("10.244.9.9", first), None);
        // An address that says it is IPv4 in IPv6's way is the same.
        assert!(tried("::ffff:10.244.1.2", first).is_some());
        for other in [
            "google.com",
            "google.com.cluster.local",
            "google.com.other.svc.cluster.local",
            "shop.svc.cluster.local",
        ] {
            assert_eq!(tried("10.244.1.2", other), None, "{other}");
        }
    }

    #[test]
    fn paths_of_files() {
        let text = "# search no\nsearch a.example b.example.\nnameserver 10.0.0.1\n";
        assert_eq!(searched(text), [name("a.example"), name("b.example")]);
        assert_eq!(searched("search .\n"), []);
        assert_eq!(searched("nameserver 10.0.0.1\n"), []);
    }

    #[test]
    fn what_is_found_is_an_alias_of_what_was_asked_for() {
        let asked = question("google.com.shop.svc.cluster.local A").name;
        let record = Record::new(name("google.com"), 30, Data::A([192, 0, 2, 1].into()));
        let found = Answer {
            answers: vec![record.clone()],
            ..Answer::default()
        };
        let alias = Record::new(asked.clone(), 30, Data::Cname(name("google.com")));
        assert_eq!(answered(found.clone(), &asked).answers, [alias, record]);
        assert_eq!(answered(found.clone(), &name("GOOGLE.com")), found);
        assert_eq!(answered(Answer::default(), &asked), Answer::default());
        assert!(is_end(&Answer::default()));
        assert!(!is_end(&Answer {
            rcode: Rcode::NXDOMAIN,
            ..Answer::default()
        }));
    }
}
