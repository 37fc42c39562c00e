//! `rewrite edns0`.

use super::{EdnsAction, EdnsData, EdnsRewrite};
use crate::corefile::problem::did_you_mean;
use crate::corefile::reader::quoted;

/// `local|nsid|subnet set|append|replace|unset ... [revert]`
pub(super) fn rewrite(args: &[&str]) -> Result<EdnsRewrite, String> {
    const ACTIONS: [&str; 4] = ["set", "append", "replace", "unset"];
    let [kind, action, rest @ ..] = args else {
        let found = quoted(args);
        return Err(format!(
            "edns0 takes local, nsid or subnet and an action; found {found}"
        ));
    };
    let kind = kind.to_lowercase();
    let action = match action.to_lowercase().as_str() {
        "set" => EdnsAction::Set,
        "append" => EdnsAction::Append,
        "replace" => EdnsAction::Replace,
        "unset" => {
            return Ok(EdnsRewrite {
                action: EdnsAction::Unset,
                data: unset(&kind, rest)?,
                revert: false,
            });
        }
        other => {
            let hint = did_you_mean(other, &ACTIONS);
            let known = ACTIONS.join(", ");
            return Err(format!("{other:?} is no action{hint} (known: {known})"));
        }
    };
    let (rest, revert) = match rest {
        [rest @ .., "revert"] => (rest, true),
        rest => (rest, false),
    };
    let data = match (kind.as_str(), rest) {
        ("local", [code, data]) => local(code, data)?,
        ("local", other) => {
            return Err(format!(
                "edns0 local takes CODE DATA; found {}",
                quoted(other)
            ));
        }
        ("nsid", []) => EdnsData::Nsid,
        ("nsid", other) => {
            return Err(format!(
                "edns0 nsid takes nothing more; found {}",
                quoted(other)
            ));
        }
        ("subnet", [v4, v6]) => EdnsData::Subnet {
            v4: bits(v4, 32)?,
            v6: bits(v6, 128)?,
        },
        ("subnet", other) => {
            return Err(format!(
                "edns0 subnet takes V4BITS V6BITS; found {}",
                quoted(other)
            ));
        }
        (other, _) => return Err(unknown(other)),
    };
    Ok(EdnsRewrite {
        action,
        data,
        revert,
    })
}

fn unknown(kind: &str) -> String {
    let hint = did_you_mean(kind, &["local", "nsid", "subnet"]);
    format!("{kind:?} is no option of EDNS0{hint} (known: local, nsid, subnet)")
}

fn unset(kind: &str, rest: &[&str]) -> Result<EdnsData, String> {
    match (kind, rest) {
        ("local", [code]) => Ok(EdnsData::Local {
            code: self::code(code)?,
            data: Vec::new(),
        }),
        ("local", other) => Err(format!(
            "edns0 local unset takes CODE; found {}",
            quoted(other)
        )),
        ("nsid", []) => Ok(EdnsData::Nsid),
        ("subnet", []) => Ok(EdnsData::Subnet { v4: 0, v6: 0 }),
        ("nsid" | "subnet", other) => Err(format!(
            "edns0 {kind} unset takes nothing; found {}",
            quoted(other)
        )),
        (other, _) => Err(unknown(other)),
    }
}

fn local(code: &str, data: &str) -> Result<EdnsData, String> {
    const VARIABLES: [&str; 7] = [
        "qname",
        "qtype",
        "client_ip",
        "client_port",
        "protocol",
        "server_ip",
        "server_port",
    ];
    let code = self::code(code)?;
    if let Some(variable) = data
        .strip_prefix('{')
        .and_then(|data| data.strip_suffix('}'))
    {
        // What is no variable of the query may be metadata, whose names are not known here.
        let slash = variable.find('/');
        let metadata = slash.is_some_and(|at| at > 0 && at + 1 < variable.len());
        if !VARIABLES.contains(&variable) && !metadata {
            let hint = did_you_mean(variable, &VARIABLES);
            let known = VARIABLES.join(", ");
            return Err(format!(
                "{{{variable}}} is no variable{hint} (known: {known})"
            ));
        }
        return Ok(EdnsData::Variable {
            code,
            variable: variable.to_owned(),
        });
    }
    let data = match data.strip_prefix("0x") {
        Some(digits) => hexadecimal(digits)
            .ok_or_else(|| format!("{data:?} is no row of bytes in hexadecimal"))?,
        None => data.as_bytes().to_vec(),
    };
    Ok(EdnsData::Local { code, data })
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok();
    let bytes = pairs.iter().map(byte).collect();
    if rest.is_empty() { bytes } else { None }
}

/// A number as Go writes it: 0x1f, 0o17, 017, 0b1, 1_000.
fn go_number(text: &str) -> Option<u16> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let prefixed = digits.len() != text.len();
    let underscores = digits.ends_with('_')
        || digits.contains("__")
        || (!prefixed && digits.starts_with('_'))
        || digits.starts_with('+');
    if underscores {
        return None;
    }
    u16::from_str_radix(&digits.replace('_', ""), radix).ok()
}

fn code(text: &str) -> Result<u16, String> {
    go_number(text).ok_or_else(|| {
        format!("the option's code is {text:?}; a number up to 65535 is expected, as in 0xffee")
    })
}

fn bits(text: &str, most: u8) -> Result<u8, String> {
    let number = go_number(text).and_then(|number| u8::try_from(number).ok());
    number.filter(|number| *number <= most).ok_or_else(|| {
        format!("the length of the prefix is {text:?}; a number up to {most} is expected")
    })
}

#[cfg(test)]
mod tests {
    use super::{go_number, hexadecimal};

    #[test]
    fn numbers_and_bytes() {
        for (text, expected) in [
            ("0xffee", Some(0xffee)),
            ("017", Some(15)),
            ("0b101", Some(5)),
            ("0o17", Some(15)),
            ("65_001", Some(65001)),
            ("0", Some(0)),
            ("08", None),
            ("65536", None),
            ("_1", None),
            ("1__0", None),
            ("0x", None),
            ("+1", None),
            ("", None),
        ] {
            assert_eq!(go_number(text), expected, "{text}");
        }
        assert_eq!(hexadecimal("00fF"), Some(vec![0, 255]));
        assert_eq!(hexadecimal(""), Some(vec![]));
        assert_eq!(hexadecimal("0"), None);
        assert_eq!(hexadecimal("0g"), None);
    }
}
