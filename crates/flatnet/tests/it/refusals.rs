//! What is refused at once, with what, where and what to do; nothing is made.

use lab::cluster::down;

use crate::cluster::{Cluster, root};

#[test]
fn wrong_ranges_and_modes_are_refused_before_anything_is_made() {
    let cluster = Cluster::named("bad");
    for (words, says) in [
        (
            &["up", "--cluster-cidr", "10.0.0.0/16"][..],
            "--cluster-cidr: 10.0.0.0/16 overlaps the nodes' segment",
        ),
        (
            &["up", "--cluster-cidr", "10.244.0.0/23"],
            "too small for 3 nodes",
        ),
        (&["up", "--service-cidr", "10.244.0.0/20"], "overlaps"),
        (
            &["up", "--fabric", "host-gw", "--subnets", "2"],
            "use cross-subnet",
        ),
        (&["up", "--fabric", "vxlam"], "vxlan"),
        (
            &["up", "--nodes", "0"],
            "--nodes: 0 is not between 1 and 253",
        ),
        (&["up", "-f", "/nonexistent.yaml"], "/nonexistent.yaml"),
        (&["status"], "flatnet up --name"),
        (&["node", "stop", "node1"], "flatnet up --name"),
        (&["env"], "flatnet up --name"),
    ] {
        let (code, text) = cluster.fails(words);
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(
            text.contains(says),
            "{words:?}: {text}\n  does not say {says}"
        );
    }
    assert!(down::leftovers(&cluster.paths).is_empty());
}

#[test]
fn down_without_a_cluster_is_no_error() {
    if !root("down_without_a_cluster_is_no_error") {
        return;
    }
    Cluster::named("none").run(&["down"]);
}
