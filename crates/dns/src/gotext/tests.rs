use proptest::prelude::*;

use super::*;
use crate::plugins::tests::query;
use crate::wire::Type;

fn rendered(text: &str) -> Result<String, String> {
    let query = query("IP-10-0-0-7.Example.org", Type::A);
    let pairs = [
        ("0", "ip-10-0-0-7"),
        ("1", "10"),
        ("a", "10"),
        ("hex", "ff"),
        ("brace", "{{ .Name }}"),
    ];
    let data = Data {
        query: &query,
        zone: "example.org.".to_owned(),
        regex: "^ip-",
        matched: vec!["ip-10-0-0-7".to_owned(), "10".to_owned()],
        groups: pairs
            .map(|(name, group)| (name.to_owned(), group.to_owned()))
            .into(),
        class: "IN".to_owned(),
        kind: "A".to_owned(),
        variables: vec![
            ("n".to_owned(), Value::Int(5)),
            ("yes".to_owned(), Value::Bool(true)),
        ],
    };
    Template::new(text)?.render(&data)
}

#[test]
fn what_templates_write() {
    for (text, expected) in [
        ("", ""),
        ("plain } text", "plain } text"),
        (
            "{{ .Name }} 60 IN A {{ .Group.a }}.0.0.1",
            "ip-10-0-0-7.example.org. 60 IN A 10.0.0.1",
        ),
        (
            "{{.Zone}}{{.Class}}{{.Type}}{{.Remote}}{{.Regex}}",
            "example.org.INA10.244.1.5^ip-",
        ),
        (
            "{{ index .Match 1 }}{{ index .Group \"a\" }}{{ index .Group \"none\" }}",
            "1010",
        ),
        ("[{{ .Group.none }}]{{ .Var.none }}", "[]<no value>"),
        ("{{ .Var.n }}{{ len .Var }}{{ len .Match }}", "522"),
        (
            "{{ .Question.Name }}{{ .Question.Qtype }}{{ .Message.Id }}",
            "IP-10-0-0-7.Example.org.17",
        ),
        ("{{ .Meta \"kubernetes/x\" }}|{{ $.Meta \"x\" }}", "|"),
        ("{{ parseInt .Group.hex 16 8 }}", "255"),
        (
            "{{ printf \"%s/%d/%x/%q/%5d|%-5d|%05d/%v/%t/%%\" \"a\" 7 255 \"q\" 1 2 -3 .Var.n true }}",
            "a/7/ff/\"q\"/    1|2    |-0003/5/true/%",
        ),
        ("{{ if .Var.yes }}y{{ else }}n{{ end }}", "y"),
        (
            "{{ if eq .Type \"MX\" }}m{{ else if eq .Type \"A\" \"AAAA\" }}a{{ else }}-{{ end }}",
            "a",
        ),
        (
            "{{ if and .Var.yes (not .Var.none) (lt .Var.n 6) }}in{{ end }}",
            "in",
        ),
        (
            "{{ or .Var.none \"other\" }}{{ and .Var.none \"x\" }}",
            "other<no value>",
        ),
        (
            "{{ with .Group.a }}<{{ . }}>{{ end }}{{ with .Group.none }}x{{ else }}none{{ end }}",
            "<10>none",
        ),
        (
            "{{ with $x := .Group.a }}{{ $x }}{{ $.Zone }}{{ end }}",
            "10example.org.",
        ),
        ("{{ range .Match }}({{ . }}){{ end }}", "(ip-10-0-0-7)(10)"),
        (
            "{{ range $i, $m := .Match }}{{ $i }}={{ $m }};{{ end }}",
            "0=ip-10-0-0-7;1=10;",
        ),
        (
            "{{ range $m := .Match }}{{ if eq $m \"10\" }}{{ break }}{{ end }}{{ $m }}{{ end }}",
            "ip-10-0-0-7",
        ),
        (
            "{{ range 3 }}{{ if eq . 1 }}{{ continue }}{{ end }}{{ . }}{{ end }}",
            "02",
        ),
        ("{{ range .Var.none }}x{{ else }}empty{{ end }}", "empty"),
        (
            "{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $x := 3 }}{{ $x }}{{ end }}{{ $x }}",
            "32",
        ),
        ("a {{- 1 -}} b {{/* not */}}c{{- /* this */ -}} d", "a1b cd"),
        (
            "{{ print 1 2 \"a\" 3 }}{{ print }}{{ println \"x\" }}",
            "1 2a3x\n",
        ),
        ("{{ slice .Name 0 2 }}{{ slice .Name 3 5 }}", "ip10"),
        (
            "{{ `raw \\n` }}{{ \"a\\\"b\" }}{{ 'c' }}{{ 0x10 }}{{ 1.5 }}",
            "raw \\na\"b99161.5",
        ),
        (
            "{{ (index .Match 1) }}{{ ne 1 2 }}{{ ge 2 2 }}{{ le 1 2 }}{{ gt 1 2 }}",
            "10truetruetruefalse",
        ),
        // What comes out is not looked at again.
        ("{{ .Group.brace }}", "{{ .Name }}"),
    ] {
        assert_eq!(rendered(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_understood() {
    for (text, error) in [
        ("{{", "an action is not closed: }} is missing"),
        ("{{ .Name", "an action is not closed: }} is missing"),
        ("{{ }}", "an action is empty"),
        ("{{ notAFunction }}", "there is no function notAFunction"),
        ("{{ parseInt }}", "parseInt does not take 0 arguments"),
        (
            "{{ .Grup.d }}",
            "there is no .Grup, but .Zone, .Name, .Regex, .Match, .Group, .Class, .Type, .Message, .Question, .Remote, .Var",
        ),
        ("{{ .Name.x }}", "there is no .Name.x"),
        (
            "{{ .Message }}",
            "of .Message there are only .Id, .Opcode, .RecursionDesired, .AuthenticatedData, .CheckingDisabled",
        ),
        ("{{ $x }}", "$x is not known"),
        ("{{ $x = 1 }}", "$x is not known"),
        ("{{ if .Name }}", "{{ if }} is not ended"),
        ("{{ end }}", "there is an {{ end }} too much"),
        ("{{ else }}", "there is an {{ else }} too much"),
        ("{{ break }}", "break is not within a range"),
        (
            "{{ template \"x\" }}",
            "named templates are not taken: template",
        ),
        ("{{ .Name | 1 }}", "behind | comes a function"),
        ("{{ (1 }}", "a bracket is not closed"),
        ("{{ 1 2 }}", "a value takes no arguments"),
        ("{{ \"a }}", "a quote is not closed"),
        ("{{ html .Name }}", "there is no function html"),
        ("{{ ~ }}", "'~' means nothing in an action"),
    ] {
        assert_eq!(
            Template::new(text).map(|_| ()),
            Err(error.to_owned()),
            "{text}"
        );
    }
    assert!(Template::new(&"{{ if 1 }}".repeat(100)).is_err());
    assert!(Template::new(&"x".repeat(10_001)).is_err());
    assert!(Template::new(&format!("{{{{ {} }}}}", "(".repeat(1000))).is_err());
}

#[test]
fn what_goes_wrong() {
    for (text, error) in [
        ("{{ index .Match 9 }}", "index out of range: 9"),
        (
            "{{ parseInt \"gg\" 16 8 }}",
            "parseInt: parsing \"gg\": invalid syntax",
        ),
        (
            "{{ parseInt \"256\" 10 8 }}",
            "parseInt: parsing \"256\": value out of range",
        ),
        ("{{ eq 1 \"a\" }}", "an int and a string cannot be compared"),
        (
            "{{ range 9999 }}{{ range 9999 }}x{{ end }}{{ end }}",
            "more than 10000 steps",
        ),
        (
            "{{ range 999 }}{{ printf \"%1000s\" \"\" }}{{ end }}",
            "more than 131072 bytes of text",
        ),
        ("{{ printf \"%s\" }}", "printf: there is no value for %s"),
        ("{{ printf \"%9999s\" 1 }}", "printf: too wide"),
    ] {
        assert_eq!(rendered(text), Err(error.to_owned()), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ -~]{0,60}") {
        let _ = rendered(&text);
        let _ = rendered(&format!("{{{{ {text} }}}}"));
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(prop_oneof![
        Just("{{"), Just("}}"), Just("{{ if"), Just("{{ else }}"), Just("{{ end }}"), Just("{{ range"), Just("{{ with"), Just("$x"), Just(":="), Just(","),
        Just(".Name"), Just(".Match"), Just("."), Just("1"), Just("-1"), Just("\"a\""), Just("("), Just(")"), Just("|"), Just("index"), Just("slice"),
        Just("printf"), Just("\"%05.3d%s%-9q\""), Just("len"), Just("parseInt"), Just("eq"), Just("lt"), Just("and"), Just("{{-"), Just("-}}"), Just("break"),
    ], 0..20)) {
        let _ = rendered(&words.join(" "));
    }
}
