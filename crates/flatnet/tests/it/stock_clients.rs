//! Names asked for by the programs that images bring.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::dns::{field, inside, tried};
use crate::internet::GOOGLE;

/// The programs that people run in pods.
pub fn all(cluster: &Cluster) {
    let service = field(cluster, "svc/my-app", ".spec.clusterIP");
    for (pod, words) in [
        ("netshoot", &["getent", "hosts", "my-app"][..]),
        ("netshoot", &["nslookup", "my-app"]),
        ("netshoot", &["nslookup", "my-app.default"]),
        ("netshoot", &["host", "my-app"]),
        ("netshoot", &["dig", "+search", "+short", "my-app"]),
        ("busybox", &["nslookup", "my-app.default.svc.cluster.local"]),
        ("busybox", &["ping", "-c1", "-W1", "-q", "my-app"]),
        (
            "curl",
            &[
                "curl",
                "-s",
                "-o/dev/null",
                "-w%{remote_ip}",
                "http://my-app",
            ],
        ),
        (
            "curl",
            &[
                "curl",
                "-s",
                "-o/dev/null",
                "-w%{remote_ip}",
                "http://my-app.default",
            ],
        ),
        ("host-net", &["getent", "hosts", "my-app"]),
    ] {
        let (_, said) = tried(cluster, pod, words);
        assert!(said.contains(&service), "{pod} {words:?}: {said}");
    }
    let page = inside(cluster, "busybox", &["wget", "-qO-", "http://my-app"]);
    assert!(page.contains("nginx"), "{page}");
    let own = field(cluster, "svc/kubernetes", ".spec.clusterIP");
    let said = inside(cluster, "netshoot", &["nslookup", "kubernetes.default"]);
    assert!(said.contains(&own) && said.contains("10.96.0.10"), "{said}");
    // A and AAAA at once from one socket, again and again: connection tracking loses some of
    // those where it sees them, and the client waits for five seconds.
    let since = Instant::now();
    let names = ["my-app", "google.com"].repeat(50);
    let again = [&["getent", "ahosts"], &names[..]].concat();
    let all = inside(cluster, "netshoot", &again);
    let found = |ip: &str| {
        all.lines()
            .filter(|line| line.starts_with(ip) && line.contains("STREAM"))
            .count()
    };
    assert_eq!((found(&service), found(GOOGLE)), (50, 50), "{all}");
    assert!(since.elapsed() < Duration::from_secs(5), "{since:?}");
    of_musl(cluster, &service);
    // Over a connection that stays.
    let said = inside(
        cluster,
        "netshoot",
        &[
            "dig",
            "+tcp",
            "+keepopen",
            "+short",
            "my-app.default.svc.cluster.local",
            "google.com",
        ],
    );
    assert_eq!(said, format!("{service}\n{GOOGLE}\n"));
}

/// A program of musl's, whose resolver asks for A and AAAA at once and takes answers as they come.
fn of_musl(cluster: &Cluster, service: &str) {
    let Some(compiler) =
        testing::program("names_are_resolved_as_the_guides_show (musl)", "musl-gcc")
    else {
        return;
    };
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("getaddrinfo-musl");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/getaddrinfo.c");
    let built = Command::new(compiler)
        .args(["-static", "-O1", "-o"])
        .arg(&program)
        .arg(source)
        .status();
    assert!(built.unwrap().success());
    let to = ["exec", "-i", "netshoot", "--", "tee", "/tmp/getaddrinfo"];
    let copied = cluster
        .kubectl(&to)
        .stdin(File::open(&program).unwrap())
        .stdout(Stdio::null())
        .status();
    assert!(copied.unwrap().success());
    inside(cluster, "netshoot", &["chmod", "+x", "/tmp/getaddrinfo"]);
    let names = [
        "my-app",
        "my-app.default",
        "my-app.default.svc.cluster.local",
        "google.com",
        "external-db",
        "nobody",
    ];
    let said = inside(
        cluster,
        "netshoot",
        &[&["/tmp/getaddrinfo"], &names[..]].concat(),
    );
    let expected = format!(
        "my-app {service}\nmy-app.default {service}\nmy-app.default.svc.cluster.local {service}\n\
         google.com {GOOGLE}\nexternal-db {GOOGLE}\nnobody: Name does not resolve\n"
    );
    assert_eq!(said, expected);
}
