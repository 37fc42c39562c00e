//! No text, however it is made, makes the parser fail, hang or grow.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Given, cases, read, shown};
use crate::corefile::parse;

/// Words that mean something, and some that are near to it.
const WORDS: &[&str] = &[
    "{",
    "}",
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    "\"",
    "\\",
    "#",
    "\r",
    ",",
    "(a)",
    "import",
    "a",
    "b*",
    ".",
    ".:53",
    "example.org",
    "10.0.0.0/9",
    "::/1",
    "2000::/3",
    "tls://x:1",
    "grpc://x",
    "-1",
    "0",
    "1",
    "30",
    "99999999999999999999",
    "5s",
    "1.5h",
    "-5s",
    "90%",
    "%",
    "0x",
    "*",
    "{$A}",
    "{%A%}",
    "{$",
    "(.*)",
    "(",
    "[",
    "{1}",
    "1.1.1.1",
    "[::1]:53",
    "tls://9.9.9.9%x",
    "A",
    "ANY",
    "IN",
    "NXDOMAIN",
    "success",
    "denial",
    "name",
    "regex",
    "answer",
    "auto",
    "class",
    "type",
    "net",
    "to",
    "set",
    "local",
    "edns0",
    "revert",
    "metadata",
    "fallthrough",
    "ttl",
    "reload",
    "@kubernetes",
    "root",
    "cancel",
    "https",
    "timeouts",
    "multisocket",
    "nsid",
    "bufsize",
    "bind",
    "debug",
    "ready",
    "health",
    "pprof",
    "prometheus",
    "errors",
    "log",
    "dns64",
    "any",
    "chaos",
    "loadbalance",
    "rewrite",
    "autopath",
    "acl",
    "cache",
    "header",
    "tls",
    "minimal",
    "template",
    "transfer",
    "hosts",
    "k8s_external",
    "kubernetes",
    "file",
    "loop",
    "forward",
    "erratic",
    "whoami",
    "view",
    "grpc",
    "prefetch",
    "serve_stale",
    "policy",
    "health_check",
    "consolidate",
    "match",
    "var",
    "expr",
    "pods",
    "labels",
    "a in (b",
    "weighted",
    "prefer",
    "\u{feff}",
    "\u{a0}",
    "\u{1f600}",
];

fn sources() -> Given {
    let mut given = Given::files([("a", "errors\nimport b1\n"), ("b1", "log {\nimport a\n}")]);
    given.variables.insert("A", "{$A} x".to_owned());
    given
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
        let _ = parse("Corefile", &text, 53, &sources());
    }

    #[test]
    fn any_row_of_words_is_taken_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..80)
    ) {
        let text = words.join(" ");
        if let Err(errors) = parse("Corefile", &text, 53, &sources()) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|error| !error.message.is_empty()));
        }
    }

    #[test]
    fn any_block_of_words_is_taken_or_refused(
        lines in prop::collection::vec(
            prop::collection::vec(prop::sample::select(WORDS), 1..6), 0..16)
    ) {
        let lines: Vec<String> = lines.iter().map(|words| words.join(" ")).collect();
        let text = format!(". {{\n{}\n}}\n", lines.join("\n"));
        let _ = parse("Corefile", &text, 53, &sources());
    }
}

/// Every prefix of every example: what an editor saves halfway.
#[test]
fn every_beginning_of_an_example_is_taken_or_refused() {
    for (_, text) in cases(include_str!("examples.txt")) {
        for (end, _) in text.char_indices() {
            let _ = read(&text[..end]);
        }
    }
}

/// The errors, which come soon.
fn refused_soon(text: &str, sources: &Given) -> String {
    let started = Instant::now();
    let errors = parse("Corefile", text, 53, sources).unwrap_err();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(errors.len() <= 100, "{}", errors.len());
    shown(&errors)
}

#[test]
fn snippets_that_double_end() {
    let mut text = "(s0) {\nerrors\n}\n".to_owned();
    for depth in 1..40 {
        let before = depth - 1;
        write!(
            text,
            "(s{depth}) {{\nimport s{before}\nimport s{before}\n}}\n"
        )
        .unwrap();
    }
    text += ". {\nimport s39\n}\n";
    let error = refused_soon(&text, &Given::default());
    assert!(
        error.contains("more than 10000 imports of snippets"),
        "{error}"
    );
}

#[test]
fn large_snippets_often_imported_end() {
    let large = "log example.org\n".repeat(5_000);
    let text = format!(
        "(s) {{\n{large}}}\n. {{\n{}}}\n",
        "import s\n".repeat(1_000)
    );
    let error = refused_soon(&text, &Given::default());
    assert!(error.contains("more than 1000000 words"), "{error}");
}

#[test]
fn large_files_end() {
    let sources = Given::files([("large", &"a ".repeat(9 << 20))]);
    let error = refused_soon(". {\nimport large\n}\n", &sources);
    assert!(error.contains("more than 16777216 bytes"), "{error}");
    let error = refused_soon(&"a ".repeat(2 << 20), &Given::default());
    assert!(error.contains("more than 1000000 words"), "{error}");
}

#[test]
fn many_errors_are_told_soon_and_briefly() {
    let unknown = format!(
        ". {{\n{}}}\n",
        "kubernetess cluster.local\n".repeat(100_000)
    );
    assert!(refused_soon(&unknown, &Given::default()).contains("did you mean"));
    let options = "max_failss 1\n".repeat(100_000);
    let options = format!(". {{\nforward . 1.1.1.1 {{\n{options}}}\n}}\n");
    assert!(refused_soon(&options, &Given::default()).contains("did you mean"));
    let twice = ". {\nwhoami\n}\n".repeat(20_000);
    assert!(refused_soon(&twice, &Given::default()).contains("is served by the block at"));
    let many: String = (0..20_001).map(|one| format!("a{one} {{\n}}\n")).collect();
    let error = refused_soon(&many, &Given::default());
    assert!(error.contains("more than 20000 server blocks"), "{error}");
}

#[test]
fn networks_that_stand_for_many_zones_end() {
    let networks = format!("{} {{\n}}\n", "10.0.0.0/9 ".repeat(100_000));
    let error = refused_soon(&networks, &Given::default());
    assert!(error.contains("more than 200000 zones"), "{error}");
    let plugins = format!("10.0.0.0/9 {{\n{}}}\n", "acl {\n}\n".repeat(100_000));
    let error = refused_soon(&plugins, &Given::default());
    assert!(error.contains("more than 200000 zones"), "{error}");
}

#[test]
fn regular_expressions_take_bounded_memory() {
    let large = r"template ANY ANY { match [a-z]{900} }";
    let lines = large
        .replace("{ m", "{\nm")
        .replace(" }", "\n}\n")
        .repeat(2_000);
    let error = refused_soon(&format!(". {{\n{lines}}}\n"), &Given::default());
    assert!(error.contains("too much memory"), "{error}");
}
