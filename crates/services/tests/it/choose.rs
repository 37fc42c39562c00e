//! Which endpoints a Service's port leads to from node1, as kube-proxy 1.36 chooses them.

use model::{Cluster, Endpoint, TrafficPolicy};
use services::plan::Plan;

use crate::build::{Put as _, cluster, endpoint, key, leaving, plan, service, slice, unready};

/// The addresses of both lists of the only port.
fn lists(plan: &Plan) -> (Vec<String>, Vec<String>) {
    let port = plan.ports_of(&key("a")).next().unwrap();
    let names = |list: &[services::Backend]| list.iter().map(|one| one.ip.to_string()).collect();
    (names(&port.cluster), names(&port.local))
}

/// With the internal policy Local, so that both lists are made.
fn with(slices: Vec<Vec<Endpoint>>) -> Cluster {
    let mut cluster = cluster();
    let mut one = service("a", 1);
    one.internal_policy = TrafficPolicy::Local;
    one.put(&mut cluster);
    for (index, endpoints) in slices.into_iter().enumerate() {
        slice("a", &index.to_string(), endpoints).put(&mut cluster);
    }
    cluster
}

fn chosen(endpoints: Vec<Endpoint>) -> (Vec<String>, Vec<String>) {
    lists(&plan(&with(vec![endpoints])))
}

fn strings(of: &[&str]) -> Vec<String> {
    of.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn ready_endpoints_are_chosen_and_no_others() {
    let (all, local) = chosen(vec![
        endpoint("10.244.2.1"),
        endpoint("10.244.1.1"),
        unready(endpoint("10.244.1.2")),
        leaving(endpoint("10.244.1.3")),
    ]);
    assert_eq!(all, ["10.244.1.1", "10.244.2.1"]);
    assert_eq!(local, ["10.244.1.1"]);
}

#[test]
fn for_want_of_ready_ones_those_that_leave_and_still_serve() {
    let (all, local) = chosen(vec![
        leaving(endpoint("10.244.1.1")),
        leaving(endpoint("10.244.2.1")),
        unready(endpoint("10.244.1.2")),
        unready(leaving(endpoint("10.244.1.3"))),
    ]);
    assert_eq!(all, ["10.244.1.1", "10.244.2.1"]);
    assert_eq!(local, ["10.244.1.1"]);
}

#[test]
fn each_policy_decides_by_itself_whether_to_use_those_that_leave() {
    let (all, local) = chosen(vec![
        leaving(endpoint("10.244.1.1")),
        endpoint("10.244.2.1"),
    ]);
    assert_eq!(all, ["10.244.2.1"]);
    assert_eq!(local, ["10.244.1.1"]);
}

fn for_node(mut endpoint: Endpoint, node: &str) -> Endpoint {
    endpoint.for_nodes.push(node.to_owned());
    endpoint
}

fn for_zone(mut endpoint: Endpoint, zone: &str) -> Endpoint {
    endpoint.for_zones.push(zone.to_owned());
    endpoint
}

#[test]
fn node_hints_come_before_zone_hints() {
    let both = |address, node, zone| for_zone(for_node(endpoint(address), node), zone);
    let (all, _) = chosen(vec![
        both("10.244.1.1", "node1", "a"),
        both("10.244.1.2", "node2", "a"),
        both("10.244.2.1", "node2", "b"),
    ]);
    assert_eq!(all, ["10.244.1.1"]);
}

#[test]
fn zone_hints_hold_where_no_node_hint_names_this_node() {
    let both = |address, node, zone| for_zone(for_node(endpoint(address), node), zone);
    let (all, local) = chosen(vec![
        both("10.244.1.1", "node2", "b"),
        both("10.244.1.2", "node2", "a"),
        both("10.244.2.1", "node3", "a"),
    ]);
    assert_eq!(all, ["10.244.1.2", "10.244.2.1"]);
    // Hints are nothing to the Local policy.
    assert_eq!(local, ["10.244.1.1", "10.244.1.2"]);
}

#[test]
fn hints_are_ignored_where_a_ready_endpoint_has_none() {
    let (all, _) = chosen(vec![
        for_zone(endpoint("10.244.1.1"), "a"),
        endpoint("10.244.2.1"),
    ]);
    assert_eq!(all, ["10.244.1.1", "10.244.2.1"]);
    let (all, _) = chosen(vec![
        for_zone(endpoint("10.244.1.1"), "a"),
        for_zone(endpoint("10.244.2.1"), "b"),
        unready(endpoint("10.244.2.2")),
    ]);
    assert_eq!(all, ["10.244.1.1"]);
}

#[test]
fn hints_are_ignored_where_none_names_this_node_or_zone() {
    let (all, _) = chosen(vec![
        for_zone(endpoint("10.244.1.1"), "b"),
        for_zone(endpoint("10.244.2.1"), "c"),
    ]);
    assert_eq!(all, ["10.244.1.1", "10.244.2.1"]);
    let (all, _) = chosen(vec![for_node(endpoint("10.244.2.1"), "node2")]);
    assert_eq!(all, ["10.244.2.1"]);
}

#[test]
fn a_hint_of_an_endpoint_that_is_not_ready_counts_for_nothing() {
    let (all, _) = chosen(vec![
        leaving(for_zone(endpoint("10.244.1.1"), "a")),
        for_zone(endpoint("10.244.2.1"), "b"),
    ]);
    assert_eq!(all, ["10.244.2.1"]);
    // Only those that leave are there: all of them, wherever they are for.
    let (all, _) = chosen(vec![
        leaving(for_zone(endpoint("10.244.1.1"), "a")),
        leaving(for_zone(endpoint("10.244.2.1"), "b")),
    ]);
    assert_eq!(all, ["10.244.1.1", "10.244.2.1"]);
}

#[test]
fn an_endpoint_in_two_slices_is_one_and_the_one_that_stays_counts() {
    let twice = |first: Endpoint, second: Endpoint| {
        let one = lists(&plan(&with(vec![
            vec![first.clone()],
            vec![second.clone()],
        ])));
        let same = lists(&plan(&with(vec![vec![first, second]])));
        assert_eq!(one, same);
        one
    };
    let here = || endpoint("10.244.1.1");
    let (all, local) = twice(here(), here());
    assert_eq!(
        (all, local),
        (strings(&["10.244.1.1"]), strings(&["10.244.1.1"]))
    );
    // A new pod with the address of one that leaves, whichever is seen first.
    let mut elsewhere = here();
    elsewhere.node = Some("node2".to_owned());
    for (first, second) in [
        (leaving(elsewhere.clone()), here()),
        (here(), leaving(elsewhere)),
    ] {
        assert_eq!(
            twice(first, second),
            (strings(&["10.244.1.1"]), strings(&["10.244.1.1"]))
        );
    }
    // Of two that stay the later, in a slice as in kube-proxy, and by the slices' names.
    assert_eq!(twice(here(), unready(here())).0, strings(&[]));
    assert_eq!(twice(unready(here()), here()).0, strings(&["10.244.1.1"]));
    // A new pod that is not ready yet hides the one that leaves, as in kube-proxy.
    assert_eq!(twice(leaving(here()), unready(here())).0, strings(&[]));
}

/// Address and state of each endpoint, with the lists it is in.
fn considered(endpoints: Vec<Endpoint>) -> Vec<String> {
    let cluster = with(vec![endpoints]);
    let plan = plan(&cluster);
    let port = plan.ports_of(&key("a")).next().unwrap();
    let said = |one: &services::plan::Considered| {
        let lists = match (one.cluster, one.local) {
            (true, true) => "both",
            (true, false) => "cluster",
            (false, true) => "local",
            (false, false) => "none",
        };
        format!("{} {lists}: {}", one.backend.ip, one.why)
    };
    plan.considered(&cluster, port).iter().map(said).collect()
}

#[test]
fn each_endpoint_has_its_reason() {
    assert_eq!(
        considered(vec![
            for_zone(endpoint("10.244.2.1"), "a"),
            for_zone(endpoint("10.244.1.1"), "b"),
            leaving(endpoint("10.244.1.2")),
            unready(endpoint("10.244.1.3")),
        ]),
        [
            "10.244.1.1 local: ready, for other zones by its hints",
            "10.244.1.2 none: terminating, while others are ready",
            "10.244.1.3 none: not ready",
            "10.244.2.1 cluster: ready",
        ]
    );
    assert_eq!(
        considered(vec![
            for_node(endpoint("10.244.1.1"), "node1"),
            for_node(endpoint("10.244.2.1"), "node2"),
        ]),
        [
            "10.244.1.1 both: ready",
            "10.244.2.1 none: ready, for other nodes by its hints",
        ]
    );
    assert_eq!(
        considered(vec![leaving(endpoint("10.244.1.2"))]),
        ["10.244.1.2 both: terminating, but it still serves and no other is ready"]
    );
}
