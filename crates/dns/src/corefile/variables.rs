//! `{$NAME}` and `{%NAME%}`: environment variables within words.

use super::Sources;

/// The longest text variables may make out of one word.
const LONGEST: usize = 1 << 20;

/// The most references followed in one word: a value may hold references itself.
const MOST: usize = 1000;

/// The word with its references replaced. An unset variable is empty text; a reference without a
/// name, or without an end, stands for itself.
pub(super) fn replaced(word: &str, sources: &dyn Sources) -> Result<Option<String>, String> {
    if !word.contains("{$") && !word.contains("{%") {
        return Ok(None);
    }
    let text = replace(word.to_owned(), "{%", "%}", sources)?;
    replace(text, "{$", "}", sources).map(Some)
}

fn replace(
    mut text: String,
    open: &str,
    close: &str,
    sources: &dyn Sources,
) -> Result<String, String> {
    for _ in 0..MOST {
        let Some(start) = text.find(open) else {
            return Ok(text);
        };
        let Some(length) = text[start..].find(close) else {
            return Ok(text);
        };
        if length <= open.len() {
            return Ok(text);
        }
        let reference = text[start..start + length + close.len()].to_owned();
        let name = &reference[open.len()..length];
        let value = sources.variable(name);
        let times = text.matches(&reference).count();
        if text.len() + times * value.len() > LONGEST {
            return Err(format!(
                "the value of the environment variable {name} makes a word of more than \
                 {LONGEST} bytes"
            ));
        }
        text = text.replace(&reference, &value);
    }
    Err(format!(
        "more than {MOST} references to environment variables in one word: does the value of one \
         refer to itself?"
    ))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    struct Values;

    impl Sources for Values {
        fn variable(&self, name: &str) -> String {
            match name {
                "A" => "1".to_owned(),
                "LOOP" => "{$LOOP}".to_owned(),
                "GROW" => "{$GROW}{$GROW}".to_owned(),
                "INDIRECT" => "{$A}".to_owned(),
                _ => String::new(),
            }
        }

        fn matching(&self, _pattern: &str) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }

        fn read(&self, _path: &str, _limit: usize) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn references() {
        for (word, expected) in [
            ("x{$A}y{%A%}z{$A}", "x1y1z1"),
            ("{$UNSET}", ""),
            ("{$INDIRECT}", "1"),
            ("{$}{$A}", "{$}{$A}"),
            ("{%%}{%A%}", "{%%}{%A%}"),
            ("{$A", "{$A"),
            ("{%A}", "{%A}"),
        ] {
            let found = replaced(word, &Values).unwrap().unwrap();
            assert_eq!(found, expected, "{word}");
        }
        assert_eq!(replaced("plain", &Values), Ok(None));
    }

    #[test]
    fn values_that_refer_to_themselves_end() {
        assert!(replaced("{$LOOP}", &Values).is_err());
        assert!(replaced("{$GROW}", &Values).is_err());
    }
}
