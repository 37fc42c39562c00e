use super::*;
use crate::corefile::plugins::Assignment;
use crate::plugins::tests::{name, query};
use crate::wire::EdnsOption;
use crate::zonefile::record_text;

fn options(patterns: &[&str]) -> Options {
    let any = [".*"];
    let patterns = if patterns.is_empty() { &any } else { patterns };
    Options {
        class: Class::IN,
        kind: Type::A,
        zones: vec![name("example")],
        matches: patterns
            .iter()
            .map(|text| Pattern::new(text).unwrap())
            .collect(),
        conditions: Vec::new(),
        variables: Vec::new(),
        answer: Vec::new(),
        additional: Vec::new(),
        authority: Vec::new(),
        rcode: Rcode::NOERROR,
        extended_error: None,
        fallthrough: Vec::new(),
    }
}

fn answers(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn says(options: &[Options], asked: &str, kind: Type) -> String {
    match Templates::new(options).unwrap().answer(&query(asked, kind)) {
        Made::Next => "next".to_owned(),
        Made::Code(rcode, _) => rcode.to_string(),
        Made::Mistake(mistake, _) => {
            format!("{} {}: {}", mistake.section, mistake.is_record, mistake.why)
        }
        Made::Answer(made, _) => {
            let answer = made.answer;
            let all = [&answer.answers, &answer.authorities, &answer.additionals];
            let text = |records: &Vec<Record>| {
                let texts: Vec<String> = records
                    .iter()
                    .map(|r| record_text(r).replace('\t', " "))
                    .collect();
                texts.join(", ")
            };
            format!("{}; {}", answer.rcode, all.map(text).join("; "))
        }
    }
}

const IP: &str = "^ip-(?P<a>[0-9]+)-(?P<b>[0-9]+)\\.example\\.$";

#[test]
fn names_with_addresses_in_them() {
    let options = [Options {
        answer: answers(&["{{ .Name }} 60 IN A 10.0.{{ .Group.a }}.{{ .Group.b }}"]),
        authority: answers(&["{{ .Zone }} 60 {{ .Class }} NS ns.{{ .Zone }}"]),
        additional: answers(&["ns.{{ .Zone }} 60 IN A {{ .Remote }}"]),
        ..options(&[IP, "^other\\."])
    }];
    assert_eq!(
        says(&options, "IP-1-2.Example", Type::A),
        "NOERROR; ip-1-2.example. 60 IN A 10.0.1.2; example. 60 IN NS ns.example.; ns.example. 60 IN A 10.244.1.5"
    );
    // Another name: SERVFAIL without fallthrough. Another type or zone is not this one's matter.
    assert_eq!(says(&options, "x.example", Type::A), "SERVFAIL");
    assert_eq!(says(&options, "ip-1-2.example", Type::AAAA), "next");
    assert_eq!(says(&options, "ip-1-2.org", Type::A), "next");
    assert_eq!(
        says(&options, "ip-1-2.example", Type::ANY),
        says(&options, "ip-1-2.example", Type::A)
    );
    // What is asked does not become part of the template.
    assert_eq!(
        says(&options, "ip-1-999.example", Type::A),
        "answer true: \"10.0.1.999\" is no IPv4 address"
    );
}

#[test]
fn one_template_after_the_other() {
    let first = Options {
        answer: answers(&["{{ .Name }} 60 IN A 10.0.0.1"]),
        fallthrough: vec![name("sub.example")],
        ..options(&["^one\\."])
    };
    let second = Options {
        rcode: Rcode::NXDOMAIN,
        kind: Type::ANY,
        ..options(&[])
    };
    let both = [first, second];
    assert_eq!(
        says(&both, "one.example", Type::A),
        "NOERROR; one.example. 60 IN A 10.0.0.1; ; "
    );
    assert_eq!(says(&both, "two.sub.example", Type::A), "NXDOMAIN; ; ; ");
    assert_eq!(says(&both, "two.example", Type::A), "SERVFAIL");
    assert_eq!(says(&both, "two.example", Type::MX), "NXDOMAIN; ; ; ");
    assert_eq!(says(&both[..1], "two.sub.example", Type::A), "next");
    let failing = [Options {
        rcode: Rcode::SERVFAIL,
        ..options(&[])
    }];
    assert_eq!(says(&failing, "a.example", Type::A), "SERVFAIL");
}

#[test]
fn variables_and_conditions() {
    let variable = |name: &str, expression: &str| Assignment {
        name: name.to_owned(),
        expression: expression.to_owned(),
    };
    let private = [Options {
        variables: vec![
            variable("ip", "replace(group('ip'), '-', '.')"),
            variable("n", "len(ip) * 2"),
        ],
        conditions: answers(&[
            "any(['10.0.0.0/8', '192.168.0.0/16'], incidr(ip, #))",
            "n > 10",
        ]),
        answer: answers(&["{{ .Name }} {{ .Var.n }} IN A {{ .Var.ip }}"]),
        fallthrough: vec![Name::root()],
        ..options(&["^(?P<ip>[0-9]{1,3}(-[0-9]{1,3}){3})\\.example\\.$"])
    }];
    assert_eq!(
        says(&private, "10-1-2-3.example", Type::A),
        "NOERROR; 10-1-2-3.example. 16 IN A 10.1.2.3; ; "
    );
    assert_eq!(says(&private, "8-8-8-8.example", Type::A), "next");
    // What cannot be worked out is nobody's answer.
    assert_eq!(says(&private, "999-1-2-3.example", Type::A), "SERVFAIL");
}

#[test]
fn aliases_are_to_be_resolved() {
    let options = [Options {
        answer: answers(&[
            "{{ .Name }} 60 IN CNAME a.test.",
            "{{ .Name }} 60 IN CNAME b.test.",
        ]),
        extended_error: Some(ExtendedError {
            code: 15,
            reason: "no".to_owned(),
        }),
        ..options(&[])
    }];
    let templates = Templates::new(&options).unwrap();
    let Made::Answer(mut made, matched) = templates.answer(&query("x.example", Type::A)) else {
        panic!()
    };
    assert_eq!(
        (matched.zone.as_str(), matched.kind.as_str()),
        ("example.", "A")
    );
    assert_eq!(made.aliases, [(1, name("a.test")), (2, name("b.test"))]);
    let error = EdnsOption {
        code: 15,
        data: b"\0\x0fno".as_slice().into(),
    };
    assert_eq!(made.answer.options, [error]);
    for (at, target) in made.aliases.clone().into_iter().rev() {
        let record = Record::new(target, 1, crate::wire::Data::A([1, 1, 1, 1].into()));
        made.resolved(
            at,
            Answer {
                answers: vec![record],
                ..Answer::default()
            },
        );
    }
    let names: Vec<String> = made
        .answer
        .answers
        .iter()
        .map(|record| record.name.to_string())
        .collect();
    assert_eq!(names, ["x.example.", "a.test.", "x.example.", "b.test."]);
}

#[test]
fn a_template_that_cannot_be_worked_out() {
    let options = [Options {
        answer: answers(&["{{ .Name }} 60 IN A 10.0.0.{{ index .Match 9 }}"]),
        ..options(&[])
    }];
    assert_eq!(
        says(&options, "x.example", Type::A),
        "answer false: index out of range: 9"
    );
    let unknown = [Options {
        answer: answers(&["{{ .Nmae }}"]),
        ..options[0].clone()
    }];
    assert!(Templates::new(&unknown).is_err());
}
