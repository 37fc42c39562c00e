//! Text and actions of a template, and the words of actions.

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    Action(Vec<Token>),
}

/// A word of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `if`, `index`, `true`.
    Word(String),
    /// `.A.B`; `.` alone has none.
    Field(Vec<String>),
    /// `$x.A`; the name of `$` is empty.
    Variable(String, Vec<String>),
    Text(String),
    Int(i64),
    Float(f64),
    Open,
    /// A closing bracket, and a field of what was in it.
    Close(Vec<String>),
    Pipe,
    Declare,
    Change,
    Comma,
}

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let open = rest.find("{{");
        let (before, after) = match open {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let trimmed = after.and_then(trims_before);
        let mut before = if trim { before.trim_start() } else { before };
        if trimmed.is_some() {
            before = before.trim_end();
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(after) = after else {
            return Ok(pieces);
        };
        let action = trimmed.unwrap_or(after);
        if let Some(comment) = action.strip_prefix("/*") {
            let end = comment.find("*/").ok_or("a comment is not closed")?;
            (rest, trim) = closed(&comment[end + 2..]).ok_or("a comment is not closed")?;
            continue;
        }
        let (tokens, end) = tokens(action)?;
        (rest, trim) = closed(&action[end..]).ok_or("an action is not closed: }} is missing")?;
        if tokens.is_empty() {
            return Err("an action is empty".to_owned());
        }
        pieces.push(Piece::Action(tokens));
    }
}

/// What is behind `{{- `, which trims the text before it.
fn trims_before(action: &str) -> Option<&str> {
    let rest = action.strip_prefix('-')?;
    rest.starts_with(char::is_whitespace)
        .then(|| rest.trim_start())
}

/// What is behind `}}`, and whether the text there is trimmed.
fn closed(rest: &str) -> Option<(&str, bool)> {
    let trimmed = rest.trim_start();
    if rest.starts_with(char::is_whitespace)
        && let Some(after) = trimmed.strip_prefix("-}}")
    {
        return Some((after, true));
    }
    trimmed.strip_prefix("}}").map(|after| (after, false))
}

/// The words up to the end of an action, and where that is.
fn tokens(action: &str) -> Result<(Vec<Token>, usize), String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = &action[at..];
        let Some(next) = rest.chars().next() else {
            return Err("an action is not closed: }} is missing".to_owned());
        };
        if closed(rest).is_some() {
            return Ok((tokens, at));
        }
        let (token, len) = match next {
            _ if next.is_whitespace() => {
                at += next.len_utf8();
                continue;
            }
            '"' => {
                let (text, len) = quoted(rest)?;
                (Token::Text(text), len)
            }
            '`' => {
                let end = rest[1..].find('`').ok_or("a quote is not closed")?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '\'' => {
                let char = rest[1..].chars().next().filter(|char| *char != '\\');
                let char = char.ok_or("of characters in quotes only plain ones are taken")?;
                if !rest[1 + char.len_utf8()..].starts_with('\'') {
                    return Err("a character is not closed".to_owned());
                }
                (Token::Int(u32::from(char).into()), 2 + char.len_utf8())
            }
            '(' => (Token::Open, 1),
            ')' => {
                let (path, len) = path(&rest[1..]);
                (Token::Close(path), 1 + len)
            }
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            ':' if rest.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Change, 1),
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let (path, len) = path(rest);
                (Token::Field(path), len.max(1))
            }
            '$' => {
                let name = word(&rest[1..]);
                let (path, len) = path(&rest[1 + name..]);
                (
                    Token::Variable(rest[1..=name].to_owned(), path),
                    1 + name + len,
                )
            }
            '0'..='9' | '+' | '-' | '.' => number(rest)?,
            _ => match word(rest) {
                0 => return Err(format!("{next:?} means nothing in an action")),
                len => (Token::Word(rest[..len].to_owned()), len),
            },
        };
        tokens.push(token);
        at += len;
    }
}

/// The length of the name that the text begins with.
fn word(text: &str) -> usize {
    let other = |c: char| !(c.is_alphanumeric() || c == '_');
    text.find(other).unwrap_or(text.len())
}

/// `.A.B` and its length; nothing has the length 0.
fn path(text: &str) -> (Vec<String>, usize) {
    let (mut path, mut at) = (Vec::new(), 0);
    while text[at..].starts_with('.') {
        let len = word(&text[at + 1..]);
        if len == 0 {
            break;
        }
        path.push(text[at + 1..at + 1 + len].to_owned());
        at += 1 + len;
    }
    (path, at)
}

fn quoted(rest: &str) -> Result<(String, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, next)) = chars.next() {
        match next {
            '"' => return Ok((text, at + 1)),
            '\\' => match chars.next() {
                Some((_, 'n')) => text.push('\n'),
                Some((_, 't')) => text.push('\t'),
                Some((_, 'r')) => text.push('\r'),
                Some((_, escaped @ ('\\' | '"'))) => text.push(escaped),
                Some((_, other)) => return Err(format!("\\{other} is no escape")),
                None => break,
            },
            _ => text.push(next),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let sign = usize::from(rest.starts_with(['+', '-']));
    let digit = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    let len = sign
        + rest[sign..]
            .find(|c| !digit(c))
            .unwrap_or(rest.len() - sign);
    let text = rest[..len].replace('_', "");
    let wrong = || format!("{text:?} is no number");
    let hex = text[sign..]
        .strip_prefix("0x")
        .or_else(|| text[sign..].strip_prefix("0X"));
    if let Some(digits) = hex {
        let number = i64::from_str_radix(digits, 16).map_err(|_| wrong())?;
        let number = if rest.starts_with('-') {
            -number
        } else {
            number
        };
        return Ok((Token::Int(number), len));
    }
    let token = match text.parse() {
        Ok(int) => Token::Int(int),
        Err(_) => Token::Float(
            text.parse()
                .ok()
                .filter(|f: &f64| f.is_finite())
                .ok_or_else(wrong)?,
        ),
    };
    Ok((token, len))
}
