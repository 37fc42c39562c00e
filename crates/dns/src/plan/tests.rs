//! Names kept by what changes are those made at once.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use model::{Change, Changed, Cluster, EndpointSlice, Labels, Namespace};
use proptest::prelude::*;

use super::testing::{Town, endpoint, service};
use super::{Names, Whose, programmed};

/// Few names and addresses, so that they meet.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let space = || prop_oneof![Just("a"), Just("b")];
    let name = || prop_oneof![Just("web"), Just("db"), Just("not.a.label")];
    let ip = |range: &'static str| (1..4_u8).prop_map(move |last| format!("{range}{last}"));
    let ips = proptest::collection::vec(ip("10.96.0."), 0..2);
    let endpoints = proptest::collection::vec((ip("10.244.0."), any::<bool>(), 0..3), 0..40);
    prop_oneof![
        1 => (space(), any::<bool>()).prop_map(|(name, there)| {
            let name = name.to_owned();
            if there {
                let labels = Labels::default();
                Change::Namespace(Arc::new(Namespace { name, labels }))
            } else {
                Change::NamespaceGone(name)
            }
        }),
        3 => (space(), name(), ips, 0..3_u8).prop_map(|(space, name, ips, outside)| {
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            let mut service = service(&format!("{space}/{name}"), &ips, &["http/TCP/80"]);
            service.external_ips = (0..outside).map(|n| [192, 0, 2, n].into()).collect();
            Change::Service(Arc::new(service))
        }),
        1 => (space(), name()).prop_map(|(space, name)| Change::ServiceGone(space.into(), name.into())),
        3 => (space(), name(), 0..2, endpoints).prop_map(|(space, service, number, endpoints)| {
            let endpoints = endpoints.iter().map(|(ip, ready, called)| {
                let called = ["", " host=first", " pod=web-0"][*called as usize];
                endpoint(&format!("{ip}{called}{}", if *ready { "" } else { " unready" }))
            });
            Change::Slice(Arc::new(EndpointSlice {
                namespace: space.to_owned(),
                name: format!("slice{number}"),
                service: service.to_owned(),
                v6: false,
                ports: Vec::new(),
                endpoints: endpoints.collect(),
                triggered: None,
            }))
        }),
        1 => (space(), 0..2).prop_map(|(space, number)| Change::SliceGone(space.into(), format!("slice{number}"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever order changes come in, in whatever portions, and some of them twice.
    #[test]
    fn names_kept_are_names_made_at_once(
        changes in proptest::collection::vec((change(), any::<bool>(), any::<bool>()), 0..40),
    ) {
        let (mut cluster, mut names) = (Cluster::default(), Names::default());
        let mut changed = Changed::default();
        for (change, twice, now) in changes {
            cluster.note(change.clone(), &mut changed);
            if now {
                names.update(&cluster, &changed, UNIX_EPOCH);
                if twice {
                    names.update(&cluster, &changed, UNIX_EPOCH);
                }
                changed = Changed::default();
                prop_assert_eq!(names.dump(), Names::of(&cluster, UNIX_EPOCH).dump());
            }
        }
        names.update(&cluster, &changed, UNIX_EPOCH);
        prop_assert_eq!(names.dump(), Names::of(&cluster, UNIX_EPOCH).dump());
    }
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let mut town = Town::default();
    town.namespace("a")
        .service("a/web", &["10.96.0.1"], &["http/TCP/80"]);
    town.slice("a/web", &[], &["10.244.0.1"]);
    town.take(Change::SliceGone("a".into(), "web-a".into()));
    town.take(Change::ServiceGone("a".into(), "web".into()));
    assert!(town.names.has_namespace(b"a"));
    town.take(Change::NamespaceGone("a".into()));
    assert_eq!(town.names.dump(), Names::default().dump());
}

#[test]
fn readers_keep_what_they_have() {
    let mut town = Town::default();
    town.service("a/web", &["10.96.0.1"], &["http/TCP/80"]);
    let before = town.view();
    town.service("a/web", &["10.96.0.2"], &["http/TCP/80"]);
    let has = |names: &Names, ip: &str| names.owners(Whose::Cluster, ip.parse().unwrap()).count();
    assert_eq!(
        (
            has(&before.names, "10.96.0.1"),
            has(&before.names, "10.96.0.2")
        ),
        (1, 0)
    );
    assert_eq!(
        (has(&town.names, "10.96.0.1"), has(&town.names, "10.96.0.2")),
        (0, 1)
    );
}

#[test]
fn many_endpoints_are_found_by_their_names() {
    let mut town = Town::default();
    let texts: Vec<String> = (0..200_u8)
        .map(|n| match n % 4 {
            0 => format!("10.244.0.{n} host=web-{n}"),
            1 => format!("10.244.0.{n} pod=pod-{n}"),
            2 => format!("10.244.0.{n} more=10.244.1.{n}"),
            _ => format!("10.244.0.{n} unready"),
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    town.service("a/web", &[], &["http/TCP/80"])
        .slice("a/web", &["http/TCP/80"], &texts);
    let entry = town.names.service_named("a", "web").unwrap();
    let found = |label: &str, pods: bool| -> Vec<String> {
        let found = entry.named(label.as_bytes(), pods);
        found.iter().map(|one| one.ip.to_string()).collect()
    };
    assert_eq!(found("WEB-8", false), ["10.244.0.8"]);
    assert_eq!(found("10-244-0-9", false), ["10.244.0.9"]);
    assert_eq!(found("pod-9", false), [""; 0]);
    assert_eq!(found("pod-9", true), ["10.244.0.9"]);
    assert_eq!(found("10-244-0-9", true), [""; 0]);
    assert_eq!(found("10-244-0-10", false), ["10.244.0.10"]);
    assert_eq!(found("10-244-1-10", true), ["10.244.1.10"]);
    assert_eq!(found("10-244-0-11", false), [""; 0]);
    assert_eq!(entry.addresses().count(), 50 + 50 + 100);
}

#[test]
fn what_changed_in_the_names_is_timed_from_where_it_began() {
    let slice = |triggered, ips: &[&str]| {
        Change::Slice(Arc::new(EndpointSlice {
            namespace: "a".to_owned(),
            name: "web-1".to_owned(),
            service: "web".to_owned(),
            v6: false,
            ports: Vec::new(),
            endpoints: ips.iter().map(|ip| endpoint(ip)).collect(),
            triggered,
        }))
    };
    let mut cluster = Cluster::default();
    let mut times = |change| {
        let (before, mut changed) = (cluster.clone(), Changed::default());
        cluster.note(change, &mut changed);
        programmed(&before, &cluster, &changed)
    };
    assert_eq!(times(slice(Some(1000), &["10.244.0.1"])), []);
    assert_eq!(
        times(Change::Service(Arc::new(service(
            "a/web",
            &["10.96.0.1"],
            &[]
        )))),
        []
    );
    assert_eq!(
        times(slice(Some(2000), &["10.244.0.2"])),
        [("cluster_ip", 2000)]
    );
    assert_eq!(
        times(Change::Service(Arc::new(service("a/web", &[], &[])))),
        []
    );
    assert_eq!(
        times(slice(Some(3000), &["10.244.0.3"])),
        [("headless_with_selector", 3000)]
    );
    assert_eq!(times(slice(None, &["10.244.0.4"])), []);
}
