//! How a name is resolved, step by step, as far as the watched state tells.

use super::search::Search;
use crate::plan::View;
use crate::plugins::kubernetes::{Found, Kubernetes};
use crate::query::Answer;
use crate::wire::{Class, Name, NameError, Question, Rcode, Type};

/// One name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name.
    pub name: Name,
    /// What was said about each type that was asked for.
    pub said: Vec<(Type, Said)>,
}

/// What is said about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The plugin `kubernetes` answers this; where its `lookups` are not empty, what they are
    /// about would be forwarded.
    Cluster(Found),
    /// It is no name of the cluster: it would be forwarded.
    Forwarded,
}

impl Said {
    /// Whether a resolver is content with it. What is forwarded is told by others: a name as it was
    /// given is taken to be there, one with a domain of the search path behind it is not.
    fn ends(&self, complete: bool) -> bool {
        match self {
            Self::Cluster(found) => !found.answer.answers.is_empty(),
            Self::Forwarded => complete,
        }
    }

    /// The answer, where the cluster has one.
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Cluster(found) => Some(&found.answer),
            Self::Forwarded => None,
        }
    }
}

impl Step {
    /// Whether there is such a name, as far as is known here.
    pub fn exists(&self) -> bool {
        let mut answers = self.said.iter().map(|(_, said)| said.answer());
        answers.any(|answer| answer.is_none_or(|answer| answer.rcode == Rcode::NOERROR))
    }
}

/// The names that a resolver asks for, one after the other, until it has an answer.
///
/// # Errors
/// `text` is no name.
pub fn resolve(
    search: &Search,
    plugin: &Kubernetes,
    view: &View,
    text: &str,
    kinds: &[Type],
) -> Result<Vec<Step>, NameError> {
    let own: Name = text.parse()?;
    let mut steps = Vec::new();
    for name in search.names(text)? {
        let said: Vec<(Type, Said)> = kinds
            .iter()
            .map(|kind| (*kind, said(plugin, view, &name, *kind)))
            .collect();
        let end = said.iter().any(|(_, said)| said.ends(name == own));
        steps.push(Step { name, said });
        if end {
            break;
        }
    }
    Ok(steps)
}

fn said(plugin: &Kubernetes, view: &View, name: &Name, kind: Type) -> Said {
    let question = Question {
        name: name.clone(),
        kind,
        class: Class::IN,
    };
    let found = plugin.answer(Some(view), &question);
    found.map_or(Said::Forwarded, Said::Cluster)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{Town, answered};

    /// The search path and `ndots` of a `resolv.conf`, as the kubelet writes it.
    fn pod(ndots: usize) -> Search {
        Search::parse(&format!(
            "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local \
             cluster.local corp.example\noptions edns0 ndots:{ndots}\n"
        ))
    }

    fn steps(search: &Search, text: &str) -> Vec<String> {
        let mut town = Town::default();
        town.namespace("default")
            .service("default/web", &["10.96.0.1"], &["http/TCP/80"]);
        town.namespace("shop").alias("shop/out", "www.example.com");
        let options = crate::corefile::plugins::Kubernetes {
            zones: vec!["cluster.local".parse().unwrap()],
            ..Default::default()
        };
        let plugin = Kubernetes::new(&options, &[]).unwrap();
        let steps = resolve(search, &plugin, &town.view(), text, &[Type::A, Type::AAAA]).unwrap();
        let steps = steps.iter().map(|step| {
            let said = match &step.said[0].1 {
                Said::Cluster(found) => answered(Some(found))[0].clone(),
                Said::Forwarded => "forwarded".to_owned(),
            };
            format!("{} {said} {}", step.name, step.exists())
        });
        steps.collect()
    }

    #[test]
    fn a_short_name_is_found_in_the_own_namespace() {
        assert_eq!(
            steps(&pod(5), "web"),
            ["web.default.svc.cluster.local. NOERROR true"]
        );
        assert_eq!(
            steps(&pod(5), "out.shop"),
            [
                "out.shop.default.svc.cluster.local. NXDOMAIN false",
                "out.shop.svc.cluster.local. NOERROR true",
            ]
        );
    }

    #[test]
    fn a_name_outside_goes_through_the_whole_path() {
        assert_eq!(
            steps(&pod(5), "google.com"),
            [
                "google.com.default.svc.cluster.local. NXDOMAIN false",
                "google.com.svc.cluster.local. NXDOMAIN false",
                "google.com.cluster.local. NXDOMAIN false",
                "google.com.corp.example. forwarded true",
                "google.com. forwarded true",
            ]
        );
        assert_eq!(
            steps(&pod(5), "google.com."),
            ["google.com. forwarded true"]
        );
        assert_eq!(steps(&pod(1), "google.com"), ["google.com. forwarded true"]);
        assert!(
            resolve(
                &pod(5),
                &Kubernetes::new(
                    &crate::corefile::plugins::Kubernetes {
                        zones: vec!["cluster.local".parse().unwrap()],
                        ..Default::default()
                    },
                    &[]
                )
                .unwrap(),
                &View::default(),
                "a..b",
                &[]
            )
            .is_err()
        );
    }
}
