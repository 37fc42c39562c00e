use super::*;
use crate::plugins::tests::{name, query};
use crate::query::Query;
use crate::wire::{Edns, Record, Type};
use crate::zonefile::record_text;

const ZONE: &str = "$TTL 60\n\
    @ SOA ns1 root 7 3600 600 86400 30\n\
    @ NS ns1\n\
    @ NS ns.elsewhere.net.\n\
    @ MX 10 mail\n\
    @ MX 20 MAIL\n\
    @ MX 30 mail.elsewhere.net.\n\
    ns1 A 10.0.0.1\n\
    mail A 10.0.0.2\n\
    mail AAAA 2001:db8::2\n\
    Web A 10.0.0.3\n\
    www CNAME web\n\
    www2 CNAME www\n\
    out CNAME www.elsewhere.net.\n\
    gone CNAME nothing\n\
    wildalias CNAME x.wild\n\
    loop1 CNAME loop2\n\
    loop2 CNAME loop1\n\
    self CNAME self\n\
    a.b.c TXT deep\n\
    *.wild A 10.0.0.4\n\
    *.wild MX 10 mail\n\
    sub.wild TXT here\n\
    *.alias CNAME web\n\
    x.*.ent TXT below\n\
    _http._tcp SRV 0 5 80 web\n\
    svc HTTPS 1 web alpn=h2\n\
    cut NS ns.cut\n\
    cut NS ns.elsewhere.net.\n\
    cut DS 1 2 3 AB\n\
    ns.cut A 10.0.0.5\n\
    tocut CNAME x.cut\n\
    d DNAME example.net.\n\
    d TXT own\n\
    din DNAME wild\n\
    outside.example.com. A 10.9.9.9\n";

fn zone() -> Zone {
    Zone::read(
        ZONE,
        &name("Example.org"),
        "db",
        &mut |_| Err(String::new()),
        &Read::All,
    )
    .unwrap()
    .unwrap()
}

fn text(records: &[Record]) -> Vec<String> {
    let short = |record: &Record| {
        let text = record_text(record)
            .replace('\t', " ")
            .replace("example.org.", "@");
        text.replace(" 60 IN", "")
    };
    records.iter().map(short).collect()
}

/// What a question comes to: `RCODE; answers; authorities; additionals`.
fn says(zone: &Zone, query: &Query) -> String {
    let found = match zone.answer(query) {
        Said::All(found) => found,
        Said::Part(records, target) => {
            return format!("{} then {target}", text(&records).join(", "))
                .replace("example.org.", "@");
        }
    };
    let sections = [&found.answers, &found.authorities, &found.additionals];
    let sections = sections.map(|section| text(section).join(", "));
    let kind = found.result;
    match answer(found) {
        Ok(answer) => {
            let aa = if answer.authoritative { "" } else { " (no aa)" };
            format!("{kind:?} {}{aa}; {}", answer.rcode, sections.join("; "))
        }
        Err(failure) => format!("{kind:?} {}", failure.rcode),
    }
}

const NS: &str = "@ NS ns1.@, @ NS ns.elsewhere.net.";
const SOA: &str = "@ SOA ns1.@ root.@ 7 3600 600 86400 30";

#[test]
fn names_of_a_zone() {
    let zone = zone();
    for (asked, kind, expected) in [
        (
            "example.org",
            Type::SOA,
            format!("Success NOERROR; {SOA}; {NS}; "),
        ),
        (
            "example.org",
            Type::NS,
            format!("Success NOERROR; {NS}; ; ns1.@ A 10.0.0.1"),
        ),
        (
            "example.org",
            Type::MX,
            format!(
                "Success NOERROR; @ MX 10 mail.@, @ MX 20 mail.@, @ MX 30 mail.elsewhere.net.; {NS}; mail.@ A 10.0.0.2, mail.@ AAAA 2001:db8::2"
            ),
        ),
        (
            "WEB.example.ORG",
            Type::A,
            format!("Success NOERROR; web.@ A 10.0.0.3; {NS}; "),
        ),
        (
            "web.example.org",
            Type::AAAA,
            format!("NoData NOERROR; ; {SOA}; "),
        ),
        (
            "web.example.org",
            Type::ANY,
            format!("NoData NOERROR; ; {SOA}; "),
        ),
        (
            "none.example.org",
            Type::A,
            format!("NameError NXDOMAIN; ; {SOA}; "),
        ),
        // Names in the middle are there, with nothing.
        (
            "b.c.example.org",
            Type::A,
            format!("Empty NOERROR; ; {SOA}; "),
        ),
        (
            "c.example.org",
            Type::TXT,
            format!("Empty NOERROR; ; {SOA}; "),
        ),
        (
            "_http._tcp.example.org",
            Type::SRV,
            format!("Success NOERROR; _http._tcp.@ SRV 0 5 80 web.@; {NS}; web.@ A 10.0.0.3"),
        ),
        (
            "svc.example.org",
            Type::HTTPS,
            format!("Success NOERROR; svc.@ HTTPS 1 web.@ alpn=h2; {NS}; web.@ A 10.0.0.3"),
        ),
    ] {
        assert_eq!(says(&zone, &query(asked, kind)), expected, "{asked} {kind}");
    }
}

#[test]
fn aliases() {
    let zone = zone();
    for (asked, kind, expected) in [
        ("www.example.org", Type::A, format!("Success NOERROR; www.@ CNAME web.@, web.@ A 10.0.0.3; {NS}; ")),
        ("www2.example.org", Type::A, format!("Success NOERROR; www2.@ CNAME www.@, www.@ CNAME web.@, web.@ A 10.0.0.3; {NS}; ")),
        ("www.example.org", Type::CNAME, format!("Success NOERROR; www.@ CNAME web.@; {NS}; ")),
        ("www.example.org", Type::TXT, format!("Success NOERROR; www.@ CNAME web.@; {NS}; ")),
        ("out.example.org", Type::A, "out.@ CNAME www.elsewhere.net. then www.elsewhere.net.".to_owned()),
        ("gone.example.org", Type::A, "gone.@ CNAME nothing.@ then nothing.@".to_owned()),
        ("wildalias.example.org", Type::A, "wildalias.@ CNAME x.wild.@ then x.wild.@".to_owned()),
        ("self.example.org", Type::A, "Failure SERVFAIL".to_owned()),
        (
            "tocut.example.org",
            Type::A,
            "Delegation NOERROR; tocut.@ CNAME x.cut.@; cut.@ NS ns.cut.@, cut.@ NS ns.elsewhere.net.; ns.cut.@ A 10.0.0.5".to_owned(),
        ),
        // What is above a DNAME is replaced, its own name is not.
        ("x.y.d.example.org", Type::A, "d.@ DNAME example.net., x.y.d.@ CNAME x.y.example.net. then x.y.example.net.".to_owned()),
        ("d.example.org", Type::TXT, format!("Success NOERROR; d.@ TXT \"own\"; {NS}; ")),
        ("x.d.example.org", Type::CNAME, format!("Success NOERROR; d.@ DNAME example.net., x.d.@ CNAME x.example.net.; {NS}; ")),
        ("x.din.example.org", Type::A, "din.@ DNAME wild.@, x.din.@ CNAME x.wild.@ then x.wild.@".to_owned()),
    ] {
        assert_eq!(says(&zone, &query(asked, kind)), expected, "{asked} {kind}");
    }
    // A circle ends.
    assert!(says(&zone, &query("loop1.example.org", Type::A)).starts_with("Success NOERROR"));
}

#[test]
fn wildcards() {
    let zone = zone();
    for (asked, kind, expected) in [
        (
            "x.wild.example.org",
            Type::A,
            format!("Success NOERROR; x.wild.@ A 10.0.0.4; {NS}; "),
        ),
        (
            "y.x.wild.example.org",
            Type::A,
            format!("Success NOERROR; y.x.wild.@ A 10.0.0.4; {NS}; "),
        ),
        (
            "x.wild.example.org",
            Type::MX,
            format!(
                "Success NOERROR; x.wild.@ MX 10 mail.@; {NS}; mail.@ A 10.0.0.2, mail.@ AAAA 2001:db8::2"
            ),
        ),
        (
            "x.wild.example.org",
            Type::TXT,
            format!("NoData NOERROR; ; {SOA}; "),
        ),
        // A name that is there is not the wildcard's, nor is what is below it.
        (
            "sub.wild.example.org",
            Type::A,
            format!("NoData NOERROR; ; {SOA}; "),
        ),
        (
            "x.sub.wild.example.org",
            Type::A,
            format!("NameError NXDOMAIN; ; {SOA}; "),
        ),
        (
            "x.alias.example.org",
            Type::A,
            format!("Success NOERROR; x.alias.@ CNAME web.@, web.@ A 10.0.0.3; {NS}; "),
        ),
        // A wildcard that is only there because of others below it.
        (
            "y.ent.example.org",
            Type::A,
            format!("NoData NOERROR; ; {SOA}; "),
        ),
    ] {
        assert_eq!(says(&zone, &query(asked, kind)), expected, "{asked} {kind}");
    }
}

#[test]
fn cuts() {
    let zone = zone();
    let cut = "Delegation NOERROR (no aa); ; cut.@ NS ns.cut.@, cut.@ NS ns.elsewhere.net.; ns.cut.@ A 10.0.0.5";
    for asked in ["cut.example.org", "x.cut.example.org", "ns.cut.example.org"] {
        assert_eq!(says(&zone, &query(asked, Type::A)), cut, "{asked}");
    }
    assert_eq!(
        says(&zone, &query("cut.example.org", Type::DS)),
        format!("Success NOERROR; cut.@ DS 1 2 3 AB; {NS}; ")
    );
}

#[test]
fn what_the_server_says_of_the_end_of_aliases() {
    let zone = zone();
    let query = query("out.example.org", Type::A);
    let Said::Part(records, _) = zone.answer(&query) else {
        panic!()
    };
    let end = |rcode, answers: Vec<Record>| {
        Some(Answer {
            rcode,
            answers,
            ..Answer::default()
        })
    };
    let a = crate::zonefile::record("www.elsewhere.net. 60 A 10.1.1.1").unwrap();
    for (end, result, answers, soa) in [
        (end(Rcode::NOERROR, vec![a]), Kind::Success, 2, false),
        (end(Rcode::NOERROR, vec![]), Kind::NoData, 1, true),
        (end(Rcode::NXDOMAIN, vec![]), Kind::NameError, 1, true),
        (end(Rcode::SERVFAIL, vec![]), Kind::Failure, 1, false),
        (end(Rcode::REFUSED, vec![]), Kind::Success, 1, false),
        (None, Kind::Success, 1, false),
    ] {
        let found = zone.completed(&query, records.clone(), end);
        assert_eq!((found.result, found.answers.len()), (result, answers));
        assert_eq!(found.authorities[0].kind() == Type::SOA, soa);
        let rcode = answer(found).unwrap().rcode;
        assert_eq!(rcode == Rcode::SERVFAIL, result == Kind::Failure);
    }
}

#[test]
fn signatures_where_they_are_wanted() {
    let signed = "$TTL 60\n\
        @ SOA ns1 root 7 3600 600 86400 30\n\
        @ RRSIG SOA 8 2 60 1 1 1 @ AQ==\n\
        @ NS ns1.else.\n\
        @ NSEC a SOA NS\n\
        @ RRSIG NSEC 8 2 60 1 1 1 @ Ag==\n\
        a A 10.0.0.1\n\
        a RRSIG A 8 2 60 1 1 1 @ Aw==\n\
        a NSEC c A\n\
        c TXT x\n\
        c NSEC @ TXT\n";
    let zone = Zone::read(
        signed,
        &name("example.org"),
        "db",
        &mut |_| Err(String::new()),
        &Read::All,
    );
    let zone = zone.unwrap().unwrap();
    let mut query = query("a.example.org", Type::A);
    assert_eq!(
        says(&zone, &query),
        "Success NOERROR; a.@ A 10.0.0.1; @ NS ns1.else.; "
    );
    query.edns = Some(Edns {
        dnssec_ok: true,
        ..Edns::default()
    });
    assert_eq!(
        says(&zone, &query),
        "Success NOERROR; a.@ A 10.0.0.1, a.@ RRSIG A 8 2 60 1 1 1 @ Aw==; @ NS ns1.else.; "
    );
    query.question.name = name("b.example.org");
    let soa = "@ SOA ns1.@ root.@ 7 3600 600 86400 30, @ RRSIG SOA 8 2 60 1 1 1 @ AQ==";
    assert_eq!(
        says(&zone, &query),
        format!(
            "NameError NXDOMAIN; ; {soa}, a.@ NSEC c.@ A, @ NSEC a.@ NS SOA, @ RRSIG NSEC 8 2 60 1 1 1 @ Ag==; "
        )
    );
}

#[test]
fn all_records_begin_with_the_soa() {
    let zone = zone();
    let records = zone.transfer(Some(6));
    assert_eq!(records.len(), zone.len() + 1);
    assert_eq!(records.first(), records.last());
    assert_eq!(zone.transfer(Some(7)), records[..1]);
    assert_eq!(records[0].kind(), Type::SOA);
    assert!(
        records[1..records.len() - 1]
            .iter()
            .all(|record| record.kind() != Type::SOA)
    );
    assert_eq!(zone.serial(), 7);
}

#[test]
fn zones_that_are_not_taken() {
    let read = |text: &str, what| {
        let zone = Zone::read(
            text,
            &name("example.org"),
            "db",
            &mut |_| Err("no".to_owned()),
            what,
        );
        zone.map(|zone| zone.is_some())
    };
    assert_eq!(
        read("a 60 A 10.0.0.1\n", &Read::All),
        Err("db: there is no SOA for example.org.".to_owned())
    );
    assert_eq!(
        read("other. 60 SOA a b 1 2 3 4 5\n", &Read::All),
        Err("db:1: the SOA is of other., the zone is example.org.".to_owned())
    );
    let nsec3 = read("@ 60 NSEC3PARAM 1 0 0 -\n", &Read::All);
    assert!(nsec3.unwrap_err().contains("NSEC3"));
    assert_eq!(read(ZONE, &Read::Unless(7)), Ok(false));
    assert_eq!(read(ZONE, &Read::Unless(6)), Ok(true));
}
