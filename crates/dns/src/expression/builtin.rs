//! Functions of expressions.

use std::ops::RangeInclusive;

use super::Value;
use super::eval::{MOST_BYTES, too_large};

type Result<T> = std::result::Result<T, String>;

/// Declares functions once: their words and how many values they take.
macro_rules! builtins {
    ($($name:ident $word:literal $takes:expr;)*) => {
        /// A function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Builtin { $($name),* }

        impl Builtin {
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$name),)* _ => None }
            }

            pub fn takes(self) -> RangeInclusive<usize> {
                match self { $(Self::$name => $takes),* }
            }
        }
    };
}

builtins! {
    Len "len" 1..=1;
    Abs "abs" 1..=1;
    Ceil "ceil" 1..=1;
    Floor "floor" 1..=1;
    Round "round" 1..=1;
    Int "int" 1..=1;
    Float "float" 1..=1;
    String "string" 1..=1;
    Trim "trim" 1..=2;
    TrimPrefix "trimPrefix" 2..=2;
    TrimSuffix "trimSuffix" 2..=2;
    Upper "upper" 1..=1;
    Lower "lower" 1..=1;
    Split "split" 2..=3;
    Replace "replace" 3..=4;
    Repeat "repeat" 2..=2;
    Join "join" 1..=2;
    IndexOf "indexOf" 2..=2;
    LastIndexOf "lastIndexOf" 2..=2;
    HasPrefix "hasPrefix" 2..=2;
    HasSuffix "hasSuffix" 2..=2;
    Max "max" 1..=16;
    Min "min" 1..=16;
    Sum "sum" 1..=1;
    First "first" 1..=1;
    Last "last" 1..=1;
    Take "take" 2..=2;
    Keys "keys" 1..=1;
    Values "values" 1..=1;
    Reverse "reverse" 1..=1;
    Sort "sort" 1..=1;
    Uniq "uniq" 1..=1;
    Concat "concat" 1..=16;
}

impl Builtin {
    pub fn call(self, args: &[Value]) -> Result<Value> {
        match self {
            Self::Abs | Self::Ceil | Self::Floor | Self::Round | Self::Int | Self::Float => {
                self.of_number(arg(args, 0)?)
            }
            Self::Len => len(arg(args, 0)?),
            Self::String => Ok(Value::Text(arg(args, 0)?.to_string())),
            Self::Max | Self::Min | Self::Sum => self.of_numbers(args),
            Self::First
            | Self::Last
            | Self::Take
            | Self::Keys
            | Self::Values
            | Self::Reverse
            | Self::Sort
            | Self::Uniq
            | Self::Concat
            | Self::Join => self.of_lists(args),
            _ => self.of_texts(args),
        }
    }

    fn of_number(self, value: &Value) -> Result<Value> {
        if let (Self::Int | Self::Float, Value::Text(text)) = (self, value) {
            let wrong = || format!("{text:?} is no number");
            return match self {
                Self::Int => text.parse().map(Value::Int).map_err(|_| wrong()),
                _ => text.parse().map(Value::Float).map_err(|_| wrong()),
            };
        }
        if let (Self::Abs, Value::Int(int)) = (self, value) {
            return int.checked_abs().map(Value::Int).ok_or_else(too_large);
        }
        let number = value.number();
        let number = number.ok_or_else(|| format!("{} is no number", value.kind()))?;
        Ok(match self {
            Self::Abs => Value::Float(number.abs()),
            Self::Ceil => Value::Float(number.ceil()),
            Self::Floor => Value::Float(number.floor()),
            Self::Round => Value::Float(number.round()),
            Self::Int => Value::Int(number as i64),
            _ => Value::Float(number),
        })
    }

    fn of_numbers(self, args: &[Value]) -> Result<Value> {
        let all = match args {
            [Value::List(list)] => list.as_slice(),
            args => args,
        };
        let wrong = |value: &Value| format!("{} is no number", value.kind());
        if self == Self::Sum {
            let ints = all.iter().map(|value| match value {
                Value::Int(int) => Some(*int),
                _ => None,
            });
            if let Some(sum) = ints.collect::<Option<Vec<i64>>>() {
                let sum = sum.iter().try_fold(0_i64, |sum, int| sum.checked_add(*int));
                return sum.map(Value::Int).ok_or_else(too_large);
            }
            let mut sum = 0.0;
            for value in all {
                sum += value.number().ok_or_else(|| wrong(value))?;
            }
            return Ok(Value::Float(sum));
        }
        let mut best: Option<&Value> = None;
        for value in all {
            value.number().ok_or_else(|| wrong(value))?;
            let better = best
                .and_then(|best| value.order(best))
                .is_none_or(|order| match self {
                    Self::Max => order.is_gt(),
                    _ => order.is_lt(),
                });
            if better {
                best = Some(value);
            }
        }
        Ok(best.cloned().unwrap_or_default())
    }

    fn of_lists(self, args: &[Value]) -> Result<Value> {
        let first = arg(args, 0)?;
        if let Value::Map(map) = first {
            match self {
                Self::Keys => {
                    let keys = map.keys().map(|key| Value::Text(key.clone()));
                    return Ok(Value::List(keys.collect()));
                }
                Self::Values => return Ok(Value::List(map.values().cloned().collect())),
                _ => {}
            }
        }
        let Value::List(list) = first else {
            return Err(format!("{} is no list", first.kind()));
        };
        let mut list = list.clone();
        match self {
            Self::First => return Ok(list.into_iter().next().unwrap_or_default()),
            Self::Last => return Ok(list.pop().unwrap_or_default()),
            Self::Join => {
                let by = args.get(1).map_or(Ok(""), text)?;
                let texts: Vec<String> = list.iter().map(Value::to_string).collect();
                let len: usize = texts.iter().map(|text| text.len() + by.len()).sum();
                return fits(len).map(|()| Value::Text(texts.join(by)));
            }
            Self::Take => list.truncate(number(arg(args, 1)?)?),
            Self::Reverse => list.reverse(),
            Self::Sort => list.sort_by(|a, b| a.order(b).unwrap_or(std::cmp::Ordering::Equal)),
            Self::Uniq => {
                let mut seen: Vec<Value> = Vec::new();
                for value in list {
                    if !seen.iter().any(|other| other.same(&value)) {
                        seen.push(value);
                    }
                }
                list = seen;
            }
            Self::Concat => {
                for more in &args[1..] {
                    let Value::List(more) = more else {
                        return Err(format!("{} is no list", more.kind()));
                    };
                    list.extend_from_slice(more);
                }
            }
            _ => return Err("a map is missing".to_owned()),
        }
        Ok(Value::List(list))
    }

    fn of_texts(self, args: &[Value]) -> Result<Value> {
        let first = text(arg(args, 0)?)?;
        let second = || text(arg(args, 1)?);
        let owned = |text: &str| Value::Text(text.to_owned());
        Ok(match self {
            Self::Trim => match args.get(1) {
                None => owned(first.trim()),
                Some(letters) => {
                    let letters = text(letters)?;
                    owned(first.trim_matches(|letter| letters.contains(letter)))
                }
            },
            Self::TrimPrefix => owned(first.strip_prefix(second()?).unwrap_or(first)),
            Self::TrimSuffix => owned(first.strip_suffix(second()?).unwrap_or(first)),
            Self::Upper => Value::Text(first.to_uppercase()),
            Self::Lower => Value::Text(first.to_lowercase()),
            Self::Split => {
                let most = args.get(2).map_or(Ok(usize::MAX), number)?;
                let parts = first.splitn(most.max(1), second()?);
                Value::List(parts.filter(|_| most > 0).map(owned).collect())
            }
            Self::Replace => {
                let (from, to) = (second()?, text(arg(args, 2)?)?);
                let most = args.get(3).map_or(Ok(usize::MAX), number)?;
                let times = first.matches(from).take(most).count();
                fits(first.len() + times * to.len())?;
                Value::Text(first.replacen(from, to, most))
            }
            Self::Repeat => {
                let times = number(arg(args, 1)?)?;
                fits(first.len().saturating_mul(times))?;
                Value::Text(first.repeat(times))
            }
            Self::IndexOf => place(first.find(second()?)),
            Self::LastIndexOf => place(first.rfind(second()?)),
            Self::HasPrefix => Value::Bool(first.starts_with(second()?)),
            _ => Value::Bool(first.ends_with(second()?)),
        })
    }
}

fn fits(len: usize) -> Result<()> {
    if len > MOST_BYTES {
        Err(too_large())
    } else {
        Ok(())
    }
}

fn place(at: Option<usize>) -> Value {
    Value::Int(at.map_or(-1, |at| at as i64))
}

fn arg(args: &[Value], at: usize) -> Result<&Value> {
    args.get(at).ok_or_else(|| "a value is missing".to_owned())
}

fn text(value: &Value) -> Result<&str> {
    value
        .text()
        .ok_or_else(|| format!("{} is no string", value.kind()))
}

fn number(value: &Value) -> Result<usize> {
    let number = match value {
        Value::Int(int) => usize::try_from(*int).ok(),
        _ => None,
    };
    number.ok_or_else(|| format!("{value} is no count"))
}

fn len(value: &Value) -> Result<Value> {
    let len = match value {
        Value::Text(text) => text.chars().count(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        other => return Err(format!("{} has no length", other.kind())),
    };
    Ok(Value::Int(len as i64))
}
