//! The rules as an operator reads them.

use policy::plan::Plan;
use policy::render::nftables::table;
use serde_json::json;

use super::HERE;
use super::small::{cluster_policy, policy, world};

/// One rule of each kind.
#[test]
fn a_small_cluster_reads_so() {
    let mut world = world();
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "api"}}}],
             "ports": [{"port": 80}, {"port": 443}, {"port": "http"}]},
            {"from": [{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/26"]}},
                      {"ipBlock": {"cidr": "2001:db8::/32"}}],
             "ports": [{"port": 8000, "endPort": 8079}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "b"}}}]},
        ],
        "egress": [
            {"to": [{"namespaceSelector": {}, "podSelector": {}}],
             "ports": [{"port": "http"}, {"protocol": "UDP", "port": 53}]},
        ],
        "policyTypes": ["Ingress", "Egress"],
    });
    policy(&mut world, "shop", "web", &spec);
    let spec = json!({
        "tier": "Admin", "priority": 10,
        "subject": {"namespaces": {"matchLabels": {"team": "a"}}},
        "ingress": [
            {"action": "Deny", "from": [{"pods": {
                "namespaceSelector": {"matchLabels": {"team": "b"}},
                "podSelector": {"matchLabels": {"app": "job"}}}}]},
            {"action": "Pass", "from": [{"namespaces": {}}]},
            {"action": "Accept", "from": [{"namespaces": {}}]},
        ],
        "egress": [
            {"action": "Deny", "to": [{"nodes": {"matchExpressions": [
                {"key": "private", "operator": "Exists"}]}}]},
        ],
    });
    cluster_policy(&mut world, "guard", &spec);
    policy(&mut world, "data", "nobody", &json!({"podSelector": {}}));
    let plan = Plan::of(HERE, &world.cluster, &world.locals);
    insta::assert_snapshot!(table(&plan, 0x1234).unwrap());
}
