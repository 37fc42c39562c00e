//! Functions of templates.

use std::ops::RangeInclusive;

use super::Value;
use super::printf::printf;

type Result<T> = std::result::Result<T, String>;

/// So many arguments at most.
const MANY: usize = 32;

/// Declares functions once: their words and how many values they take.
macro_rules! functions {
    ($($name:ident $word:literal $takes:expr;)*) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Function { $($name),* }

        impl Function {
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)* _ => None }
            }

            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            pub fn takes(self) -> RangeInclusive<usize> {
                match self { $(Self::$name => $takes),* }
            }
        }
    };
}

functions! {
    And "and" 1..=MANY;
    Or "or" 1..=MANY;
    Not "not" 1..=1;
    Eq "eq" 2..=MANY;
    Ne "ne" 2..=2;
    Lt "lt" 2..=2;
    Le "le" 2..=2;
    Gt "gt" 2..=2;
    Ge "ge" 2..=2;
    Index "index" 1..=MANY;
    Slice "slice" 1..=3;
    Len "len" 1..=1;
    Print "print" 0..=MANY;
    Println "println" 0..=MANY;
    Printf "printf" 1..=MANY;
    ParseInt "parseInt" 3..=3;
}

impl Function {
    pub fn call(self, args: &[Value]) -> Result<Value> {
        let arg = |at: usize| {
            args.get(at)
                .ok_or_else(|| "an argument is missing".to_owned())
        };
        let order = || {
            let (one, other) = (arg(0)?, arg(1)?);
            let wrong = || format!("{} and {} have no order", one.kind(), other.kind());
            one.order(other).ok_or_else(wrong)
        };
        Ok(match self {
            Self::And | Self::Or => args.last().cloned().unwrap_or_default(),
            Self::Not => Value::Bool(!arg(0)?.is_true()),
            Self::Eq => {
                let first = arg(0)?;
                let mut same = false;
                for other in &args[1..] {
                    same |= equal(first, other)?;
                }
                Value::Bool(same)
            }
            Self::Ne => Value::Bool(!equal(arg(0)?, arg(1)?)?),
            Self::Lt => Value::Bool(order()?.is_lt()),
            Self::Le => Value::Bool(order()?.is_le()),
            Self::Gt => Value::Bool(order()?.is_gt()),
            Self::Ge => Value::Bool(order()?.is_ge()),
            Self::Index => {
                let mut value = arg(0)?.clone();
                for key in &args[1..] {
                    value = index(&value, key)?;
                }
                value
            }
            Self::Slice => slice(arg(0)?, args.get(1), args.get(2))?,
            Self::Len => Value::Int(match arg(0)? {
                Value::Text(text) => text.len(),
                Value::List(list) => list.len(),
                Value::Map(map) => map.len(),
                other => return Err(format!("{} has no length", other.kind())),
            } as i64),
            Self::Print => Value::Text(print(args)),
            Self::Println => {
                let words: Vec<String> = args.iter().map(Value::to_string).collect();
                Value::Text(words.join(" ") + "\n")
            }
            Self::Printf => {
                let format = arg(0)?
                    .text()
                    .ok_or("the format of printf is to be a string")?;
                Value::Text(printf(format, &args[1..])?)
            }
            Self::ParseInt => parse_int(arg(0)?, arg(1)?, arg(2)?)?,
        })
    }
}

fn equal(one: &Value, other: &Value) -> Result<bool> {
    let comparable = match (one, other) {
        (Value::Nil, _) | (_, Value::Nil) => true,
        (Value::List(_) | Value::Map(_), _) | (_, Value::List(_) | Value::Map(_)) => false,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    };
    match comparable {
        true => Ok(one == other),
        false => Err(format!(
            "{} and {} cannot be compared",
            one.kind(),
            other.kind()
        )),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value> {
    match (value, key) {
        (Value::List(list), Value::Int(at)) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
            found
                .cloned()
                .ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::Text(text), Value::Int(at)) => {
            let found = usize::try_from(*at)
                .ok()
                .and_then(|at| text.as_bytes().get(at));
            let found = found.map(|byte| Value::Int(i64::from(*byte)));
            found.ok_or_else(|| format!("index out of range: {at}"))
        }
        (Value::Map(map), Value::Text(key)) => Ok(match map.get(key) {
            Some(value) => value.clone(),
            // Groups that there are not are empty.
            None if map.values().all(|value| value.text().is_some()) => Value::from(""),
            None => Value::Nil,
        }),
        _ => Err(format!("{} has no element by {}", value.kind(), key.kind())),
    }
}

fn slice(value: &Value, from: Option<&Value>, to: Option<&Value>) -> Result<Value> {
    let place = |at: Option<&Value>, other: usize| match at {
        None => Ok(other),
        Some(Value::Int(at)) => {
            usize::try_from(*at).map_err(|_| format!("index out of range: {at}"))
        }
        Some(other) => Err(format!("{} is no index", other.kind())),
    };
    let beyond = "index out of range".to_owned();
    match value {
        Value::Text(text) => {
            let range = place(from, 0)?..place(to, text.len())?;
            text.get(range).map(Value::from).ok_or(beyond)
        }
        Value::List(list) => {
            let range = place(from, 0)?..place(to, list.len())?;
            list.get(range)
                .map(|part| Value::List(part.to_vec()))
                .ok_or(beyond)
        }
        other => Err(format!("{} has no parts", other.kind())),
    }
}

/// As Go's Sprint: spaces between two values of which neither is a string.
fn print(args: &[Value]) -> String {
    let mut text = String::new();
    for (at, value) in args.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| args.get(at));
        if before.is_some_and(|before| before.text().is_none()) && value.text().is_none() {
            text.push(' ');
        }
        text.push_str(&value.to_string());
    }
    text
}

/// A number of a base, that has room in so many bits.
fn parse_int(text: &Value, base: &Value, bits: &Value) -> Result<Value> {
    let (Value::Text(text), Value::Int(base), Value::Int(bits)) = (text, base, bits) else {
        return Err("parseInt takes a string, a base and a number of bits".to_owned());
    };
    let wrong = |why: &str| format!("parseInt: parsing {text:?}: {why}");
    let (digits, radix) = match base {
        0 => ["0x", "0o", "0b", "0X", "0O", "0B", "0"]
            .iter()
            .zip([16, 8, 2, 16, 8, 2, 8])
            .find_map(|(prefix, radix)| Some((text.strip_prefix(prefix)?, radix)))
            .filter(|(digits, _)| !digits.is_empty())
            .unwrap_or((text, 10)),
        2..=36 => (text.as_str(), *base as u32),
        _ => return Err(wrong("invalid base")),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Err(wrong("invalid syntax"));
    }
    let most = match bits {
        0 | 64 => u64::MAX,
        1..=63 => (1 << bits) - 1,
        _ => return Err(wrong("invalid bit size")),
    };
    let number = u64::from_str_radix(digits, radix)
        .ok()
        .filter(|number| *number <= most);
    let number = number.and_then(|number| i64::try_from(number).ok());
    number
        .map(Value::Int)
        .ok_or_else(|| wrong("value out of range"))
}
