//! Go's syntax of regular expressions in terms of Rust's.
//!
//! They are the same for the most part. The differences: classes like `\d` are ASCII in Go; a
//! brace that is no counter, a bracket within a class and an escaped mark stand for themselves;
//! `\Q...\E` quotes; octal numbers are taken; one repetition upon another is not.

use std::iter::Peekable;
use std::str::Chars;

/// The expression in Rust's syntax.
pub(super) fn to_rust(text: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: text.chars().peekable(),
        out: String::with_capacity(text.len() + 16),
        repeated: false,
    };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    /// What was read last is a repetition.
    repeated: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            let repeated = std::mem::take(&mut self.repeated);
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '*' | '+' | '?' => {
                    self.out.push(c);
                    self.repetition(repeated)?;
                }
                '{' => match self.counter()? {
                    Some(counter) => {
                        self.out.push_str(&counter);
                        self.repetition(repeated)?;
                    }
                    None => self.out.push_str("\\{"),
                },
                '}' => self.out.push_str("\\}"),
                '(' => {
                    self.out.push('(');
                    self.group()?;
                }
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    /// After a repetition: it may be lazy, and must not follow another one.
    fn repetition(&mut self, repeated: bool) -> Result<(), String> {
        if repeated {
            return Err("a repetition follows a repetition".to_owned());
        }
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.repeated = true;
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,3}` after the opening brace; else the brace stands for itself.
    fn counter(&mut self) -> Result<Option<String>, String> {
        let mut ahead = self.rest.clone();
        let mut counter = "{".to_owned();
        let closed = loop {
            match ahead.next() {
                Some(c) if c.is_ascii_digit() || c == ',' => counter.push(c),
                Some('}') => break true,
                _ => break false,
            }
        };
        let (low, high) = match counter[1..].split_once(',') {
            Some((low, high)) => (low, Some(high)),
            None => (&counter[1..], None),
        };
        let leading_zero = |number: &str| number.len() > 1 && number.starts_with('0');
        if !closed
            || low.is_empty()
            || leading_zero(low)
            || high.is_some_and(|high| high.contains(',') || leading_zero(high))
        {
            return Ok(None);
        }
        let number = |text: &str| match text.parse::<u32>() {
            Ok(number) if number <= 1000 => Ok(number),
            _ => Err(format!("{{{text}}} repeats more than 1000 times")),
        };
        let least = number(low)?;
        if let Some(high) = high.filter(|high| !high.is_empty())
            && number(high)? < least
        {
            return Err(format!("{counter}}} has its bounds the wrong way round"));
        }
        self.rest = ahead;
        counter.push('}');
        Ok(Some(counter))
    }

    /// After an opening parenthesis: flags that only Rust knows are errors.
    fn group(&mut self) -> Result<(), String> {
        if self.rest.peek() != Some(&'?') {
            return Ok(());
        }
        self.rest.next();
        self.out.push('?');
        if matches!(self.rest.peek(), Some('P' | '<')) {
            while let Some(c) = self.rest.next_if(|c| *c != '>') {
                self.out.push(c);
            }
            return Ok(());
        }
        while let Some(c) = self.rest.next_if(|c| !matches!(c, ':' | ')')) {
            if !matches!(c, 'i' | 'm' | 's' | 'U' | '-') {
                return Err(format!("(?{c} is not known"));
            }
            self.out.push(c);
        }
        Ok(())
    }

    /// After a backslash outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        match self.rest.peek().copied() {
            None => return Err("it ends with a backslash".to_owned()),
            Some('Q') => {
                self.rest.next();
                self.quoted();
            }
            Some(c @ ('A' | 'z' | 'B')) => {
                self.rest.next();
                self.out.push('\\');
                self.out.push(c);
            }
            Some('b') => {
                self.rest.next();
                self.out.push_str("(?-u:\\b)");
            }
            Some(_) => match self.perl_class() {
                Some((negated, ranges)) => {
                    self.out.push_str(if negated { "[^" } else { "[" });
                    self.out.push_str(ranges);
                    self.out.push(']');
                }
                None => {
                    if !self.unicode_class() {
                        let c = self.escaped_char()?;
                        push_literal(&mut self.out, c);
                    }
                }
            },
        }
        Ok(())
    }

    /// After `\Q`: everything up to `\E` stands for itself.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            push_literal(&mut self.out, c);
        }
    }

    /// `d`, `D`, `w`, `W`, `s`, `S` after a backslash: whether negated, and the ranges.
    fn perl_class(&mut self) -> Option<(bool, &'static str)> {
        let found = match self.rest.peek()? {
            'd' => (false, "0-9"),
            'D' => (true, "0-9"),
            'w' => (false, "0-9A-Za-z_"),
            'W' => (true, "0-9A-Za-z_"),
            's' => (false, "\\t\\n\\x0C\\r "),
            'S' => (true, "\\t\\n\\x0C\\r "),
            _ => return None,
        };
        self.rest.next();
        Some(found)
    }

    /// `pL`, `p{Greek}`, `PL` after a backslash.
    fn unicode_class(&mut self) -> bool {
        let Some(p) = self.rest.next_if(|c| matches!(c, 'p' | 'P')) else {
            return false;
        };
        self.out.push('\\');
        self.out.push(p);
        if self.rest.peek() == Some(&'{') {
            while let Some(c) = self.rest.next_if(|c| *c != '}') {
                self.out.push(c);
            }
        }
        self.out.extend(self.rest.next());
        true
    }

    /// One character after a backslash, within a class or outside.
    fn escaped_char(&mut self) -> Result<char, String> {
        let Some(c) = self.rest.next() else {
            return Err("it ends with a backslash".to_owned());
        };
        Ok(match c {
            'a' => '\x07',
            'f' => '\x0C',
            't' => '\t',
            'n' => '\n',
            'r' => '\r',
            'v' => '\x0B',
            'x' => self.hexadecimal()?,
            '0'..='7' => self.octal(c)?,
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(format!("\\{c} is not known")),
        })
    }

    /// After `\x`.
    fn hexadecimal(&mut self) -> Result<char, String> {
        let digits: String = if self.rest.next_if_eq(&'{').is_some() {
            let digits = std::iter::from_fn(|| self.rest.next_if(|c| *c != '}')).collect();
            if self.rest.next().is_none() {
                return Err("\\x{ has no closing brace".to_owned());
            }
            digits
        } else {
            self.rest.by_ref().take(2).collect()
        };
        let hexadecimal = digits.len() >= 2 || (!digits.is_empty() && digits.len() <= 6);
        u32::from_str_radix(&digits, 16)
            .ok()
            .filter(|_| hexadecimal && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(char::from_u32)
            .ok_or_else(|| format!("\\x{digits} is not a character"))
    }

    /// After a backslash and a first digit; one alone but 0 would be a back reference.
    fn octal(&mut self, first: char) -> Result<char, String> {
        let octal = |c: &char| ('0'..='7').contains(c);
        if first != '0' && !self.rest.peek().is_some_and(octal) {
            return Err(format!("\\{first} refers back, which is not known"));
        }
        let mut value = first.to_digit(8).unwrap_or_default();
        for _ in 0..2 {
            let Some(c) = self.rest.next_if(octal) else {
                break;
            };
            value = value * 8 + c.to_digit(8).unwrap_or_default();
        }
        char::from_u32(value).ok_or_else(|| "an octal number is no character".to_owned())
    }

    /// After an opening bracket.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.rest.peek().copied() {
                None => return Err("[ has no closing bracket".to_owned()),
                Some(']') if !first => {
                    self.rest.next();
                    self.out.push(']');
                    return Ok(());
                }
                Some(_) => self.class_item()?,
            }
            first = false;
        }
    }

    /// One character, range or class within brackets.
    fn class_item(&mut self) -> Result<(), String> {
        if let Some(name) = self.posix_class() {
            self.out.push_str(&name);
            return Ok(());
        }
        if self.rest.peek() == Some(&'\\') {
            self.rest.next();
            if let Some((negated, ranges)) = self.perl_class() {
                let (open, close) = if negated { ("[^", "]") } else { ("", "") };
                self.out.extend([open, ranges, close]);
                return Ok(());
            }
            if self.unicode_class() {
                return Ok(());
            }
            let low = self.escaped_char()?;
            return self.class_range(low);
        }
        match self.rest.next() {
            Some(low) => self.class_range(low),
            None => Ok(()),
        }
    }

    /// A character and, if `-` follows, the range it starts.
    fn class_range(&mut self, low: char) -> Result<(), String> {
        push_literal(&mut self.out, low);
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('-') || matches!(ahead.peek(), None | Some(']')) {
            return Ok(());
        }
        self.rest = ahead;
        let high = match self.rest.next() {
            Some('\\') => self.escaped_char()?,
            Some(c) => c,
            None => return Ok(()),
        };
        if high < low {
            return Err(format!("the range {low}-{high} is the wrong way round"));
        }
        self.out.push('-');
        push_literal(&mut self.out, high);
        Ok(())
    }

    /// `[:alpha:]` within brackets.
    fn posix_class(&mut self) -> Option<String> {
        let mut ahead = self.rest.clone();
        if ahead.next() != Some('[') || ahead.next() != Some(':') {
            return None;
        }
        let mut name = "[:".to_owned();
        // The longest name is that of [:^xdigit:].
        for c in ahead.by_ref().take(12) {
            name.push(c);
            if name.len() > 3 && name.ends_with(":]") {
                self.rest = ahead;
                return Some(name);
            }
        }
        None
    }
}

/// A character that stands for itself, within a class or outside.
fn push_literal(out: &mut String, c: char) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() {
        out.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
    } else {
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pattern;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().regex().is_match(text)
    }

    #[test]
    fn means_what_it_means_in_go() {
        for (pattern, yes, no) in [
            (r"^\d+$", "12", "\u{663}"),
            (r"^\w$", "_", "\u{e9}"),
            (r"^\s$", "\t", "\u{b}"),
            (r"^{a}$", "{a}", "a"),
            (r"^a{2}$", "aa", "a{2}"),
            (r"^a{,2}$", "a{,2}", "aa"),
            (r"^[[a]$", "[", "]"),
            (r"^[]a]$", "]", "["),
            (r"^[a&&b]$", "&", "c"),
            (r"^[a-]$", "-", "b"),
            (r"^[\d-z]$", "-", "y"),
            (r"^[\D]$", "a", "1"),
            (r"^[[:alpha:]_]$", "_", "1"),
            (r"^[[:^alpha:]]$", "1", "a"),
            (r"^\Qa.b\E$", "a.b", "acb"),
            (r"^\Qa.b$", "a.b$", "a.b"),
            (r"^\_\-\.\/$", "_-./", "_-.x"),
            (r"^\101\0$", "A\0", "101"),
            (r"^\x41\x{42}$", "AB", "ab"),
            (r"(?i)^(?P<first>A)\.(?<second>b)$", "a.B", "ab"),
            (r"^\bfoo\b$", "foo", "foob"),
        ] {
            assert!(matches(pattern, yes), "{pattern} on {yes:?}");
            assert!(!matches(pattern, no), "{pattern} on {no:?}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in [
            "a**",
            "a{2}{3}",
            "(",
            ")",
            "[a",
            "a{1001}",
            "a{3,2}",
            r"\1",
            r"\C",
            r"\u0041",
            r"\Z",
            "(?x)a",
            "(?=a)",
            r"[b-a]",
            "*",
            r"a\",
            r"\pX",
            r"[\b]",
            "(?P<n>a)(?P<n>b)",
            "[[:alpha:]",
        ] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::new(&"a".repeat(10_001)).is_err());
        assert!(Pattern::new(r"((\pL{500}){500}){500}").is_err());
    }
}
