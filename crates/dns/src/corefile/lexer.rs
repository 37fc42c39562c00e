//! Text to words, as `CoreDNS`'s lexer does it.
//!
//! Words are separated by white space. One that starts with a quotation mark goes on to the next
//! one, over lines too; within, `\"` is a quotation mark and every other backslash stands for
//! itself. From `#` to the end of the line nothing counts, unless within quotes.

use std::sync::Arc;

/// A file of the Corefile: its index in the list of files.
pub(super) type FileId = u32;

/// A word of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: Arc<str>,
    pub(super) file: FileId,
    pub(super) line: u32,
    /// The import it came by, an index; 0 is none.
    pub(super) import: u32,
}

impl Token {
    /// The line on which the word ends: a quoted one may go over several.
    pub(super) fn last_line(&self) -> u32 {
        let breaks = self.text.bytes().filter(|byte| *byte == b'\n').count();
        self.line
            .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX))
    }

    /// Whether `next` stands on the line on which this one ends.
    pub(super) fn is_beside(&self, next: &Self) -> bool {
        self.file == next.file && self.last_line() == next.line
    }

    /// Whether `next` stands on a later line, or in another file.
    pub(super) fn is_above(&self, next: &Self) -> bool {
        self.file != next.file || self.last_line() < next.line
    }
}

/// The words of a text, at most `most` of them; and the line of a quotation mark that none
/// closes.
pub(super) fn tokens(text: &str, file: FileId, most: usize) -> Option<(Vec<Token>, Option<u32>)> {
    let mut lexer = Lexer {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text).chars(),
        line: 1,
        unclosed: None,
    };
    let mut tokens = Vec::new();
    while let Some((text, line)) = lexer.next() {
        if tokens.len() == most {
            return None;
        }
        tokens.push(Token {
            text: text.into(),
            file,
            line,
            import: 0,
        });
    }
    Some((tokens, lexer.unclosed))
}

struct Lexer<'a> {
    rest: std::str::Chars<'a>,
    line: u32,
    unclosed: Option<u32>,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<(String, u32)> {
        let mut word = String::new();
        let mut started = self.line;
        let mut comment = false;
        while let Some(c) = self.rest.next() {
            // White space ends a word, but for a carriage return: it is as if it was not there.
            if c.is_whitespace() {
                let ended = c != '\r' && !word.is_empty();
                if c == '\n' {
                    self.line += 1;
                    comment = false;
                }
                if ended {
                    return Some((word, started));
                }
                continue;
            }
            // A comment that starts within a word ends at the next white space, with the word.
            comment |= c == '#';
            if comment {
                continue;
            }
            if word.is_empty() {
                started = self.line;
                if c == '"' {
                    return self.quoted().map(|word| (word, started));
                }
            }
            word.push(c);
        }
        (!word.is_empty()).then_some((word, started))
    }

    /// After an opening quotation mark.
    fn quoted(&mut self) -> Option<String> {
        let opened = self.line;
        let mut word = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return Some(word),
                '\\' => match self.rest.next() {
                    Some('"') => word.push('"'),
                    Some(other) => {
                        self.line += u32::from(other == '\n');
                        word.extend(['\\', other]);
                    }
                    None => break,
                },
                other => {
                    self.line += u32::from(other == '\n');
                    word.push(other);
                }
            }
        }
        self.unclosed = Some(opened);
        (!word.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(text: &str) -> Vec<(String, u32)> {
        let (tokens, _) = tokens(text, 0, usize::MAX).unwrap();
        let words = tokens.iter();
        words.map(|one| (one.text.to_string(), one.line)).collect()
    }

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn words_as_coredns_reads_them() {
        assert_eq!(texts("a b\tc\r\nd"), ["a", "b", "c", "d"]);
        assert_eq!(texts("\u{feff}a"), ["a"]);
        assert_eq!(texts(r#""a b" c"#), ["a b", "c"]);
        assert_eq!(texts(r#""a \" b" "c\d" "e\\""#), ["a \" b", r"c\d", r"e\\"]);
        assert_eq!(texts("\"\" a"), ["", "a"]);
        // A quotation mark within a word is a letter, and what follows a quoted word is another.
        assert_eq!(texts(r#"a"b c" "d"e"#), ["a\"b", "c\"", "d", "e"]);
        assert_eq!(texts("# x\na # b\n \"# c\""), ["a", "# c"]);
        assert_eq!(texts("a#b c # d"), ["a", "c"]);
        assert_eq!(texts("a\rb"), ["ab"]);
    }

    #[test]
    fn lines() {
        assert_eq!(
            words("a\n\n\"b\nc\" d\ne"),
            [("a", 1), ("b\nc", 3), ("d", 4), ("e", 5)].map(|(w, l)| (w.to_owned(), l))
        );
    }

    #[test]
    fn a_quotation_mark_that_none_closes_is_told() {
        let (tokens, unclosed) = tokens("a\n\"b\nc", 0, usize::MAX).unwrap();
        assert_eq!(tokens.len(), 2);
        assert_eq!(unclosed, Some(2));
        assert!(super::tokens("a b c", 0, 2).is_none());
    }
}
