//! Label selectors in Kubernetes' text form: `app=web,tier in (a,b),!old`.

use model::selector::{LabelSelector, Operator, Requirement};

/// A selector; the comparisons that a `LabelSelector` cannot express are errors.
pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
    let mut parser = Parser { rest: text };
    let selector = parser.selector();
    selector.map_err(|why| format!("{text:?} is no label selector: {why}"))
}

struct Parser<'a> {
    rest: &'a str,
}

/// A word or mark of a selector; an empty one is the end.
type Token<'a> = &'a str;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let mark = |c: char| "=!(),<>".contains(c);
        let end = match text.chars().next() {
            None => 0,
            Some('=') if text.starts_with("==") => 2,
            Some('!') if text.starts_with("!=") => 2,
            Some(c) if mark(c) => 1,
            Some(_) => {
                let end = text.find(|c: char| mark(c) || " \t\r\n".contains(c));
                end.unwrap_or(text.len())
            }
        };
        &text[..end]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.rest = &text[token.len()..];
        token
    }

    fn selector(&mut self) -> Result<LabelSelector, String> {
        let mut labels: Vec<(String, String)> = Vec::new();
        let mut selector = LabelSelector::default();
        if self.peek().is_empty() {
            return Ok(selector);
        }
        loop {
            match self.requirement()? {
                Ok(equal) => labels.push(equal),
                Err(requirement) => selector.match_expressions.push(requirement),
            }
            match self.next() {
                "" => break,
                "," => {}
                other => return Err(format!("found {other:?} where a comma is expected")),
            }
        }
        selector.match_labels = labels.into_iter().collect();
        Ok(selector)
    }

    /// A key and value that must be equal, or another requirement.
    fn requirement(&mut self) -> Result<Result<(String, String), Requirement>, String> {
        let absent = self.peek() == "!";
        if absent {
            self.next();
        }
        let key = key(self.next())?;
        let requirement = |operator, values| {
            Err(Requirement {
                key: key.clone(),
                operator,
                values,
            })
        };
        if absent {
            return Ok(requirement(Operator::DoesNotExist, Vec::new()));
        }
        match self.peek() {
            "" | "," => return Ok(requirement(Operator::Exists, Vec::new())),
            _ => {}
        }
        Ok(match self.next() {
            "=" | "==" => {
                let text = match self.peek() {
                    "" | "," => "",
                    _ => self.next(),
                };
                Ok((key.clone(), value(text)?))
            }
            "in" => requirement(Operator::In, self.values()?),
            "notin" => requirement(Operator::NotIn, self.values()?),
            operator @ ("!=" | "<" | ">") => {
                return Err(format!("{operator:?} is not known here; use notin ({key})"));
            }
            other => return Err(format!("found {other:?} where =, in or notin is expected")),
        })
    }

    /// `(a,b)`; nothing between commas is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            "(" => {}
            other => return Err(format!("found {other:?} where ( is expected")),
        }
        let mut values = Vec::new();
        loop {
            match self.peek() {
                "," | ")" => values.push(String::new()),
                _ => values.push(value(self.next())?),
            }
            match self.next() {
                "," => {}
                ")" => break,
                other => return Err(format!("found {other:?} where a comma or ) is expected")),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

/// Letters, digits, `-`, `_` and `.`, the first and last a letter or digit, at most 63.
fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && end(bytes.first())
        && end(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn key(text: &str) -> Result<String, String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let part = |part: &str| {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty()
            && !part.starts_with('-')
            && !part.ends_with('-')
            && part.bytes().all(letters)
    };
    let domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(part);
    if is_label(name) && prefix.is_none_or(domain) {
        return Ok(text.to_owned());
    }
    Err(match text {
        "" => "a key is missing".to_owned(),
        text => format!("{text:?} is no key of a label"),
    })
}

fn value(text: &str) -> Result<String, String> {
    if text.is_empty() || is_label(text) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is no value of a label"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::parse;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels: BTreeMap<String, String> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn selectors_as_kubernetes_reads_them() {
        let web = [("app", "web"), ("example.com/tier", "front")];
        for yes in [
            "",
            "app=web",
            "app == web , example.com/tier in (front, back)",
            "app notin (api),!old",
            "app",
            "other notin (x)",
            "app in (,web)",
        ] {
            assert!(selects(yes, &web), "{yes}");
        }
        for no in [
            "app=api",
            "!app",
            "old",
            "app in (api)",
            "app=",
            "app in ()",
        ] {
            assert!(!selects(no, &web), "{no}");
        }
        for wrong in [
            "app=a=b",
            "app in a",
            "app in (a",
            "=",
            "app,",
            "a b",
            "app!=x",
            "a<1",
            "-a=1",
            "a=-",
            "A.b/c/d",
            "app in (a b)",
            "&",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
