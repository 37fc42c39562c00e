//! Sources of answers: files, templates, search paths, views, whole zones.

use std::sync::Arc;
use std::time::Instant;

use super::{server, shown, try_server};
use crate::plugins::tests::query;
use crate::query::{Outcome, Transport};
use crate::wire::{Rcode, Type};

#[tokio::test]
async fn zones_out_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.test");
    std::fs::write(&path, "@ 60 SOA ns host 7 1 1 1 1\n@ NS ns\nns A 10.0.0.1\nwww CNAME a.other.\nout CNAME nobody.else.\n").unwrap();
    let server = server(&format!(
        "test {{\n transfer {{\n to 10.244.1.5\n }}\n file {} {{\n fallthrough sub.test\n }}\n hosts /nowhere sub.test {{\n 10.0.0.5 a.sub.test\n }}\n}}\n\
         other {{\n hosts /nowhere {{\n 10.0.0.2 a.other\n }}\n}}\n",
        path.display()
    ));
    assert_eq!(
        server.says("ns.test", Type::A).await,
        "NOERROR; ns.test. A 10.0.0.1"
    );
    assert_eq!(
        server.says("www.test", Type::A).await,
        "NOERROR; www.test. CNAME a.other.; a.other. A 10.0.0.2"
    );
    // Nobody here knows: who asked chases it itself.
    assert_eq!(
        server.says("out.test", Type::A).await,
        "NOERROR; out.test. CNAME nobody.else."
    );
    assert_eq!(server.says("none.test", Type::A).await, "NXDOMAIN");
    let mut zone = query("test", Type::AXFR);
    assert_eq!(server.answer(&mut zone).await.rcode, Rcode::REFUSED);
    zone.transport = Transport::Tcp;
    let Outcome::Messages(messages) = server.outcome(&mut zone).await else {
        panic!()
    };
    assert_eq!(messages[0].answers.len(), 6);
    assert_eq!(
        server.output.take(),
        "[INFO] plugin/transfer: Outgoing transfer of 6 records of zone \"test.\" to 10.244.1.5 for 7 SOA serial\n"
    );
    zone.client = "10.244.9.9:1".parse().unwrap();
    assert_eq!(server.answer(&mut zone).await.rcode, Rcode::REFUSED);
}

#[tokio::test]
async fn files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (zone, hosts) = (folder.path().join("db"), folder.path().join("hosts"));
    std::fs::write(&zone, "@ 60 SOA ns host 7 1 1 1 1\na A 10.0.0.1\n").unwrap();
    std::fs::write(&hosts, "10.0.0.1 a.hosts\n").unwrap();
    let server = server(&format!(
        "test {{\n file {} {{\n reload 100ms\n }}\n}}\nhosts {{\n hosts {} {{\n reload 100ms\n }}\n}}\n",
        zone.display(),
        hosts.display()
    ));
    assert_eq!(
        server.says("a.test", Type::A).await,
        "NOERROR; a.test. A 10.0.0.1"
    );
    assert_eq!(
        server.says("a.hosts", Type::A).await,
        "NOERROR; a.hosts. A 10.0.0.1"
    );
    let tends = server
        .router
        .sites()
        .iter()
        .map(|site| tokio::spawn(Arc::clone(&site.chain).tend()));
    let tends: Vec<_> = tends.collect();
    std::fs::write(&zone, "@ 60 SOA ns host 8 1 1 1 1\na A 10.0.0.22\n").unwrap();
    std::fs::write(&hosts, "10.0.0.22 a.hosts\n").unwrap();
    let deadline = Instant::now() + std::time::Duration::from_secs(10);
    let wait = async || {
        assert!(Instant::now() < deadline, "the files are not read again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let becomes = async |name: &str| {
        while !server.says(name, Type::A).await.ends_with("10.0.0.22") {
            wait().await;
        }
    };
    becomes("a.test").await;
    becomes("a.hosts").await;
    let line = server.output.take();
    assert!(
        line.starts_with("[INFO] plugin/file: Successfully reloaded zone \"test.\""),
        "{line}"
    );
    // What is broken changes nothing, and is told.
    std::fs::write(&zone, "@ 60 SOA ns host 9 1 1 1 1\na A x\n").unwrap();
    let mut told = String::new();
    while told.is_empty() {
        wait().await;
        told = server.output.take();
    }
    assert!(
        told.starts_with("[ERROR] plugin/file: Parsing zone \"test.\": "),
        "{told}"
    );
    assert!(told.contains("db:2: \"x\" is no IPv4 address"), "{told}");
    assert_eq!(
        server.says("a.test", Type::A).await,
        "NOERROR; a.test. A 10.0.0.22"
    );
    tends.iter().for_each(|tend| tend.abort());
}

#[tokio::test]
async fn templates_come_before_the_cluster() {
    let server = server(
        ". {\n kubernetes cluster.local\n\
         template IN A cluster.local {\n match ^(?P<n>[0-9]+)\\.numbers\\.\n\
         answer \"{{ .Name }} 60 IN A 10.0.0.{{ .Group.n }}\"\n fallthrough\n }\n\
         template IN ANY alias {\n answer \"{{ .Name }} 60 IN CNAME web.default.svc.cluster.local.\"\n }\n\
         template IN A broken {\n answer \"{{ .Name }} 60 IN A {{ index .Match 7 }}\"\n }\n errors\n}\n",
    );
    assert_eq!(
        server.says("7.numbers.cluster.local", Type::A).await,
        "NOERROR; 7.numbers.cluster.local. A 10.0.0.7"
    );
    assert_eq!(
        server.says("web.default.svc.cluster.local", Type::A).await,
        "NOERROR; web.default.svc.cluster.local. A 10.96.0.7"
    );
    assert_eq!(
        server.says("x.alias", Type::A).await,
        "NOERROR; x.alias. CNAME web.default.svc.cluster.local.; \
         web.default.svc.cluster.local. A 10.96.0.7"
    );
    // Other types are not chased.
    assert_eq!(
        server.says("x.alias", Type::TXT).await,
        "NOERROR; x.alias. CNAME web.default.svc.cluster.local."
    );
    assert_eq!(server.says("x.broken", Type::A).await, "SERVFAIL");
    assert_eq!(
        server.output.take(),
        "[ERROR] plugin/errors: 2 x.broken. A: index out of range: 7\n"
    );
}

#[tokio::test]
async fn an_alias_of_itself_ends() {
    let server = server(
        ". {\n template IN A round {\n answer \"{{ .Name }} 60 IN CNAME {{ .Name }}\"\n }\n}\n",
    );
    let answer = server.answer(&mut query("a.round", Type::A)).await;
    assert!(answer.answers.len() < 12, "{}", answer.answers.len());
}

#[tokio::test]
async fn a_template_that_is_not_understood_is_told_with_its_line() {
    let error = try_server(". {\n template IN A . {\n  answer \"{{ .Nmae }}\"\n }\n}\n").err();
    let error = error.unwrap();
    assert!(
        error.starts_with("Corefile:3: template: there is no .Nmae, but "),
        "{error}"
    );
    let error = try_server(". {\n whoami\n view v {\n  expr foo()\n }\n}\n").err();
    assert_eq!(error.unwrap(), "Corefile:4: view: there is no function foo");
}

#[tokio::test]
async fn a_search_path_is_gone_through_by_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "search ns.svc.cluster.local svc.cluster.local\n").unwrap();
    let server = server(&format!(
        ". {{\n autopath {}\n hosts /nowhere {{\n 10.0.0.1 www.example.org\n fallthrough\n }}\n\
         template IN ANY . {{\n rcode NXDOMAIN\n match .*local.$ none.*\n fallthrough\n }}\n}}\n",
        path.display()
    ));
    assert_eq!(
        server
            .says("www.example.org.ns.svc.cluster.local", Type::A)
            .await,
        "NOERROR; www.example.org.ns.svc.cluster.local. CNAME www.example.org.; \
         www.example.org. A 10.0.0.1"
    );
    assert_eq!(
        server.says("none.ns.svc.cluster.local", Type::A).await,
        "NXDOMAIN"
    );
    assert_eq!(
        server
            .says("www.example.org.svc.cluster.local", Type::A)
            .await,
        "NXDOMAIN"
    );
}

#[tokio::test]
async fn views_choose_among_blocks_of_one_zone() {
    let server = server(
        ". {\n view v6 {\n expr type() in ['AAAA'] && incidr(client_ip(), '10.244.0.0/16')\n }\n\
         erratic {\n drop 0\n }\n}\n. {\n view bad {\n expr incidr('x', 'y')\n }\n any\n}\n. {\n whoami\n}\n",
    );
    assert_eq!(
        server.says("a", Type::AAAA).await,
        "NOERROR; a. AAAA 2001:db8::53"
    );
    assert_eq!(server.says("a", Type::A).await, "NOERROR");
    let mut elsewhere = query("a", Type::AAAA);
    elsewhere.client = "10.9.9.9:1".parse().unwrap();
    assert_eq!(shown(&server.answer(&mut elsewhere).await), "NOERROR");
    assert_eq!(server.router.sites()[0].chain.view_name(), "v6");
}

#[tokio::test]
async fn the_clusters_zone_is_given_away_whole() {
    let open = server(". {\n transfer cluster.local {\n to *\n }\n kubernetes cluster.local\n}\n");
    let mut zone = query("cluster.local", Type::AXFR);
    zone.transport = Transport::Tcp;
    let Outcome::Messages(messages) = open.outcome(&mut zone).await else {
        panic!("no zone");
    };
    let names: Vec<String> = messages[0]
        .answers
        .iter()
        .map(|record| record.name.to_string())
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"cluster.local.".to_owned()), names.first())
    );
    assert!(
        names.contains(&"web.default.svc.cluster.local.".to_owned()),
        "{names:?}"
    );
    // Without `transfer` nobody gets it.
    let closed = server(". {\n kubernetes cluster.local\n}\n");
    assert_eq!(closed.answer(&mut zone).await.rcode, Rcode::REFUSED);
}
