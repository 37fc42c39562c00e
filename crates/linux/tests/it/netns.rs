use std::net::TcpListener;

use linux::{NetNs, run_in, sysctl};

use crate::{namespace, root};

struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = NetNs::delete(&self.0);
    }
}

#[test]
fn a_name_is_given_listed_opened_and_taken_away() {
    if !root("netns name") {
        return;
    }
    let name = Named(format!("fn-test-{}", std::process::id()));
    let created = NetNs::create(&name.0).unwrap();
    assert!(NetNs::list().unwrap().contains(&name.0));
    assert_eq!(
        created.id().unwrap(),
        NetNs::named(&name.0).unwrap().id().unwrap()
    );
    assert_ne!(
        created.id().unwrap(),
        NetNs::current().unwrap().id().unwrap()
    );
    let again = NetNs::create(&name.0).unwrap_err();
    assert_eq!(
        again.to_string(),
        format!("network namespace {}: create: file exists", name.0)
    );
    NetNs::delete(&name.0).unwrap();
    assert!(!NetNs::list().unwrap().contains(&name.0));
    NetNs::delete(&name.0).unwrap();
    assert!(NetNs::named(&name.0).unwrap_err().is_not_found());
    assert!(NetNs::create("../x").is_err());
}

#[test]
fn work_runs_inside_and_its_sockets_stay_there() {
    if !root("netns run_in") {
        return;
    }
    let (netns, mut netlink) = namespace();
    netlink.set_up(1).unwrap();
    let port = |netns: &NetNs| {
        run_in(netns, || TcpListener::bind("127.0.0.1:4321").map(drop))
            .unwrap()
            .is_ok()
    };
    let inside = run_in(&netns, || TcpListener::bind("127.0.0.1:4321"))
        .unwrap()
        .unwrap();
    assert!(!port(&netns), "taken inside");
    let (other, mut netlink) = namespace();
    netlink.set_up(1).unwrap();
    assert!(port(&other), "free elsewhere");
    drop(inside);
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    if !root("sysctl") {
        return;
    }
    let (netns, _) = namespace();
    let key = "net/ipv4/ip_forward";
    let before = sysctl::read(key).unwrap();
    run_in(&netns, || {
        sysctl::write(key, "0").unwrap();
        assert!(sysctl::write(key, "1").unwrap());
        assert!(!sysctl::write(key, "1").unwrap());
        assert_eq!(sysctl::read(key).unwrap().as_deref(), Some("1"));
        assert_eq!(sysctl::read("net/ipv4/nothing_such").unwrap(), None);
        assert!(!sysctl::write_if_possible("net/ipv4/nothing_such", "1").unwrap());
        let wrong = sysctl::write(key, "many").unwrap_err();
        assert_eq!(
            wrong.to_string(),
            "sysctl net/ipv4/ip_forward: write: invalid argument"
        );
    })
    .unwrap();
    assert_eq!(sysctl::read(key).unwrap(), before);
}
