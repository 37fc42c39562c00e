//! `policy list`: which policies are about a pod.

use lab::paths::ClusterPaths;
use model::{Cluster, Direction, Key, NetworkPolicy};
use policy::explain::{self, Listed, Listing, words};
use serde::Serialize;
use trace::{End, ends};

use super::known::{Known, known};
use crate::cli::{List, Output};
use crate::commands::{Failure, Outcome, runtime};
use crate::output;

/// One policy and how many pods it is about.
#[derive(Serialize)]
struct Summary {
    kind: &'static str,
    policy: Key,
    selector: String,
    pods: usize,
    /// How many rules; absent where it is not about that direction.
    ingress: Option<usize>,
    egress: Option<usize>,
}

/// The policies of one pod.
#[derive(Serialize)]
struct OfPod {
    pod: Key,
    #[serde(flatten)]
    listing: Listing,
}

/// Prints the policies about a pod, or all.
pub fn list(paths: &ClusterPaths, words: &List, output: Output) -> Outcome {
    let place = words
        .pod
        .as_deref()
        .map(|text| ends::parse(text).map(|(place, _)| place));
    let place = place.transpose();
    let place = place.map_err(|error| Failure::Usage(error.to_string()))?;
    let Known { cluster, .. } = runtime()?.block_on(known(paths))?;
    let Some(place) = place else {
        return all(&cluster, output);
    };
    let found = ends::find(&place, &cluster, &[]);
    let end = found.map_err(|error| Failure::Failed(error.to_string()))?;
    let End::Pod(pod) = end else {
        return Err(Failure::Failed(format!(
            "{}: policies are about pods with addresses of their own only",
            end.name()
        )));
    };
    let key = (pod.namespace.clone(), pod.name.clone());
    let listing = explain::list(&cluster, cluster.pods.get(&key).unwrap_or(&pod));
    if output == Output::Json {
        output::json(&OfPod { pod: key, listing })?;
        return Ok(());
    }
    output::print(&format!(
        "pod {} ({})\n",
        words::key(&key),
        labels(&pod.labels)
    ));
    for direction in Direction::ALL {
        print(&listing, direction);
    }
    Ok(())
}

fn labels(labels: &model::Labels) -> String {
    let all: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    match all.is_empty() {
        true => "no labels".into(),
        false => all.join(","),
    }
}

/// One direction: what it comes to, and by which rules.
fn print(listing: &Listing, direction: Direction) {
    let (word, comes) = match direction {
        Direction::Ingress => ("Ingress", &listing.ingress),
        Direction::Egress => ("Egress", &listing.egress),
    };
    output::print(&format!("\n{word}: {comes}\n"));
    let ours = listing
        .policies
        .iter()
        .filter(|one| one.direction == direction);
    let rows: Vec<Vec<String>> = ours.flat_map(rows).collect();
    if !rows.is_empty() {
        output::table(&["TIER", "POLICY", "SELECTS", "RULE"], rows);
    }
}

/// A line for each rule, the policy only in the first.
fn rows(one: &Listed) -> Vec<Vec<String>> {
    let tier = match one.priority {
        Some(priority) => format!("{} {priority}", one.tier),
        None => one.tier.to_owned(),
    };
    let mut rules = one.rules.clone();
    if rules.is_empty() {
        rules.push("(none: allows nothing)".into());
    }
    let rows = rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| match index {
            0 => vec![
                tier.clone(),
                words::key(&one.policy),
                selects(&one.selector),
                rule,
            ],
            _ => vec![String::new(), String::new(), String::new(), rule],
        });
    rows.collect()
}

fn selects(selector: &str) -> String {
    match selector {
        "" => "all pods".into(),
        some => some.into(),
    }
}

/// Every policy of the cluster.
fn all(cluster: &Cluster, output: Output) -> Outcome {
    let own = cluster.policies.values().map(|policy| Summary {
        kind: "NetworkPolicy",
        policy: policy.key(),
        selector: words::selector(&policy.pods),
        pods: selected(cluster, policy),
        ingress: policy.ingress.as_ref().map(Vec::len),
        egress: policy.egress.as_ref().map(Vec::len),
    });
    let above = cluster.cluster_policies.values().map(|policy| Summary {
        kind: "ClusterNetworkPolicy",
        policy: (String::new(), policy.name.clone()),
        selector: words::selector(&policy.pods),
        pods: explain::subjects(cluster, policy),
        ingress: Some(policy.ingress.len()).filter(|count| *count > 0),
        egress: Some(policy.egress.len()).filter(|count| *count > 0),
    });
    let all: Vec<Summary> = above.chain(own).collect();
    if output == Output::Json {
        output::json(&all)?;
        return Ok(());
    }
    if all.is_empty() {
        output::print("no policies: every pod reaches every other\n");
        return Ok(());
    }
    let rules = |count: Option<usize>| match count {
        None => "-".to_owned(),
        Some(0) => "denied".into(),
        Some(1) => "1 rule".into(),
        Some(count) => format!("{count} rules"),
    };
    let rows = all.iter().map(|one| {
        vec![
            one.kind.to_owned(),
            words::key(&one.policy),
            selects(&one.selector),
            one.pods.to_string(),
            rules(one.ingress),
            rules(one.egress),
        ]
    });
    output::table(
        &["KIND", "POLICY", "SELECTS", "PODS", "INGRESS", "EGRESS"],
        rows.collect(),
    );
    Ok(())
}

/// How many pods a policy is about.
fn selected(cluster: &Cluster, policy: &NetworkPolicy) -> usize {
    let own = cluster
        .pods
        .values()
        .filter(|pod| pod.namespace == policy.namespace);
    own.filter(|pod| !pod.host_network && policy.pods.matches(&pod.labels))
        .count()
}
