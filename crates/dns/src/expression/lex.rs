//! Words of an expression.

/// A word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// An operator, a bracket, a comma.
    Sign(&'static str),
}

/// The longest first where one begins with another.
const SIGNS: [&str; 34] = [
    "??", "?.", "==", "!=", "<=", ">=", "&&", "||", "**", "..", "(", ")", "[", "]", "{", "}", ",",
    ":", ";", "?", "#", "|", "!", "<", ">", "+", "-", "*", "/", "%", "^", ".", "=", "@",
];

/// The words, each with its place.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, String> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, len) = match next {
            _ if next.is_whitespace() => {
                at += next.len_utf8();
                continue;
            }
            '/' if rest.starts_with("//") => return Ok(tokens),
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or("a comment is not closed")?;
                at += end + 2;
                continue;
            }
            '\'' | '"' => quoted(rest, next)?,
            '`' => {
                let end = rest[1..].find('`').ok_or("a quote is not closed")?;
                (Token::Text(rest[1..=end].to_owned()), end + 2)
            }
            '0'..='9' => number(rest)?,
            _ if next.is_alphabetic() || next == '_' || next == '$' => {
                let word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                let len = rest.find(|c| !word(c)).unwrap_or(rest.len());
                (Token::Name(rest[..len].to_owned()), len)
            }
            _ => {
                let sign = SIGNS.iter().find(|sign| rest.starts_with(**sign));
                let sign = sign.ok_or_else(|| format!("{next:?} at {} means nothing", at + 1))?;
                (Token::Sign(sign), sign.len())
            }
        };
        tokens.push((at, token));
        at += len;
    }
    Ok(tokens)
}

/// A string in quotes, with the escapes of Go.
fn quoted(rest: &str, quote: char) -> Result<(Token, usize), String> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, next)) = chars.next() {
        match next {
            _ if next == quote => return Ok((Token::Text(text), at + 1)),
            '\\' => {
                let (_, escaped) = chars.next().ok_or("a quote is not closed")?;
                let digits = match escaped {
                    'n' => Err('\n'),
                    't' => Err('\t'),
                    'r' => Err('\r'),
                    'x' => Ok(2),
                    'u' => Ok(4),
                    '\\' | '\'' | '"' | '`' => Err(escaped),
                    _ => return Err(format!("\\{escaped} is no escape")),
                };
                match digits {
                    Err(plain) => text.push(plain),
                    Ok(count) => {
                        let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16)
                            .ok()
                            .and_then(char::from_u32);
                        text.push(code.ok_or_else(|| format!("\\{escaped}{digits} is no escape"))?);
                    }
                }
            }
            _ => text.push(next),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn number(rest: &str) -> Result<(Token, usize), String> {
    let wrong = |text: &str| format!("{text:?} is no number");
    if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let len = digits
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(digits.len());
        let number = i64::from_str_radix(&digits[..len], 16);
        return Ok((
            Token::Int(number.map_err(|_| wrong(&rest[..len + 2]))?),
            len + 2,
        ));
    }
    let digit = |c: char| c.is_ascii_digit() || c == '_';
    let mut len = rest.find(|c| !digit(c)).unwrap_or(rest.len());
    let mut float = false;
    // `1..3` is a range.
    if rest[len..].starts_with('.') && rest[len + 1..].starts_with(|c: char| c.is_ascii_digit()) {
        float = true;
        let fraction = &rest[len + 1..];
        len += 1 + fraction.find(|c| !digit(c)).unwrap_or(fraction.len());
    }
    let text = rest[..len].replace('_', "");
    let token = match float {
        true => text.parse().ok().map(Token::Float),
        false => text.parse().ok().map(Token::Int),
    };
    Ok((token.ok_or_else(|| wrong(&text))?, len))
}
