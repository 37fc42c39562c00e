//! Entries of a zone file: lines, or several held together by parentheses.

/// A word or a quoted string. Escapes are still in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub text: String,
    pub quoted: bool,
}

/// A line, or several in parentheses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where it begins, from 1.
    pub line: u32,
    /// It begins with white space: the owner is the one before.
    pub indented: bool,
    pub fields: Vec<Field>,
}

/// The entries of a text that are not empty.
pub(super) struct Entries<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: u32,
    failed: bool,
}

impl<'a> Entries<'a> {
    pub fn new(text: &'a str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            failed: false,
        }
    }

    fn take(&mut self) -> Option<char> {
        let next = self.rest.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    /// Up to the end of the line, which stays.
    fn comment(&mut self) {
        while self.rest.next_if(|&next| next != '\n').is_some() {}
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let mut entry = Entry {
            line: self.line,
            indented: matches!(self.rest.peek(), Some(' ' | '\t')),
            fields: Vec::new(),
        };
        let mut open = 0_u32;
        while let Some(&next) = self.rest.peek() {
            match next {
                '\n' => {
                    self.take();
                    if open == 0 {
                        break;
                    }
                }
                ' ' | '\t' | '\r' => {
                    self.take();
                }
                ';' => self.comment(),
                '(' => {
                    self.take();
                    open += 1;
                }
                ')' => {
                    self.take();
                    open = open.checked_sub(1).ok_or("a parenthesis too much")?;
                }
                '"' => {
                    self.take();
                    let text = self.quoted()?;
                    entry.fields.push(Field { text, quoted: true });
                }
                _ => {
                    let text = self.word()?;
                    entry.fields.push(Field {
                        text,
                        quoted: false,
                    });
                }
            }
        }
        if open > 0 {
            return Err("a parenthesis is not closed".to_owned());
        }
        Ok(entry)
    }

    /// Up to the closing quote.
    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.take() {
                None => return Err("a quote is not closed".to_owned()),
                Some('"') => return Ok(text),
                Some('\\') => {
                    text.push('\\');
                    text.push(self.take().ok_or("a quote is not closed")?);
                }
                Some(next) => text.push(next),
            }
        }
    }

    /// Up to white space; what is quoted within (`alpn="h2,h3"`) belongs to it.
    fn word(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some(&next) = self.rest.peek() {
            match next {
                ' ' | '\t' | '\r' | '\n' | ';' | '(' | ')' => break,
                '"' => {
                    self.take();
                    text.push_str(&self.quoted()?);
                }
                '\\' => {
                    self.take();
                    text.push('\\');
                    text.extend(self.rest.next_if(|&next| next != '\n'));
                }
                _ => {
                    self.take();
                    text.push(next);
                }
            }
        }
        Ok(text)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, (u32, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.rest.peek().is_some() {
            let line = self.line;
            match self.entry() {
                Ok(entry) if entry.fields.is_empty() => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(what) => {
                    self.failed = true;
                    return Some(Err((line, what)));
                }
            }
        }
        None
    }
}

/// The bytes of a character string, escapes undone.
pub(super) fn unescaped(text: &str) -> Result<Vec<u8>, String> {
    let wrong = || format!("a backslash in {text:?} escapes nothing");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let first = rest.next().ok_or_else(wrong)?;
        if !first.is_ascii_digit() {
            bytes.push(first);
            continue;
        }
        let mut number = u16::from(first - b'0');
        for _ in 0..2 {
            let digit = rest.next().filter(u8::is_ascii_digit).ok_or_else(wrong)?;
            number = number * 10 + u16::from(digit - b'0');
        }
        bytes.push(u8::try_from(number).map_err(|_| wrong())?);
    }
    Ok(bytes)
}
