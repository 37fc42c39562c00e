//! Blocks, imports, snippets, variables.

use super::{Given, accepted, read, shown};
use crate::corefile::{Corefile, parse};

fn with(sources: &Given, text: &str) -> Result<Corefile, String> {
    match parse("Corefile", text, 53, sources) {
        Ok((corefile, _)) => Ok(corefile),
        Err(errors) => Err(shown(&errors)),
    }
}

/// The addresses of each block.
fn addresses(text: &str) -> Vec<Vec<String>> {
    let servers = accepted(text).servers;
    let shown = servers.iter().map(|server| {
        let all = server.addresses.iter();
        all.map(|one| format!("{}://{}:{}", one.scheme.as_str(), one.zone, one.port))
            .collect()
    });
    shown.collect()
}

#[test]
fn keys_of_blocks() {
    assert_eq!(addresses(".:53 {\n}"), [["dns://.:53"]]);
    assert_eq!(
        addresses("example.org Example.NET:1053, tls://a https://b.:8443 dns://c {\n}"),
        [[
            "dns://example.org.:53",
            "dns://example.net.:1053",
            "tls://a.:853",
            "https://b.:8443",
            "dns://c.:53"
        ]]
    );
    assert_eq!(
        addresses("a,\nb,\nc {\n}\nd {\n}"),
        [
            vec!["dns://a.:53", "dns://b.:53", "dns://c.:53"],
            vec!["dns://d.:53"]
        ]
    );
    assert_eq!(
        addresses("10.0.0.0/24 10.1.0.0/23:54 {\n}"),
        [[
            "dns://0.0.10.in-addr.arpa.:53",
            "dns://0.1.10.in-addr.arpa.:54",
            "dns://1.1.10.in-addr.arpa.:54"
        ]]
    );
    assert_eq!(
        addresses("2001:db8::/32 {\n}"),
        [["dns://8.b.d.0.1.0.0.2.ip6.arpa.:53"]]
    );
}

#[test]
fn the_default_port_is_that_of_the_command_line() {
    let (corefile, _) = parse("f", "a tls://b c:54 {\n}", 1053, &Given::default()).unwrap();
    let ports: Vec<u16> = corefile.servers[0]
        .addresses
        .iter()
        .map(|a| a.port)
        .collect();
    assert_eq!(ports, [1053, 853, 54]);
}

#[test]
fn a_block_without_braces_is_the_rest_of_the_text() {
    let corefile = accepted("example.org\nwhoami\nlog example.org {\n  class error\n}\nany\n");
    let plugins = &corefile.servers[0].plugins;
    assert!(plugins.whoami && plugins.any);
    assert!(plugins.log[0].classes.error && !plugins.log[0].classes.success);
    assert_eq!(accepted("example.org").servers.len(), 1);
}

#[test]
fn a_block_closed_by_a_plugins_brace_is_taken_with_a_warning() {
    let (_, warnings) = read(". {\nlog {\nclass all\n}\n").unwrap();
    assert!(
        warnings[0].message.contains("closed by the end"),
        "{warnings:?}"
    );
}

#[test]
fn plugins_are_read_whatever_their_order() {
    let one = accepted(". {\nfile db zone\nroot /zones\ncache\nwhoami\n}");
    let other = accepted(". {\nwhoami\nroot /zones\ncache\nfile db zone\n}");
    assert_eq!(one.servers[0].plugins, other.servers[0].plugins);
    let file = one.servers[0].plugins.file.as_ref().unwrap();
    assert_eq!(file.files[0].path, "/zones/db");
}

#[test]
fn snippets_and_files_stand_where_they_are_imported() {
    let sources = Given::files([
        ("common/base.conf", "errors\nimport more.conf\n"),
        ("common/more.conf", "cache 10\n"),
        ("common/options", "max_fails 7\nexpire 1m\n"),
        ("zones/a", "a {\nimport ../common/more.conf\n}\n"),
        ("zones/b", "b {\nwhoami\n}\n"),
    ]);
    let text = "(up) {\nforward . 10.0.0.1 {\nimport common/options\npolicy sequential\n}\n}\n\
                import zones/*\n\
                . {\nimport common/base.conf\nimport up\n}\n";
    let corefile = with(&sources, text).unwrap();
    let zones: Vec<String> = corefile
        .servers
        .iter()
        .map(|server| server.addresses[0].zone.to_string())
        .collect();
    assert_eq!(zones, ["a.", "b.", "."]);
    let plugins = &corefile.servers[2].plugins;
    assert!(plugins.errors.is_some());
    assert_eq!(plugins.cache.as_ref().unwrap().success.max_ttl, 10);
    assert_eq!(plugins.forward[0].max_fails, 7);
    assert_eq!(plugins.forward[0].expire.as_secs(), 60);
}

#[test]
fn errors_are_told_where_they_are_written() {
    let sources = Given::files([("zones/a", "whoami\n\ncache none {\nsucess 1\n}\n")]);
    let errors = with(&sources, "\n. {\nimport zones/a\n}\n").unwrap_err();
    assert_eq!(
        errors,
        "zones/a:4: cache: unknown option \"sucess\"; did you mean \"success\"?"
    );
    let text = "(s) {\nhealth {\nlameduk 5s\n}\n}\na {\nimport s\n}\nb {\nimport s\n}\n";
    let errors = with(&sources, text).unwrap_err();
    assert_eq!(
        errors,
        "Corefile:3: health: unknown option \"lameduk\"; did you mean \"lameduck\"?"
    );
}

#[test]
fn files_that_import_each_other_end() {
    let sources = Given::files([("a", "import b\n"), ("b", "errors\nimport a\n")]);
    let errors = with(&sources, ". {\nimport a\n}\n").unwrap_err();
    assert_eq!(errors, "b:2: the import never ends: a imports b imports a");
    let itself = Given::files([("Corefile", "import Corefile\n")]);
    let errors = with(&itself, "import Corefile\n").unwrap_err();
    assert!(errors.contains("never ends"), "{errors}");
}

#[test]
fn variables_stand_for_their_values() {
    let mut sources = Given::default();
    let variables = [
        ("ZONE", "example.org"),
        ("TTL", "17"),
        ("WORDS", "1.1.1.1 9.9.9.9"),
    ];
    sources.variables = variables
        .map(|(name, value)| (name, value.to_owned()))
        .into();
    let text = "{$ZONE}:1053 {\ncache {%TTL%} {$ZONE}\nforward . 10.0.0.{$TTL}\nnsid {$WORDS}\n}\n";
    let corefile = with(&sources, text).unwrap();
    let server = &corefile.servers[0];
    assert_eq!(server.addresses[0].zone.to_string(), "example.org.");
    assert_eq!(server.addresses[0].port, 1053);
    let cache = server.plugins.cache.as_ref().unwrap();
    assert_eq!(cache.success.max_ttl, 17);
    // The value is one word, whatever is in it.
    assert_eq!(server.plugins.nsid.as_deref(), Some("1.1.1.1 9.9.9.9"));
    let errors = with(&sources, ". {\nforward . {$WORDS}\n}\n").unwrap_err();
    assert!(errors.contains("\"1.1.1.1 9.9.9.9\""), "{errors}");
    let errors = with(&sources, "{$UNSET}:53 {\n}\n").unwrap_err();
    assert!(errors.contains("\":53\" names no zone"), "{errors}");
}

#[test]
fn blocks_may_share_a_zone_by_address_and_by_view() {
    accepted(". {\nbind 127.0.0.1\n}\n. {\nbind 127.0.0.2\n}\n.:54 {\n}\ntls://. {\n}\n");
    accepted(". {\nview a {\nexpr true\n}\n}\n. {\nview b {\nexpr true\n}\n}\n. {\n}\n");
    accepted(". {\n}\n. {\nview a {\nexpr true\n}\n}\n");
    for twice in [
        ". {\nbind 127.0.0.1\n}\n. {\nbind 127.0.0.2 127.0.0.1\n}\n",
        ". {\n}\n. {\nbind 127.0.0.1\n}\n",
        ". {\nbind 127.0.0.1\n}\n. {\nview a {\nexpr true\n}\n}\n",
    ] {
        let errors = shown(&read(twice).unwrap_err());
        assert!(errors.contains("is served by the block at"), "{errors}");
    }
}

#[test]
fn odd_texts_are_taken_with_a_warning() {
    for (text, warning) in [
        (
            "example.org whoami {\n}\n",
            "\"whoami\" is taken for a zone",
        ),
        ("tls://example.org {\n}\n", "without the plugin tls"),
        (".\nnsid \"a b\n}\n}", "quotation mark is never closed"),
        (". {\nimport none*\n}\n", "no file matches"),
    ] {
        let (_, warnings) = read(text).map_err(|errors| shown(&errors)).unwrap();
        let told = warnings.iter().any(|one| one.message.contains(warning));
        assert!(told, "{text}: {warnings:?}");
    }
}
