use super::*;
use crate::corefile::Pattern;
use crate::corefile::plugins::{AnswerRule, EdnsAction, EdnsData, EdnsRewrite};
use crate::plugins::tests::{name, query};
use crate::query::Answer;
use crate::wire::{Class, Data, Edns, EdnsOption, Rcode, Record, Type};

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn stop(rule: Rule) -> Rewrite {
    Rewrite {
        proceed: false,
        rule,
    }
}

fn proceed(rule: Rule) -> Rewrite {
    Rewrite {
        proceed: true,
        rule,
    }
}

fn named(matcher: Matcher, to: &str) -> NameRewrite {
    NameRewrite {
        matcher,
        to: Replacement::Text(to.to_owned()),
        auto: false,
        answers: Vec::new(),
    }
}

fn becomes(rules: &[Rewrite], asked: &str) -> String {
    match question(rules, &query(asked, Type::A)) {
        Ok(Some(rewritten)) => rewritten.query.question.name.to_string(),
        Ok(None) => "same".to_owned(),
        Err(error) => error,
    }
}

#[test]
fn names_by_each_matcher() {
    let prefix = Matcher::Prefix("alpha.".to_owned());
    let suffix = Matcher::Suffix(".schmoogle.com.".to_owned());
    let part = Matcher::Substring("beta".to_owned());
    let regex = Matcher::Regex(pattern(r"^(.*)\.([a-z]+)-svc\.test\.$"));
    for (matcher, to, asked, expected) in [
        (
            Matcher::Exact(name("a.test")),
            "b.test.",
            "A.test",
            "b.test.",
        ),
        (
            Matcher::Exact(name("a.test")),
            "b.test.",
            "x.a.test",
            "same",
        ),
        (prefix.clone(), "omega.", "Alpha.b.c", "omega.b.c."),
        (prefix, "omega.", "alphabet.b.c", "same"),
        (
            suffix,
            ".google.com.",
            "mail.schmoogle.com",
            "mail.google.com.",
        ),
        (
            part,
            "gamma",
            "a.beta.betamax.test",
            "a.gamma.gammamax.test.",
        ),
        (
            regex.clone(),
            "{2}.{1}.{0}",
            "a.b.web-svc.test",
            "web.a.b.a.b.web-svc.test.",
        ),
        // The number is no group: it stays as it is.
        (regex.clone(), "{3}.x.", "a.web-svc.test", "{3}.x."),
        (
            regex,
            "..",
            "a.web-svc.test",
            "invalid name after rewrite: ..",
        ),
    ] {
        let rules = [stop(Rule::Name(named(matcher, to)))];
        assert_eq!(becomes(&rules, asked), expected, "{asked}");
    }
}

#[test]
fn what_a_group_matched_is_not_replaced_again() {
    let rule = named(Matcher::Regex(pattern(r"^(.*)\.(.*)\.$")), "{1}.{2}.x.");
    assert_eq!(becomes(&[stop(Rule::Name(rule))], "{2}.b"), "{2}.b.x.");
}

#[test]
fn rules_go_on_only_where_they_say_so() {
    let to = |from: &str, to: &str| Rule::Name(named(Matcher::Exact(name(from)), to));
    assert_eq!(
        becomes(&[stop(to("a", "b.")), stop(to("b", "c."))], "a"),
        "b."
    );
    assert_eq!(
        becomes(&[proceed(to("a", "b.")), stop(to("b", "c."))], "a"),
        "c."
    );
    assert_eq!(
        becomes(&[stop(to("x", "b.")), stop(to("b", "c."))], "b"),
        "c."
    );
}

#[test]
fn type_and_class() {
    let rules = [
        proceed(Rule::Type {
            from: Type::ANY,
            to: Type::HINFO,
        }),
        stop(Rule::Class {
            from: Class::CH,
            to: Class::IN,
        }),
    ];
    let mut query = query("a", Type::ANY);
    query.question.class = Class::CH;
    let rewritten = question(&rules, &query).unwrap().unwrap().query.question;
    assert_eq!((rewritten.kind, rewritten.class), (Type::HINFO, Class::IN));
}

fn a(of: &str, ttl: u32) -> Record {
    Record::new(name(of), ttl, Data::A([10, 0, 0, 1].into()))
}

fn cname(of: &str, to: &str) -> Record {
    Record::new(name(of), 60, Data::Cname(name(to)))
}

fn reverted(rules: &[Rewrite], asked: &str, answers: Vec<Record>) -> Answer {
    let rewritten = question(rules, &query(asked, Type::A)).unwrap().unwrap();
    let mut answer = Answer {
        answers,
        ..Answer::default()
    };
    rewritten.reverts.apply(&mut answer);
    answer
}

#[test]
fn an_exact_rule_is_reverted_by_itself() {
    let rules = [stop(Rule::Name(named(
        Matcher::Exact(name("web.test")),
        "svc.cluster.local.",
    )))];
    let answers = vec![
        cname("svc.cluster.local", "x.svc.cluster.local"),
        a("x.svc.cluster.local", 5),
    ];
    assert_eq!(
        reverted(&rules, "WEB.test", answers).answers,
        [cname("web.test", "x.web.test"), a("x.web.test", 5)]
    );
}

#[test]
fn others_are_where_they_say_so() {
    let suffix = Matcher::Suffix(".example.com.".to_owned());
    let mut rule = named(suffix, ".default.svc.cluster.local.");
    let answers = || vec![a("web.default.svc.cluster.local", 5)];
    let plain = [stop(Rule::Name(rule.clone()))];
    assert_eq!(
        reverted(&plain, "web.example.com", answers()).answers,
        answers()
    );
    rule.auto = true;
    let auto = [stop(Rule::Name(rule.clone()))];
    assert_eq!(
        reverted(&auto, "web.example.com", answers()).answers,
        [a("web.example.com", 5)]
    );
    rule.auto = false;
    rule.answers = vec![
        AnswerRule::Name {
            pattern: pattern(r"(.*)\.default\.svc\.cluster\.local\."),
            to: "{1}.example.com.".to_owned(),
        },
        AnswerRule::Value {
            pattern: pattern(r"(.*)\.default\.svc\.cluster\.local\."),
            to: "{1}.value.com.".to_owned(),
        },
    ];
    let srv = |of: &str, to: &str| {
        let target = name(to);
        let data = Data::Srv {
            priority: 0,
            weight: 1,
            port: 80,
            target,
        };
        Record::new(name(of), 5, data)
    };
    let by_regex = [stop(Rule::Name(rule))];
    let answers = vec![srv(
        "web.default.svc.cluster.local",
        "a.default.svc.cluster.local",
    )];
    assert_eq!(
        reverted(&by_regex, "web.example.com", answers).answers,
        [srv("web.example.com", "a.value.com")]
    );
}

#[test]
fn ttls_and_codes() {
    let names = Matcher::Suffix("test.".to_owned());
    let rules = [
        proceed(Rule::Ttl {
            names: names.clone(),
            min: 30,
            max: 300,
        }),
        stop(Rule::Rcode {
            names,
            from: Rcode::NXDOMAIN,
            to: Rcode::NOERROR,
        }),
    ];
    let answer = reverted(
        &rules,
        "a.test",
        vec![a("a.test", 5), a("a.test", 90), a("a.test", 900)],
    );
    let ttls: Vec<u32> = answer.answers.iter().map(|record| record.ttl).collect();
    assert_eq!(ttls, [30, 90, 300]);
    let rewritten = question(&rules, &query("a.test", Type::A))
        .unwrap()
        .unwrap();
    assert_eq!(rewritten.reverts.rcode(Rcode::NXDOMAIN), Rcode::NOERROR);
    assert_eq!(rewritten.reverts.rcode(Rcode::SERVFAIL), Rcode::SERVFAIL);
    assert!(
        question(&rules, &query("a.other", Type::A))
            .unwrap()
            .is_none()
    );
}

#[test]
fn targets_of_cnames_become_others() {
    let matcher = Matcher::Suffix(".cdn.net.".to_owned());
    let rules = [stop(Rule::Cname {
        matcher,
        to: ".mirror.test.".to_owned(),
    })];
    let rewritten = question(&rules, &query("www.test", Type::A))
        .unwrap()
        .unwrap();
    let mut answer = Answer {
        answers: vec![cname("www.test", "x.cdn.net"), a("x.cdn.net", 1)],
        ..Answer::default()
    };
    let targets = rewritten.reverts.targets(&answer);
    let target = Target {
        from: name("x.cdn.net"),
        to: name("x.mirror.test"),
    };
    assert_eq!(targets, std::slice::from_ref(&target));
    let resolved = Answer {
        answers: vec![a("x.mirror.test", 9)],
        truncated: true,
        ..Answer::default()
    };
    retarget(&mut answer, target, resolved);
    assert_eq!(
        answer.answers,
        [cname("www.test", "x.mirror.test"), a("x.mirror.test", 9)]
    );
    assert!(answer.truncated);
}

fn options(rule: EdnsRewrite, before: &[(u16, &[u8])]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut query = query("Name.test", Type::AAAA);
    if !before.is_empty() {
        let option = |(code, data): &(u16, &[u8])| EdnsOption {
            code: *code,
            data: (*data).into(),
        };
        query.edns = Some(Edns {
            options: before.iter().map(option).collect(),
            ..Edns::default()
        });
    }
    let rules = [stop(Rule::Edns0(rule))];
    let rewritten = question(&rules, &query).unwrap()?;
    let after = rewritten.query.edns.unwrap().options;
    Some(
        after
            .into_iter()
            .map(|option| (option.code, option.data.into()))
            .collect(),
    )
}

#[test]
fn options_of_edns() {
    use EdnsAction::{Append, Replace, Set, Unset};
    let local = |action| EdnsRewrite {
        action,
        data: EdnsData::Local {
            code: 0xffee,
            data: vec![1, 2],
        },
        revert: false,
    };
    let there: &[(u16, &[u8])] = &[(0xffee, &[9]), (3, b"")];
    let changed = Some(vec![(0xffee, vec![1, 2]), (3, vec![])]);
    let added = Some(vec![(0xffee, vec![1, 2])]);
    assert_eq!(options(local(Set), there), changed);
    assert_eq!(options(local(Set), &[]), added);
    assert_eq!(options(local(Append), there), None);
    assert_eq!(options(local(Append), &[]), added);
    assert_eq!(options(local(Replace), there), changed);
    assert_eq!(options(local(Replace), &[]), None);
    assert_eq!(options(local(Unset), there), Some(vec![(3, vec![])]));
}

#[test]
fn values_of_options() {
    let put = |data| EdnsRewrite {
        action: EdnsAction::Set,
        data,
        revert: false,
    };
    let variable = |variable: &str| EdnsData::Variable {
        code: 65001,
        variable: variable.to_owned(),
    };
    for (data, expected) in [
        (variable("qname"), b"Name.test.".to_vec()),
        (variable("qtype"), vec![0, 28]),
        (variable("client_ip"), vec![10, 244, 1, 5]),
        (variable("client_port"), vec![130, 53]),
        (variable("server_ip"), vec![10, 96, 0, 10]),
        (variable("server_port"), vec![0, 53]),
        (variable("protocol"), b"udp".to_vec()),
        (EdnsData::Nsid, vec![]),
        (
            EdnsData::Subnet { v4: 24, v6: 56 },
            vec![0, 1, 24, 0, 10, 244, 1],
        ),
        (
            EdnsData::Subnet { v4: 12, v6: 56 },
            vec![0, 1, 12, 0, 10, 240],
        ),
    ] {
        let after = options(put(data.clone()), &[]).unwrap();
        assert_eq!(after[0].1, expected, "{data:?}");
    }
    assert_eq!(options(put(variable("kubernetes/namespace")), &[]), None);
}

#[test]
fn options_are_reverted() {
    let rule = |revert| {
        stop(Rule::Edns0(EdnsRewrite {
            action: EdnsAction::Set,
            data: EdnsData::Local {
                code: 65001,
                data: vec![1],
            },
            revert,
        }))
    };
    let option = |data: u8| EdnsOption {
        code: 65001,
        data: [data].into(),
    };
    let after = |revert, before: Option<EdnsOption>| {
        let mut query = query("a", Type::A);
        query.edns = before.map(|option| Edns {
            options: vec![option],
            ..Edns::default()
        });
        let rules = [rule(revert)];
        let rewritten = question(&rules, &query).unwrap().unwrap();
        let mut answer = Answer {
            options: vec![option(7)],
            ..Answer::default()
        };
        rewritten.reverts.apply(&mut answer);
        answer.options
    };
    assert_eq!(after(false, None), [option(7)]);
    assert_eq!(after(true, None), []);
    assert_eq!(after(true, Some(option(9))), [option(9)]);
}
