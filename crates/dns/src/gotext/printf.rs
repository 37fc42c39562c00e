//! `printf`, with the verbs that make sense for text.

use super::Value;
use super::run::MOST_BYTES;

type Result<T> = std::result::Result<T, String>;

/// The widest field.
const WIDEST: usize = 1024;

#[derive(Default)]
struct Spec {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(format: &str, args: &[Value]) -> Result<String> {
    let mut text = String::new();
    let mut args = args.iter();
    let mut rest = format.chars().peekable();
    while let Some(next) = rest.next() {
        if next != '%' {
            text.push(next);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = rest.next_if(|flag| "-+# 0".contains(*flag)) {
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                '0' => spec.zero = true,
                _ => spec.space = true,
            }
        }
        spec.width = digits(&mut rest).unwrap_or(0);
        if rest.next_if_eq(&'.').is_some() {
            spec.precision = Some(digits(&mut rest).unwrap_or(0));
        }
        let verb = rest.next().ok_or("printf: a verb is missing behind %")?;
        if verb == '%' {
            text.push('%');
            continue;
        }
        let value = args
            .next()
            .ok_or_else(|| format!("printf: there is no value for %{verb}"))?;
        if spec.width > WIDEST || spec.precision.is_some_and(|precision| precision > WIDEST) {
            return Err("printf: too wide".to_owned());
        }
        text.push_str(&padded(&spec, one(&spec, verb, value)?, value));
        if text.len() > MOST_BYTES {
            return Err("printf: too much text".to_owned());
        }
    }
    match args.next() {
        None => Ok(text),
        Some(_) => Err("printf: there are more values than verbs".to_owned()),
    }
}

fn digits(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
        let digit = digit.to_digit(10).unwrap_or(0) as usize;
        number = Some((number.unwrap_or(0) * 10 + digit).min(WIDEST + 1));
    }
    number
}

fn one(spec: &Spec, verb: char, value: &Value) -> Result<String> {
    let cut = |text: &str| match spec.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text.to_owned(),
    };
    let signed = |int: i64, digits: String| {
        let sign = match (int < 0, spec.plus, spec.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        format!("{sign}{digits}")
    };
    Ok(match (verb, value) {
        ('v', Value::Int(int)) | ('d', Value::Int(int)) => {
            signed(*int, int.unsigned_abs().to_string())
        }
        ('v', value) => value.to_string(),
        ('s', Value::Text(text)) => cut(text),
        ('q', Value::Text(text)) => format!("{:?}", cut(text)),
        ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        ('t', Value::Bool(bool)) => bool.to_string(),
        ('x', Value::Int(int)) => signed(
            *int,
            format!(
                "{}{:x}",
                if spec.sharp { "0x" } else { "" },
                int.unsigned_abs()
            ),
        ),
        ('X', Value::Int(int)) => signed(
            *int,
            format!(
                "{}{:X}",
                if spec.sharp { "0X" } else { "" },
                int.unsigned_abs()
            ),
        ),
        ('o', Value::Int(int)) => signed(*int, format!("{:o}", int.unsigned_abs())),
        ('b', Value::Int(int)) => signed(*int, format!("{:b}", int.unsigned_abs())),
        ('c', Value::Int(int)) => {
            let char = u32::try_from(*int).ok().and_then(char::from_u32);
            char.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        ('f', Value::Float(float)) => format!("{float:.*}", spec.precision.unwrap_or(6)),
        ('g', Value::Float(float)) => float.to_string(),
        _ => return Err(format!("printf: %{verb} is not for {}", value.kind())),
    })
}

fn padded(spec: &Spec, text: String, value: &Value) -> String {
    let missing = spec.width.saturating_sub(text.chars().count());
    if missing == 0 {
        return text;
    }
    if spec.left {
        return text + &" ".repeat(missing);
    }
    if spec.zero {
        let number = value.number().is_some();
        let sign = text
            .chars()
            .next()
            .filter(|first| number && "+- ".contains(*first));
        let digits = &text[sign.map_or(0, char::len_utf8)..];
        let sign: String = sign.into_iter().collect();
        return format!("{sign}{}{digits}", "0".repeat(missing));
    }
    " ".repeat(missing) + &text
}
