//! The rules as an operator reads them.

use model::{Service, TrafficPolicy};
use services::render::nftables::table;

use crate::build::{Put, balanced, cluster, endpoint, plan, service, slice};

/// One Service of each kind that has rules of its own.
#[test]
fn a_small_cluster_reads_so() {
    let mut cluster = cluster();
    let two = ["10.244.1.1", "10.244.2.1"].map(endpoint).to_vec();
    service("plain", 1).put(&mut cluster);
    slice("plain", "x", two.clone()).put(&mut cluster);
    Service {
        external_policy: TrafficPolicy::Local,
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        ..balanced("local", 2, "192.0.2.2", 30002)
    }
    .put(&mut cluster);
    slice("local", "x", two.clone()).put(&mut cluster);
    Service {
        affinity: Some(10800),
        ..service("sticky", 3)
    }
    .put(&mut cluster);
    slice("sticky", "x", two).put(&mut cluster);
    service("empty", 4).put(&mut cluster);
    insta::assert_snapshot!(table(&plan(&cluster)));
}
