use proptest::prelude::*;

use super::*;
use crate::plugins::tests::query;
use crate::wire::Type;

fn worked_out(text: &str) -> Result<Value, String> {
    let query = query("Web.Example.org", Type::AAAA);
    let variables = vec![("num".to_owned(), Value::Int(3))];
    let groups = ["n", "1"]
        .map(|group| (group.to_owned(), "7".to_owned()))
        .into();
    let environment = Environment {
        query: &query,
        groups: &groups,
        variables: &variables,
    };
    let expression = Expression::new(text, &["num".to_owned()], true)?;
    expression.value(&environment)
}

#[test]
fn what_expressions_are() {
    for (text, expected) in [
        ("1 + 2 * 3 ** 2", "19"),
        ("(1 + 2) * -3", "-9"),
        ("7 / 2", "3.5"),
        ("7 % 4", "3"),
        ("'a' + \"b\" + `c`", "abc"),
        ("0x1f", "31"),
        ("1_000", "1000"),
        ("name()", "web.example.org."),
        ("type() == 'AAAA' and not (class() == 'CH')", "true"),
        ("client_ip() + ':' + port()", "10.244.1.5:33333"),
        ("server_ip() + ':' + server_port()", "10.96.0.10:53"),
        ("proto()", "udp"),
        ("[id(), opcode(), size(), bufsize()]", "[7 0 33 512]"),
        ("do()", "false"),
        ("incidr(client_ip(), '10.244.0.0/16')", "true"),
        ("incidr('2001:db8::1', '10.0.0.0/8')", "false"),
        (
            "any(['10.0.0.0/8', '172.16.0.0/12'], incidr(client_ip(), #))",
            "true",
        ),
        ("all([1, 2, 3], {# > 1})", "false"),
        ("none([1, 2], # > 2) && one([1, 2], # > 1)", "true"),
        ("filter(1..5, # % 2 == 1)", "[1 3 5]"),
        ("map([1, 2], # * num)", "[3 6]"),
        ("count([1, 2, 3], # > 1)", "2"),
        ("find([1, 2, 3], # > 1)", "2"),
        ("type() in ['A', 'AAAA']", "true"),
        ("type() not in ['A', 'AAAA']", "false"),
        ("'k' in {k: 1, 'l': 2}", "true"),
        ("{k: 1, 'l': 2}.l", "2"),
        ("name() matches '^web\\\\..*\\\\.org\\\\.$'", "true"),
        (
            "name() startsWith 'web' && name() endsWith '.org.' && name() contains 'amp'",
            "true",
        ),
        ("name() not startsWith 'x'", "true"),
        ("group('n') + group(1) + group('none')", "77"),
        ("int(group('n')) > num ? 'more' : 'less'", "more"),
        ("nil ?? 'x'", "x"),
        ("metadata('a/b') == ''", "true"),
        ("split(name(), '.')[1]", "example"),
        ("split('a.b.c', '.', 2)", "[a b.c]"),
        ("name()[0:3]", "web"),
        ("name()[-4:]", "org."),
        ("[1, 2, 3][1:]", "[2 3]"),
        ("[1, 2, 3][-1]", "3"),
        ("replace('1-2-3-4', '-', '.')", "1.2.3.4"),
        ("replace('1-2-3-4', '-', '.', 1)", "1.2-3-4"),
        ("upper(trimSuffix(name(), '.'))", "WEB.EXAMPLE.ORG"),
        ("name() | trimSuffix('.') | split('.') | len()", "3"),
        ("join(reverse(['a', 'b']), '-')", "b-a"),
        ("trim('xxaxx', 'x') + trim(' b ')", "ab"),
        ("max(1, 2.5) + min([1, 2])", "3.5"),
        ("sum([1, 2])", "3"),
        ("len('äb') + len([1])", "3"),
        ("indexOf('abc', 'c') + lastIndexOf('abc', 'x')", "1"),
        ("string(12) + '3'", "123"),
        ("int('12') + int(3.9)", "15"),
        ("first([1]) == last([1]) && first([]) == nil", "true"),
        ("let x = 2; let y = x * 2; x + y", "6"),
        ("1 == 1.0", "true"),
        ("true || 1 > 'a'", "true"),
        ("not true ?? false", "false"),
        ("1 /* one */ + 1 // two", "2"),
        ("'\\x41\\u00e4\\n' == \"Aä\\n\"", "true"),
    ] {
        let value = worked_out(text).map(|value| value.to_string());
        assert_eq!(value.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_understood() {
    for (text, error) in [
        ("", "the expression ends too early"),
        ("1 +", "the expression ends too early"),
        ("1 2", "\"2\" is not expected there"),
        ("(1", "the expression ends too early, not \")\""),
        ("foo", "foo is not known"),
        ("foo()", "there is no function foo"),
        ("now()", "there is no function now"),
        ("len()", "len takes 1 to 1 values, not 0 values"),
        ("name(1)", "name takes no values, not 1 values"),
        (
            "incidr('a')",
            "incidr takes an address and a network, not 1 values",
        ),
        ("# > 1", "\"# > 1\" is not expected there"),
        ("'a", "a quote is not closed"),
        ("'\\q'", "\\q is no escape"),
        (
            "name() matches type()",
            "what `matches` compares with is to be a text in quotes",
        ),
        (
            "name() matches '('",
            "\"(\" is not a regular expression: unclosed group",
        ),
        (
            "any([1], #index > 0)",
            "of # only the element itself is known",
        ),
        ("1 ~ 2", "'~' at 3 means nothing"),
        (
            "99999999999999999999",
            "\"99999999999999999999\" is no number",
        ),
    ] {
        assert_eq!(
            Expression::new(text, &[], false).map(|_| ()),
            Err(error.to_owned()),
            "{text}"
        );
    }
    assert!(Expression::new(&"(".repeat(10_000), &[], false).is_err());
    assert!(Expression::new(&"!".repeat(10_000), &[], false).is_err());
    assert!(Expression::new(&"1".repeat(10_001), &[], false).is_err());
    assert!(Expression::new("group(1)", &[], false).is_err());
}

#[test]
fn what_cannot_be_worked_out() {
    for (text, error) in [
        (
            "incidr('notanip', '10.0.0.0/8')",
            "first argument is not an IP address",
        ),
        ("incidr('10.0.0.1', 'x')", "invalid CIDR address: x"),
        ("1 + 'a'", "an int and a string are not two numbers"),
        ("1 > 'a'", "an int and a string have no order"),
        ("1 and true", "an int is not true or false"),
        ("9223372036854775807 + 1", "too large a value"),
        ("1 % 0", "too large a value"),
        ("[1][5]", "there is no element 5"),
        ("int('x')", "\"x\" is no number"),
        ("repeat('abc', 100000)", "too large a value"),
        ("1..100000", "a range of more than 4096 numbers"),
        (
            "count(1..4000, any(1..4000, # > 5000)) > 0",
            "more than 10000 steps",
        ),
        ("map(1..1000, repeat('x', 100))", "too large a value"),
    ] {
        assert_eq!(worked_out(text), Err(error.to_owned()), "{text}");
    }
    assert_eq!(worked_out("1"), Ok(Value::Int(1)));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[ -~]{0,100}") {
        let _ = worked_out(&text);
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(prop_oneof![
        Just("1"), Just("-9223372036854775808"), Just("'a'"), Just("name()"), Just("num"), Just("("), Just(")"), Just("["), Just("]"),
        Just("{"), Just("}"), Just(","), Just(":"), Just("?"), Just("??"), Just("#"), Just(".."), Just("**"), Just("-"), Just("+"), Just("*"),
        Just("/"), Just("%"), Just("not"), Just("in"), Just("and"), Just("=="), Just("<"), Just("any("), Just("map("), Just("split("),
        Just("replace("), Just("repeat("), Just("take("), Just("abs("), Just("int("), Just("let x ="), Just(";"), Just("x"), Just("|"), Just("matches"),
    ], 0..16)) {
        let _ = worked_out(&words.join(" "));
    }
}
