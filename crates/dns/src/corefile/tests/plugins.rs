//! What options mean, plugin by plugin.

use std::time::Duration;

use super::{plugins, warnings};
use crate::corefile::plugins::{
    AclAction, AnswerRule, EdnsAction, EdnsData, LoadBalancePolicy, Matcher, MaxTcpQueries, Part,
    PodMode, Policy, Refresh, Replacement, Rule, SearchPath, To, TransferTo,
};
use crate::corefile::{Scheme, Zone};
use crate::wire::{Class, Rcode, Type};

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn acl() {
    let acl = plugins(
        "acl a.example b.example {\n allow net 10.0.0.0/8 2001:db8::1\n block type A AAAA\n \
         filter type * net 192.0.2.1\n DROP\n}\nacl {\n block type A type *\n allow \
         net 10.0.0.0/8 net 10.1.0.0\n}",
    )
    .acl;
    assert_eq!(acl[0].zones, [zone("a.example"), zone("b.example")]);
    let rules = &acl[0].rules;
    let networks: Vec<String> = rules[0]
        .networks
        .as_ref()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.0/8", "2001:db8::1/128"]);
    assert_eq!(
        (rules[0].action, &rules[0].types),
        (AclAction::Allow, &None)
    );
    assert_eq!(rules[1].types, Some(vec![Type::A, Type::AAAA]));
    assert_eq!(rules[1].networks, None);
    assert_eq!(
        (rules[2].action, &rules[2].types),
        (AclAction::Filter, &None)
    );
    assert_eq!(rules[3].action, AclAction::Drop);
    assert_eq!(acl[1].zones, [zone("example.org")]);
    assert_eq!(acl[1].rules[0].types, None);
    let networks = acl[1].rules[1].networks.as_ref();
    assert_eq!(networks.unwrap().len(), 2);
}

#[test]
fn cache() {
    let cache = plugins("cache").cache.unwrap();
    assert_eq!(cache.zones, [zone("example.org")]);
    assert_eq!((cache.success.max_ttl, cache.denial.max_ttl), (3600, 1800));
    assert_eq!((cache.success.min_ttl, cache.success.capacity), (5, 10_000));
    assert_eq!(cache.servfail, seconds(5));
    let cache = plugins(
        "cache 60 a.example {\n success 1000 120 10\n denial 500\n prefetch 5 2m 20%\n \
         serve_stale 2h verify 1s 30s 10s\n serve_stale_policy prefer_positive\n servfail 0\n \
         disable denial b.example\n disable success\n keepttl\n}",
    )
    .cache
    .unwrap();
    assert_eq!(cache.zones, [zone("a.example")]);
    assert_eq!(
        (
            cache.success.capacity,
            cache.success.max_ttl,
            cache.success.min_ttl
        ),
        (1000, 120, 10)
    );
    assert_eq!(
        (
            cache.denial.capacity,
            cache.denial.max_ttl,
            cache.denial.min_ttl
        ),
        (500, 60, 5)
    );
    let prefetch = cache.prefetch.unwrap();
    assert_eq!(
        (prefetch.amount, prefetch.duration, prefetch.percentage),
        (5, seconds(120), 20)
    );
    let stale = cache.serve_stale.unwrap();
    assert_eq!(stale.duration, seconds(7200));
    assert_eq!(stale.refresh, Refresh::Verify(Some(seconds(1))));
    assert_eq!(
        (stale.ttl, stale.recheck, stale.prefer_positive),
        (30, seconds(10), true)
    );
    assert_eq!(cache.servfail, Duration::ZERO);
    assert_eq!(cache.disable_denial, [zone("b.example")]);
    assert_eq!(cache.disable_success, [Zone::root()]);
    assert!(cache.keepttl);
    let cache = plugins("cache {\n prefetch 0\n serve_stale\n}")
        .cache
        .unwrap();
    assert_eq!(cache.prefetch, None);
    let stale = cache.serve_stale.unwrap();
    assert_eq!(
        (stale.duration, stale.refresh),
        (seconds(3600), Refresh::Immediate)
    );
}

#[test]
fn forward() {
    let forward = plugins(
        "forward Example.COM tls://9.9.9.9%dns.quad9.net 8.8.8.8 8.8.8.8 /etc/resolv.conf {\n \
         except a.example 10.0.0.0/23\n force_tcp\n prefer_udp\n expire 20s\n max_age 1m\n \
         max_idle_conns 3\n read_timeout 1s\n max_fails 5\n max_connect_attempts 0\n policy \
         round_robin\n health_check 5s no_rec domain a.example\n max_concurrent 7\n next \
         servfail\n next nxdomain\n next_on_nodata\n failover NXDOMAIN\n failover REFUSED\n \
         failfast_all_unhealthy_upstreams\n tls ca.pem\n doh_method GET\n resolver 1.1.1.1\n \
         source_address 10.0.0.9\n}\nforward . https://1.1.1.1 {\n tls_servername one.one\n \
         max_idle_conns 0\n}",
    )
    .forward;
    let [first, second] = forward.as_slice() else {
        panic!("{forward:?}");
    };
    assert_eq!(first.from, zone("example.com"));
    // The same server twice is one.
    assert_eq!(first.to.len(), 3);
    let To::Server(server) = &first.to[0] else {
        panic!("{:?}", first.to);
    };
    assert_eq!((server.scheme, server.address.port()), (Scheme::Tls, 853));
    assert_eq!(server.server_name.as_deref(), Some("dns.quad9.net"));
    assert_eq!(first.except.len(), 3);
    assert!(first.force_tcp && first.prefer_udp && first.next_on_nodata && first.doh_get);
    assert_eq!(
        (first.expire, first.max_age),
        (seconds(20), Some(seconds(60)))
    );
    assert_eq!(
        (first.max_idle_conns, first.read_timeout),
        (Some(3), seconds(1))
    );
    assert_eq!((first.max_fails, first.max_connect_attempts), (5, Some(0)));
    assert_eq!(first.policy, Policy::RoundRobin);
    assert_eq!(first.health_check.interval, seconds(5));
    assert!(!first.health_check.recursion_desired);
    assert_eq!(first.health_check.domain, zone("a.example"));
    assert_eq!(
        (first.max_concurrent, &first.next),
        (7, &vec![Rcode::SERVFAIL, Rcode::NXDOMAIN])
    );
    assert_eq!(first.failover, [Rcode::NXDOMAIN, Rcode::REFUSED]);
    assert!(first.failfast_all_unhealthy_upstreams);
    assert_eq!(first.tls.ca.as_deref(), Some("ca.pem"));
    assert_eq!(first.resolver[0].to_string(), "1.1.1.1:53");
    assert_eq!(first.source_address.unwrap().to_string(), "10.0.0.9");
    let To::Server(server) = &second.to[0] else {
        panic!("{:?}", second.to);
    };
    assert_eq!((server.scheme, server.address.port()), (Scheme::Https, 443));
    assert_eq!(server.server_name.as_deref(), Some("one.one"));
    assert_eq!((second.max_idle_conns, second.max_fails), (None, 2));
    assert_eq!(second.health_check.interval, Duration::from_millis(500));
}

#[test]
fn hosts() {
    let hosts = plugins(
        "hosts /etc/own.hosts example.org example.net {\n 10.0.0.1 A.example.org b\n ::1 \
         *.example.net\n fe80::1%lo b\n ttl 60\n reload 0s\n no_reverse\n fallthrough\n}",
    )
    .hosts
    .unwrap();
    assert_eq!(hosts.file, "/etc/own.hosts");
    assert_eq!(hosts.zones, [zone("example.org"), zone("example.net")]);
    assert_eq!(hosts.entries[0].address.to_string(), "10.0.0.1");
    assert_eq!(hosts.entries[0].names[0].to_string(), "a.example.org.");
    assert_eq!(hosts.entries[1].names[0].to_string(), "*.example.net.");
    assert_eq!(hosts.entries[2].address.to_string(), "fe80::1");
    assert_eq!(
        (hosts.ttl, hosts.reload, hosts.reverse),
        (60, Duration::ZERO, false)
    );
    assert_eq!(hosts.fallthrough, [Zone::root()]);
    let hosts = plugins("hosts").hosts.unwrap();
    assert_eq!(hosts.file, "/etc/hosts");
    assert_eq!(
        (hosts.ttl, hosts.reload, hosts.reverse),
        (3600, seconds(5), true)
    );
    assert!(hosts.fallthrough.is_empty());
    let told = warnings("hosts {\n no_revers\n 10.0.0 a\n}");
    assert!(
        told.contains(
            "\"no_revers\" is neither an option nor an address; did you mean \
                           \"no_reverse\"?"
        ),
        "{told}"
    );
    assert!(told.contains("\"10.0.0\" is neither"), "{told}");
}

#[test]
fn kubernetes() {
    let kubernetes = plugins(
        "kubernetes 10.96.0.0/16 cluster.local clusterset.local {\n endpoint https://10.0.0.1 \
         https://10.0.0.2\n tls cert key ca\n kubeconfig /root/config ctx\n namespaces a b\n \
         namespaces c\n labels app in (web, api),tier=front\n pods verified\n \
         endpoint_pod_names\n ttl 0\n fallthrough a.example\n ignore empty_service\n \
         multicluster clusterset.local\n startup_timeout 1m\n zonal\n apiserver_qps 2.5\n \
         apiserver_burst 10\n apiserver_max_inflight 3\n upstream\n}",
    )
    .kubernetes
    .unwrap();
    assert_eq!(kubernetes.primary_zone(), Some(&zone("cluster.local")));
    assert_eq!(kubernetes.zones[0], zone("96.10.in-addr.arpa"));
    assert_eq!(kubernetes.endpoint.as_deref(), Some("https://10.0.0.1"));
    let certificate = kubernetes.tls.certificate.unwrap();
    assert_eq!(
        (certificate.0.as_str(), certificate.1.as_str()),
        ("cert", "key")
    );
    let kubeconfig = kubernetes.kubeconfig.unwrap();
    assert_eq!(kubeconfig.file, "/root/config");
    assert_eq!(kubeconfig.context.as_deref(), Some("ctx"));
    let namespaces: Vec<&str> = kubernetes.namespaces.iter().map(String::as_str).collect();
    assert_eq!(namespaces, ["a", "b", "c"]);
    let labels = kubernetes.labels.unwrap();
    assert_eq!(labels.match_labels.get("tier"), Some("front"));
    assert_eq!(labels.match_expressions[0].values, ["api", "web"]);
    assert_eq!((kubernetes.pods, kubernetes.ttl), (PodMode::Verified, 0));
    assert!(kubernetes.endpoint_pod_names && kubernetes.ignore_empty_service && kubernetes.zonal);
    assert_eq!(kubernetes.multicluster, [zone("clusterset.local")]);
    assert_eq!(kubernetes.startup_timeout, seconds(60));
    assert!((kubernetes.apiserver_qps - 2.5).abs() < f32::EPSILON);
    assert_eq!(
        (
            kubernetes.apiserver_burst,
            kubernetes.apiserver_max_inflight
        ),
        (10, 3)
    );
    let arpa = plugins("kubernetes in-addr.arpa").kubernetes.unwrap();
    assert_eq!(arpa.primary_zone(), Some(&zone("in-addr.arpa")));
    let plain = plugins("kubernetes").kubernetes.unwrap();
    assert_eq!(plain.zones, [zone("example.org")]);
    assert_eq!(
        (plain.pods, plain.ttl, plain.endpoints),
        (PodMode::Disabled, 5, true)
    );
    assert_eq!(plain.startup_timeout, seconds(5));
    let told = warnings("kubernetes {\n upstream 8.8.8.8\n endpoint a b\n ignore\n}");
    assert_eq!(told.lines().count(), 3, "{told}");
    let external = plugins("k8s_external a.example {\n apex ns\n ttl 9\n headless\n}");
    let external = external.k8s_external.unwrap();
    assert_eq!(
        (external.apex.as_str(), external.ttl, external.headless),
        ("ns", 9, true)
    );
}

#[test]
fn log() {
    let log = plugins(
        "log\nlog a.example b.example \"{name} {type}\"\nlog . {combined} {\n class denial \
         error\n}\nlog {name}",
    )
    .log;
    assert_eq!(log[0].zones, [Zone::root()]);
    assert!(
        log[0].format.starts_with("{remote}:{port} - {>id}"),
        "{}",
        log[0].format
    );
    assert!(log[0].classes.success && log[0].classes.denial && log[0].classes.error);
    assert_eq!(log[1].zones, [zone("a.example"), zone("b.example")]);
    assert_eq!(log[1].format, "{name} {type}");
    assert!(
        log[2].format.ends_with("{duration} \"{>opcode}\""),
        "{}",
        log[2].format
    );
    assert!(!log[2].classes.success && log[2].classes.denial && log[2].classes.error);
    // A word alone is a name, as with CoreDNS.
    assert_eq!(log[3].zones, [zone("{name}")]);
}

#[test]
fn rewrites_of_names() {
    let rules = plugins(
        "rewrite name A.example b.example\nrewrite continue name suffix .a.example .b.example \
         answer auto\nrewrite stop {\n name regex (.*)\\.a {1}.b\n answer name (.*)\\.b {1}.a\n \
         answer value (.*)\\.c {1}.d\n}\nrewrite name regex ^([^.]+)\\.example\\.$ \
         {1}.{kubernetes/ns}.X metadata answer auto\nrewrite name prefix a. b.\nrewrite name \
         substring a b",
    )
    .rewrite;
    let names: Vec<_> = rules
        .iter()
        .map(|one| match &one.rule {
            Rule::Name(name) => name,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        rules.iter().map(|one| one.proceed).collect::<Vec<_>>(),
        [false, true, false, false, false, false]
    );
    let text = |text: &str| Replacement::Text(text.to_owned());
    assert_eq!(names[0].matcher, Matcher::Exact(zone("a.example")));
    assert_eq!((&names[0].to, names[0].auto), (&text("b.example."), true));
    assert_eq!(names[1].matcher, Matcher::Suffix(".a.example.".to_owned()));
    assert!(names[1].auto);
    assert_eq!(names[2].to, text("{1}.b."));
    assert!(!names[2].auto);
    let [
        AnswerRule::Name { pattern, to },
        AnswerRule::Value { to: value, .. },
    ] = names[2].answers.as_slice()
    else {
        panic!("{:?}", names[2].answers);
    };
    assert_eq!(
        (pattern.as_str(), to.as_str(), value.as_str()),
        (r"(.*)\.b", "{1}.a.", "{1}.d.")
    );
    assert_eq!(
        names[3].to,
        Replacement::Parts(vec![
            Part::Group(1),
            Part::Text(".".to_owned()),
            Part::Metadata("kubernetes/ns".to_owned()),
            Part::Text(".x.".to_owned()),
        ])
    );
    assert_eq!(names[4].matcher, Matcher::Prefix("a.".to_owned()));
    assert_eq!(names[5].matcher, Matcher::Substring("a.".to_owned()));
}

#[test]
fn rewrites_of_other_things() {
    let rules = plugins(
        "rewrite type ANY HINFO\nrewrite class ch in\nrewrite ttl a.example 30-300\nrewrite ttl \
         suffix .a -60\nrewrite rcode regex .* SERVFAIL 0\nrewrite cname exact A.example \
         b.example\nrewrite cname suffix .x .y\nrewrite edns0 local set 0xffee 0x616263 \
         revert\nrewrite edns0 local append 65001 {client_ip}\nrewrite edns0 nsid \
         replace\nrewrite edns0 subnet set 24 56\nrewrite edns0 local unset 0xffee",
    )
    .rewrite;
    let rule = |at: usize| &rules[at].rule;
    assert_eq!(
        rule(0),
        &Rule::Type {
            from: Type::ANY,
            to: Type::HINFO
        }
    );
    assert_eq!(
        rule(1),
        &Rule::Class {
            from: Class::CH,
            to: Class::IN
        }
    );
    assert_eq!(
        rule(2),
        &Rule::Ttl {
            names: Matcher::Exact(zone("a.example")),
            min: 30,
            max: 300
        }
    );
    assert_eq!(
        rule(3),
        &Rule::Ttl {
            names: Matcher::Suffix(".a.".to_owned()),
            min: 0,
            max: 60
        }
    );
    let Rule::Rcode {
        names: Matcher::Regex(_),
        from,
        to,
    } = rule(4)
    else {
        panic!("{:?}", rule(4));
    };
    assert_eq!((*from, *to), (Rcode::SERVFAIL, Rcode::NOERROR));
    assert_eq!(
        rule(5),
        &Rule::Cname {
            matcher: Matcher::Exact(zone("a.example")),
            to: "b.example.".to_owned()
        }
    );
    assert_eq!(
        rule(6),
        &Rule::Cname {
            matcher: Matcher::Suffix(".x".to_owned()),
            to: ".y".to_owned()
        }
    );
    let edns = |at: usize| match rule(at) {
        Rule::Edns0(edns) => (edns.action, edns.data.clone(), edns.revert),
        other => panic!("{other:?}"),
    };
    let local = |data: &[u8]| EdnsData::Local {
        code: 0xffee,
        data: data.to_vec(),
    };
    assert_eq!(edns(7), (EdnsAction::Set, local(b"abc"), true));
    let variable = EdnsData::Variable {
        code: 65001,
        variable: "client_ip".to_owned(),
    };
    assert_eq!(edns(8), (EdnsAction::Append, variable, false));
    assert_eq!(edns(9), (EdnsAction::Replace, EdnsData::Nsid, false));
    assert_eq!(
        edns(10),
        (EdnsAction::Set, EdnsData::Subnet { v4: 24, v6: 56 }, false)
    );
    assert_eq!(edns(11), (EdnsAction::Unset, local(b""), false));
}

#[test]
fn templates() {
    let templates = plugins(
        "template IN A a.example {\n match ^ip-(?P<a>[0-9]*)\n match b\n var x group('a')\n expr \
         x != '' && name() != ''\n answer \"{{ .Name }} 60 IN A 10.0.0.1\"\n additional x\n \
         authority y\n rcode NXDOMAIN\n ederror 21 \"not here\"\n fallthrough b.example\n \
         upstream\n}\ntemplate ANY ANY",
    )
    .template;
    let one = &templates[0];
    assert_eq!(
        (one.class, one.kind, one.rcode),
        (Class::IN, Type::A, Rcode::NXDOMAIN)
    );
    assert_eq!(one.zones, [zone("a.example")]);
    assert_eq!(one.matches.len(), 2);
    assert!(one.matches[0].regex().is_match("ip-1"));
    assert_eq!(one.variables[0].expression, "group('a')");
    assert_eq!(one.conditions, ["x != '' && name() != ''"]);
    assert_eq!(one.answer, ["{{ .Name }} 60 IN A 10.0.0.1"]);
    assert_eq!((one.additional.len(), one.authority.len()), (1, 1));
    let extended = one.extended_error.as_ref().unwrap();
    assert_eq!((extended.code, extended.reason.as_str()), (21, "not here"));
    assert_eq!(one.fallthrough, [zone("b.example")]);
    let any = &templates[1];
    assert_eq!(
        (any.class, any.kind, any.zones.len()),
        (Class::ANY, Type::ANY, 1)
    );
    assert_eq!(any.matches[0].as_str(), ".*");
}

#[test]
fn zones_and_transfers() {
    let plugins = plugins(
        "file db.a a.example b.example {\n reload 0\n}\nfile db.b c.example {\n reload_by_mtime\n \
         fallthrough\n}\ntransfer a.example {\n to * 10.0.0.1 [2001:db8::1]:5353\n source \
         10.0.0.9\n}",
    );
    let file = plugins.file.unwrap();
    assert_eq!(file.files[0].zones.len(), 2);
    assert_eq!(
        (file.files[0].reload, file.files[0].reload_by_mtime),
        (Duration::ZERO, false)
    );
    // As in CoreDNS, options go on to the next file.
    assert_eq!(
        (file.files[1].reload, file.files[1].reload_by_mtime),
        (Duration::ZERO, true)
    );
    assert_eq!(file.fallthrough, [Zone::root()]);
    let transfer = &plugins.transfer[0];
    let server = |text: &str| TransferTo::Server(text.parse().unwrap());
    assert_eq!(
        transfer.to,
        [
            TransferTo::Anyone,
            server("10.0.0.1:53"),
            server("[2001:db8::1]:5353")
        ]
    );
    assert_eq!(transfer.source.unwrap().to_string(), "10.0.0.9");
}

#[test]
fn listeners() {
    let plugins = plugins(
        "bind 10.0.0.1 eth0 {\n except 10.0.0.2\n}\nbind ::1\nhealth 127.0.0.1:81 {\n lameduck \
         -5s\n}\nready :1 {\n monitor continuously\n}\nprometheus [::1]:9\nhttps {\n \
         max_connections 0\n}\ntimeouts {\n read 5\n idle 1m\n maxtcpqueries -1\n}\nreload 10s \
         20s\nmultisocket\nmetadata\ntls cert key {\n client_auth require\n}",
    );
    assert_eq!(plugins.bind[0].addresses, ["10.0.0.1", "eth0"]);
    assert_eq!(plugins.bind[0].except, ["10.0.0.2"]);
    assert_eq!(plugins.bind[1].addresses, ["::1"]);
    let health = plugins.health.unwrap();
    assert_eq!(
        (health.listen.host.as_str(), health.listen.port),
        ("127.0.0.1", 81)
    );
    assert_eq!(health.lameduck, Duration::ZERO);
    assert!(plugins.ready.unwrap().continuously);
    assert_eq!(plugins.prometheus.unwrap().listen.host, "::1");
    let https = plugins.https.unwrap();
    assert_eq!((https.max_connections, https.max_streams), (Some(0), None));
    let timeouts = plugins.timeouts.unwrap();
    assert_eq!((timeouts.read, timeouts.write), (Some(seconds(5)), None));
    assert_eq!(timeouts.max_tcp_queries, Some(MaxTcpQueries::Unlimited));
    let reload = plugins.reload.unwrap();
    assert_eq!((reload.interval, reload.jitter), (seconds(10), seconds(5)));
    assert_eq!(plugins.multisocket, Some(0));
    assert_eq!(plugins.metadata.unwrap().zones, [zone("example.org")]);
    assert_eq!(plugins.tls.unwrap().key, "key");
}

#[test]
fn small_plugins() {
    let plugins = plugins(
        "root /zones/\nautopath a.example @kubernetes\nbufsize\ncancel\nchaos V b a b\ndns64 \
         {\n prefix 2001:db8::/64\n allow_ipv4\n}\nerratic {\n delay 3\n}\nloadbalance weighted \
         w.txt {\n reload 5s\n}\nlocal {\n localhost_prefix off\n}\nnsid\nheader {\n response \
         set ra aa\n query clear rd\n}\nloop\ndebug\nany\nminimal\nwhoami\nview v {\n expr id() == \
         1\n}",
    );
    let autopath = plugins.autopath.unwrap();
    assert_eq!(autopath.zones, [zone("a.example")]);
    assert_eq!(autopath.search, SearchPath::Plugin("kubernetes".to_owned()));
    assert_eq!(plugins.bufsize, Some(1232));
    assert_eq!(plugins.cancel, Some(Duration::from_millis(5001)));
    let chaos = plugins.chaos.unwrap();
    assert_eq!(chaos.version.as_deref(), Some("V"));
    assert_eq!(chaos.authors.unwrap(), ["a", "b"]);
    let dns64 = plugins.dns64.unwrap();
    assert_eq!(dns64.prefix.to_string(), "2001:db8::/64");
    assert!(dns64.allow_ipv4 && !dns64.translate_all);
    let erratic = plugins.erratic.unwrap();
    assert_eq!((erratic.drop, erratic.delay), (0, 3));
    assert_eq!(erratic.duration, Duration::from_millis(100));
    let weighted = LoadBalancePolicy::Weighted {
        file: "/zones/w.txt".to_owned(),
        reload: seconds(5),
    };
    assert_eq!(plugins.loadbalance.unwrap().policy, weighted);
    assert_eq!(plugins.local, Some(false));
    assert_eq!(plugins.nsid.as_deref(), Some(""));
    let header = plugins.header.unwrap();
    assert_eq!((header.response.len(), header.query.len()), (2, 1));
    assert!(header.response[0].set && !header.query[0].set);
    assert_eq!(plugins.loop_zone, Some(zone("example.org")));
    assert!(plugins.debug && plugins.any && plugins.minimal && plugins.whoami);
    assert_eq!(plugins.view.unwrap().expressions, ["id() == 1"]);
}

#[test]
fn what_is_without_effect_is_said() {
    for (lines, told) in [
        ("pprof :6060 {\n block 1\n}", "pprof: it is without effect"),
        (
            "prometheus {\n runtime_metrics\n}",
            "runtime_metrics is without effect",
        ),
        ("reload\nreload 5s", "only the first one counts"),
        ("any\nany", "only the first one counts"),
        (
            "dns64 64:ff9b::/96 {\n translate_all\n}",
            "words beyond what it takes",
        ),
        (
            "tls cert key {\n keylog /tmp/keys\n}",
            "keylog is without effect",
        ),
        ("autopath @hosts", "knows no search paths"),
        ("cache 30 a..b", "\"a..b\" is no name of a zone"),
        ("forward 10.0.0.0/23 8.8.8.8", "stands for 2 zones"),
    ] {
        let found = warnings(lines);
        assert!(found.contains(told), "{lines}: {found}");
    }
}
