use proptest::prelude::*;

use super::*;
use crate::wire::Data;

fn zone(text: &str) -> Result<Vec<String>, String> {
    zone_with(text, &mut |path| Err(format!("no file {path}")))
}

fn zone_with(text: &str, include: Include<'_>) -> Result<Vec<String>, String> {
    let mut records = Vec::new();
    let origin: Name = "example.org".parse().unwrap();
    let each = &mut |record: Record| {
        records.push(record_text(&record).replace('\t', " "));
        Ok(())
    };
    parse(text, &origin, "/zones/db.example", include, each).map_err(|error| error.to_string())?;
    Ok(records)
}

#[test]
fn a_zone_as_people_write_it() {
    let text = "$TTL 1h ; an hour\n\
        @\tIN\tSOA ns1 hostmaster (\n\
        \t\t2025010101 ; serial\n\
        \t\t1d 2h 4w\n\
        \t\t300 )\n\
        \tNS ns1\n\
        ns1 600 IN A 10.0.0.1\n\
        \tIN 700 AAAA 2001:db8::1\n\
        www CNAME @\n\
        \n\
        $ORIGIN sub\n\
        a A 10.0.0.2\n\
        txt TXT \"two words\" one \"quo\\\"te; here\" \\065\n\
        abs.example.net. MX 10 mail\n";
    assert_eq!(
        zone(text).unwrap(),
        [
            "example.org. 3600 IN SOA ns1.example.org. hostmaster.example.org. 2025010101 86400 7200 2419200 300",
            "example.org. 3600 IN NS ns1.example.org.",
            "ns1.example.org. 600 IN A 10.0.0.1",
            "ns1.example.org. 700 IN AAAA 2001:db8::1",
            "www.example.org. 3600 IN CNAME example.org.",
            "a.sub.example.org. 3600 IN A 10.0.0.2",
            "txt.sub.example.org. 3600 IN TXT \"two words\" \"one\" \"quo\\\"te; here\" \"A\"",
            "abs.example.net. 3600 IN MX 10 mail.sub.example.org.",
        ]
    );
}

#[test]
fn every_type_there_and_back() {
    for text in [
        "A 192.0.2.1",
        "AAAA 2001:db8::1",
        "NS ns.example.",
        "DNAME other.example.",
        "PTR host.example.",
        "SOA ns. host. 1 2 3 4 5",
        "MX 10 mail.example.",
        "SRV 1 2 443 web.example.",
        "TXT \"a b\" \"\\000\\255\\\"\"",
        "SPF \"v=spf1 -all\"",
        "HINFO \"PDP-11\" \"UNIX\"",
        "RP admin.example. txt.example.",
        "NAPTR 100 50 \"s\" \"http+I2L\" \"\" _http.example.",
        "AFSDB 1 afs.example.",
        "KX 10 kx.example.",
        "PX 10 a.example. b.example.",
        "ISDN \"150862028003217\" \"004\"",
        "ISDN \"150862028003217\"",
        "CERT 1 2 3 AQIDBA==",
        "DS 60485 5 1 2BB183AF5F22588179A53B0A98631FAD1A292118",
        "SSHFP 2 1 123456789ABCDEF67890123456789ABCDEF67890",
        "TLSA 3 1 1 D2ABDE240D7CD3EE6B4B28C54DF034B97983A1D16E8A410E4561CB106618E971",
        "DNSKEY 256 3 5 AQPSKmynfzW4kyBv015MUG2DeIQ3Cbl+BBZH4b/0PY1kxkmvHjcZc8no",
        "RRSIG A 5 3 86400 1048672800 1046080800 2642 example.com. oJB1W6WNGv+ldvQ3WDG0",
        "NSEC host.example.com. A MX RRSIG NSEC TYPE1234",
        "NSEC3 1 1 12 AABBCCDD 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR MX DNSKEY NS SOA NSEC3PARAM RRSIG",
        "NSEC3PARAM 1 0 12 -",
        "CAA 0 \"issue\" \"ca.example.net; policy=ev\"",
        "URI 10 1 \"ftp://ftp1.example.com/public\"",
        "CSYNC 66 3 A NS AAAA",
        "ZONEMD 2018031900 1 1 C68090D90A7AED716BC459F9340E3D7C1370D4D24B7E2FC3A1DDC0B9A87153B9",
        "OPENPGPKEY AQIDBA==",
        "SVCB 16 foo.example.org. mandatory=alpn,ipv4hint alpn=h2,h3-19 ipv4hint=192.0.2.1,192.0.2.2",
        "HTTPS 1 . alpn=h2 no-default-alpn port=8443 ech=AQID ipv6hint=2001:db8::1 key65333=\"a\\000\"",
        "TYPE731 \\# 6 ABCDEF012345",
        "TYPE731 \\# 0",
        "LOC \\# 2 0001",
    ] {
        let line = format!("x.example. 60 IN {text}");
        let record = record(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let printed = record_text(&record).replace('\t', " ");
        // Types of a bitmap are printed in the order of their numbers.
        if text.starts_with("NSEC3 ") {
            assert_eq!(super::record(&printed).unwrap(), record);
        } else {
            assert_eq!(printed, line);
        }
    }
}

#[test]
fn other_ways_to_write_the_same() {
    for (one, other) in [
        ("x. 60 A 10.0.0.1", "x. in 60 a \\# 4 0a 00 0001"),
        ("x. 60 A 10.0.0.1", "x. 1m A 10.0.0.1"),
        ("x. 60 TXT a\\.b", "x. 60 TXT \"a.b\""),
        ("x. CLASS1 60 TYPE1 10.0.0.1", "X 60 A 10.0.0.1"),
        ("x. 60 SVCB 1 . alpn=\"h2,h3\"", "x. 60 SVCB 1 . alpn=h2,h3"),
        ("x. 60 DS 1 2 3 AB CD", "x. 60 DS 1 2 3 abcd"),
        (
            "x. 60 RRSIG A 5 3 1 20030326100000 20030224100000 1 a. AQ==",
            "x. 60 RRSIG A 5 3 1 1048672800 1046080800 1 a. AQ==",
        ),
        ("x. A 10.0.0.1", "x. 3600 A 10.0.0.1"),
    ] {
        assert_eq!(record(one).unwrap(), record(other).unwrap(), "{one}");
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, error) in [
        (
            "a A 10.0.0.1\n",
            "/zones/db.example:1: there is no TTL: none here, none before, no $TTL",
        ),
        (
            "\n\na 60 A 10.0.0.300\n",
            "/zones/db.example:3: \"10.0.0.300\" is no IPv4 address",
        ),
        (
            "a 60 A\n",
            "/zones/db.example:1: the data of A ends too early",
        ),
        (
            "a 60 A 10.0.0.1 x\n",
            "/zones/db.example:1: \"x\" is more than the data of A has",
        ),
        ("a 60 B 10.0.0.1\n", "/zones/db.example:1: \"B\" is no type"),
        ("a 60 IN\n", "/zones/db.example:1: a type is missing"),
        (
            " 60 A 10.0.0.1\n",
            "/zones/db.example:1: there is no name: none here and none before",
        ),
        (
            "a..b 60 A 10.0.0.1\n",
            "/zones/db.example:1: \"a..b\" is no name: an empty label",
        ),
        (
            "a 60 TXT (\n\"x\"\n",
            "/zones/db.example:1: a parenthesis is not closed",
        ),
        (
            "a 60 TXT x )\n",
            "/zones/db.example:1: a parenthesis too much",
        ),
        (
            "a 60 TXT \"x\n",
            "/zones/db.example:1: a quote is not closed",
        ),
        (
            "a 60 TXT \\256\n",
            "/zones/db.example:1: a backslash in \"\\\\256\" escapes nothing",
        ),
        (
            "a 60 TYPE5 \\# 1 zz\n",
            "/zones/db.example:1: behind \\# and the length stands a hexadecimal number",
        ),
        (
            "a 60 A \\# 3 010203\n",
            "/zones/db.example:1: the data is none of A",
        ),
        (
            "a 60 A \\# 3 01\n",
            "/zones/db.example:1: \\# 3 is followed by 1 bytes",
        ),
        (
            "$TTL x\n",
            "/zones/db.example:1: $TTL is followed by a time",
        ),
        (
            "$TTL\n",
            "/zones/db.example:1: $TTL is followed by one value",
        ),
        (
            "$FOO x\n",
            "/zones/db.example:1: $FOO is no directive; there are $ORIGIN, $TTL, $INCLUDE and $GENERATE",
        ),
        ("$INCLUDE x\n", "/zones/db.example:1: no file /zones/x"),
        (
            "$GENERATE 1 x A 1.2.3.$\n",
            "/zones/db.example:1: \"1\" is no range such as 1-10 or 1-10/2",
        ),
        (
            "a 60 LOC 52 22 23.000 N 4 53 32.000 E -2.00m\n",
            "/zones/db.example:1: the data of LOC is taken in the form of unknown types only: \\# LENGTH HEX",
        ),
    ] {
        assert_eq!(zone(text), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn a_class_without_any_ttl_is_zero() {
    assert_eq!(
        zone("a IN A 10.0.0.1").unwrap(),
        ["a.example.org. 0 IN A 10.0.0.1"]
    );
}

#[test]
fn included_files() {
    let files = &mut |path: &str| match path {
        "/zones/sub/a.db" => {
            Ok("@ TXT here\n$ORIGIN other.\nx A 10.0.0.1\n$TTL 5\n$INCLUDE b.db".to_owned())
        }
        "/zones/sub/b.db" => Ok("y A 10.0.0.3".to_owned()),
        "/zones/self.db" => Ok("$INCLUDE self.db\n$INCLUDE self.db\n".to_owned()),
        "/zones/bad.db" => Ok("\na 60 A x\n".to_owned()),
        _ => Err(format!("no file {path}")),
    };
    assert_eq!(
        zone_with("$TTL 60\n$INCLUDE sub/a.db sub\nb A 10.0.0.2\n", files).unwrap(),
        [
            "sub.example.org. 60 IN TXT \"here\"",
            "x.other. 60 IN A 10.0.0.1",
            "y.other. 5 IN A 10.0.0.3",
            "b.example.org. 60 IN A 10.0.0.2",
        ]
    );
    let error = zone_with("$INCLUDE self.db\n", files).unwrap_err();
    assert!(
        error.contains("too many $INCLUDE within each other"),
        "{error}"
    );
    assert_eq!(
        zone_with("\n$INCLUDE bad.db\n", files).unwrap_err(),
        "/zones/bad.db:2: \"x\" is no IPv4 address"
    );
}

#[test]
fn generated_lines() {
    assert_eq!(
        zone("$TTL 60\n$GENERATE 1-5/2 host-${0,3} A 10.0.0.$\n$GENERATE 10-11 $ PTR h${-10,2,x}.\\$x.\n").unwrap(),
        [
            "host-001.example.org. 60 IN A 10.0.0.1",
            "host-003.example.org. 60 IN A 10.0.0.3",
            "host-005.example.org. 60 IN A 10.0.0.5",
            "10.example.org. 60 IN PTR h00.\\$x.",
            "11.example.org. 60 IN PTR h01.\\$x.",
        ]
    );
    for text in [
        "$GENERATE 1-70000 a$ A 10.0.0.1",
        "$GENERATE 1-2 a${-5} A 10.0.0.1",
        "$GENERATE 1-2 a${1 A 10.0.0.1",
        "$GENERATE 5-1 a A 10.0.0.1",
        "$GENERATE 1-5/0 a A 10.0.0.1",
    ] {
        assert!(zone(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ -~\\n\\t]{0,200}") {
        let _ = zone(&text);
        let _ = record(&text);
    }

    #[test]
    fn no_line_of_words_panics(words in proptest::collection::vec(
        prop_oneof![
            Just("a".to_owned()), Just("60".to_owned()), Just("IN".to_owned()), Just("(".to_owned()), Just(")".to_owned()),
            Just("$GENERATE".to_owned()), Just("$ORIGIN".to_owned()), Just("\\#".to_owned()), Just("\n".to_owned()),
            "(A|AAAA|TXT|SVCB|NSEC|NSEC3|NAPTR|CAA|LOC|TYPE9|RRSIG)", "[0-9]{1,14}", "[a-f0-9]{1,8}", "(alpn|key7|port)=[a-z0-9\\\\,]{0,8}",
            "\\$\\{[0-9,xdo-]{0,8}\\}", "[\\\\\"0-9;]{1,4}",
        ], 0..12)) {
        let _ = zone(&words.join(" "));
    }

    #[test]
    fn any_data_there_and_back(kind in 1_u16..270, bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let kind = Type(kind);
        prop_assume!(kind != Type::OPT);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if let Ok(record) = record(&format!("x. 60 {kind} \\# {} {hex}", bytes.len())) {
            let text = record_text(&record);
            prop_assert_eq!(super::record(&text), Ok(record), "{}", text);
        }
    }

    #[test]
    fn any_text_there_and_back(strings in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..4)) {
        let mut bytes = Vec::new();
        for string in &strings {
            bytes.push(string.len() as u8);
            bytes.extend_from_slice(string);
        }
        let record = Record::new("x".parse().unwrap(), 60, Data::Txt(bytes.into()));
        prop_assert_eq!(super::record(&record_text(&record)), Ok(record));
    }
}
