//! Working expressions out.

use super::{Binary, Environment, Node, Predicate, Value};

/// So many steps at most.
const MOST_STEPS: u32 = 10_000;
/// So long a text, and so long a list, at most.
pub(super) const MOST_BYTES: usize = 64 << 10;
const MOST_ELEMENTS: usize = 4096;

type Result<T> = std::result::Result<T, String>;

pub(super) struct Run<'a> {
    environment: &'a Environment<'a>,
    /// Variables of `let`, the innermost last.
    bound: Vec<(&'a str, Value)>,
    /// What predicates look at, the innermost last.
    elements: Vec<Value>,
    steps: u32,
}

impl<'a> Run<'a> {
    pub fn new(environment: &'a Environment<'a>) -> Self {
        Self {
            environment,
            bound: Vec::new(),
            elements: Vec::new(),
            steps: 0,
        }
    }

    pub fn value(&mut self, node: &'a Node) -> Result<Value> {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(format!("more than {MOST_STEPS} steps"));
        }
        bounded(self.worked_out(node)?)
    }

    fn worked_out(&mut self, node: &'a Node) -> Result<Value> {
        Ok(match node {
            Node::Value(value) => value.clone(),
            Node::Variable(name) => self.variable(name)?,
            Node::Element => self.elements.last().cloned().unwrap_or_default(),
            Node::About(about) => about.of(self.environment.query),
            Node::Group(group) => {
                let group = self.value(group)?.to_string();
                Value::Text(
                    self.environment
                        .groups
                        .get(&group)
                        .cloned()
                        .unwrap_or_default(),
                )
            }
            Node::Metadata(label) => {
                self.text(label)?;
                Value::Text(String::new())
            }
            Node::InCidr(ip, net) => Value::Bool(in_cidr(&self.text(ip)?, &self.text(net)?)?),
            Node::Call(builtin, args) => {
                let args = args
                    .iter()
                    .map(|arg| self.value(arg))
                    .collect::<Result<Vec<_>>>()?;
                builtin.call(&args)?
            }
            Node::Predicate(predicate, list, body) => self.each(*predicate, list, body)?,
            Node::Not(node) => Value::Bool(!self.bool(node)?),
            Node::Minus(node) => match self.value(node)? {
                Value::Int(int) => Value::Int(int.checked_neg().ok_or_else(too_large)?),
                Value::Float(float) => Value::Float(-float),
                other => return Err(format!("there is no minus {}", other.kind())),
            },
            Node::Binary(binary, left, right) => self.binary(*binary, left, right)?,
            Node::Matches(text, pattern) => {
                let text = self.text(text)?;
                Value::Bool(pattern.regex().is_match(&text))
            }
            Node::Choice(condition, yes, no) => {
                let chosen = if self.bool(condition)? { yes } else { no };
                self.value(chosen)?
            }
            Node::Index(from, key) => {
                let from = self.value(from)?;
                let key = self.value(key)?;
                indexed(&from, &key)?
            }
            Node::Slice(from, start, end) => self.sliced(from, start.as_deref(), end.as_deref())?,
            Node::List(nodes) => {
                let values = nodes.iter().map(|node| self.value(node));
                Value::List(values.collect::<Result<_>>()?)
            }
            Node::Map(pairs) => {
                let mut map = std::collections::BTreeMap::new();
                for (key, value) in pairs {
                    let key = self.value(key)?.to_string();
                    map.insert(key, self.value(value)?);
                }
                Value::Map(map)
            }
            Node::Let(name, value, body) => {
                let value = self.value(value)?;
                self.bound.push((name, value));
                let body = self.value(body);
                self.bound.pop();
                body?
            }
        })
    }

    fn variable(&self, name: &str) -> Result<Value> {
        if let Some((_, value)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return Ok(value.clone());
        }
        let found = self
            .environment
            .variables
            .iter()
            .find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| format!("{name} has no value"))
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool> {
        match self.value(node)? {
            Value::Bool(bool) => Ok(bool),
            other => Err(format!("{} is not true or false", other.kind())),
        }
    }

    fn text(&mut self, node: &'a Node) -> Result<String> {
        match self.value(node)? {
            Value::Text(text) => Ok(text),
            other => Err(format!("{} is no string", other.kind())),
        }
    }

    fn int(&mut self, node: &'a Node) -> Result<i64> {
        match self.value(node)? {
            Value::Int(int) => Ok(int),
            other => Err(format!("{} is no int", other.kind())),
        }
    }

    fn each(&mut self, predicate: Predicate, list: &'a Node, body: &'a Node) -> Result<Value> {
        let list = match self.value(list)? {
            Value::List(list) => list,
            other => return Err(format!("{} is no list", other.kind())),
        };
        let (mut found, mut kept) = (0_i64, Vec::new());
        let all = list.len() as i64;
        for element in list {
            self.elements.push(element.clone());
            let value = self.value(body);
            self.elements.pop();
            let value = value?;
            if predicate == Predicate::Map {
                kept.push(value);
                continue;
            }
            let Value::Bool(holds) = value else {
                return Err(format!("{} is not true or false", value.kind()));
            };
            match (predicate, holds) {
                (Predicate::All, false) => return Ok(Value::Bool(false)),
                (Predicate::Any, true) => return Ok(Value::Bool(true)),
                (Predicate::None, true) => return Ok(Value::Bool(false)),
                (Predicate::Find, true) => return Ok(element),
                (_, true) => {
                    found += 1;
                    kept.push(element);
                }
                (_, false) => {}
            }
        }
        Ok(match predicate {
            Predicate::All => Value::Bool(found == all),
            Predicate::Any => Value::Bool(false),
            Predicate::None => Value::Bool(true),
            Predicate::One => Value::Bool(found == 1),
            Predicate::Count => Value::Int(found),
            Predicate::Find => Value::Nil,
            Predicate::Filter | Predicate::Map => Value::List(kept),
        })
    }

    fn binary(&mut self, binary: Binary, left: &'a Node, right: &'a Node) -> Result<Value> {
        match binary {
            Binary::And => return Ok(Value::Bool(self.bool(left)? && self.bool(right)?)),
            Binary::Or => return Ok(Value::Bool(self.bool(left)? || self.bool(right)?)),
            Binary::Otherwise => {
                return match self.value(left)? {
                    Value::Nil => self.value(right),
                    value => Ok(value),
                };
            }
            Binary::Range => {
                let (from, to) = (self.int(left)?, self.int(right)?);
                if to.saturating_sub(from) >= MOST_ELEMENTS as i64 {
                    return Err(format!("a range of more than {MOST_ELEMENTS} numbers"));
                }
                return Ok(Value::List((from..=to).map(Value::Int).collect()));
            }
            _ => {}
        }
        let (left, right) = (self.value(left)?, self.value(right)?);
        let texts = || match (&left, &right) {
            (Value::Text(left), Value::Text(right)) => Ok((left.as_str(), right.as_str())),
            _ => Err(format!(
                "{} and {} are not two strings",
                left.kind(),
                right.kind()
            )),
        };
        let order = || {
            left.order(&right)
                .ok_or_else(|| format!("{} and {} have no order", left.kind(), right.kind()))
        };
        Ok(match binary {
            Binary::Equal => Value::Bool(left.same(&right)),
            Binary::Unequal => Value::Bool(!left.same(&right)),
            Binary::Less => Value::Bool(order()?.is_lt()),
            Binary::LessOrEqual => Value::Bool(order()?.is_le()),
            Binary::Greater => Value::Bool(order()?.is_gt()),
            Binary::GreaterOrEqual => Value::Bool(order()?.is_ge()),
            Binary::Contains => texts().map(|(left, right)| Value::Bool(left.contains(right)))?,
            Binary::StartsWith => texts().map(|(l, r)| Value::Bool(l.starts_with(r)))?,
            Binary::EndsWith => texts().map(|(left, right)| Value::Bool(left.ends_with(right)))?,
            Binary::In => match &right {
                Value::List(list) => Value::Bool(list.iter().any(|value| value.same(&left))),
                Value::Map(map) => Value::Bool(map.contains_key(&left.to_string())),
                other => return Err(format!("nothing is in {}", other.kind())),
            },
            Binary::Add => match (&left, &right) {
                (Value::Text(left), Value::Text(right)) => {
                    if left.len() + right.len() > MOST_BYTES {
                        return Err(too_large());
                    }
                    Value::Text(format!("{left}{right}"))
                }
                _ => arithmetic(binary, &left, &right)?,
            },
            _ => arithmetic(binary, &left, &right)?,
        })
    }

    fn sliced(
        &mut self,
        from: &'a Node,
        start: Option<&'a Node>,
        end: Option<&'a Node>,
    ) -> Result<Value> {
        let value = self.value(from)?;
        let len = match &value {
            Value::Text(text) => text.chars().count(),
            Value::List(list) => list.len(),
            other => return Err(format!("{} has no parts", other.kind())),
        } as i64;
        let mut place = |node: Option<&'a Node>, other: i64| -> Result<usize> {
            let at = match node {
                Some(node) => self.int(node)?,
                None => other,
            };
            let at = if at < 0 { len.saturating_add(at) } else { at };
            Ok(at.clamp(0, len) as usize)
        };
        let (start, end) = (place(start, 0)?, place(end, len)?);
        let count = end.saturating_sub(start);
        Ok(match value {
            Value::Text(text) => Value::Text(text.chars().skip(start).take(count).collect()),
            Value::List(list) => Value::List(list.into_iter().skip(start).take(count).collect()),
            other => other,
        })
    }
}

pub(super) fn too_large() -> String {
    "too large a value".to_owned()
}

/// What grows out of bounds is an error.
fn bounded(value: Value) -> Result<Value> {
    let large = match &value {
        Value::Text(text) => text.len() > MOST_BYTES,
        Value::List(list) => {
            list.len() > MOST_ELEMENTS || list.iter().map(size).sum::<usize>() > MOST_BYTES
        }
        _ => false,
    };
    if large { Err(too_large()) } else { Ok(value) }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        _ => 8,
    }
}

fn arithmetic(binary: Binary, left: &Value, right: &Value) -> Result<Value> {
    let wrong = || format!("{} and {} are not two numbers", left.kind(), right.kind());
    if let (Value::Int(one), Value::Int(other)) = (left, right) {
        let whole = match binary {
            Binary::Add => one.checked_add(*other),
            Binary::Subtract => one.checked_sub(*other),
            Binary::Multiply => one.checked_mul(*other),
            Binary::Remainder => one.checked_rem(*other),
            _ => None,
        };
        if ![Binary::Divide, Binary::Power].contains(&binary) {
            return whole.map(Value::Int).ok_or_else(too_large);
        }
    }
    let one = left.number().ok_or_else(wrong)?;
    let other = right.number().ok_or_else(wrong)?;
    Ok(Value::Float(match binary {
        Binary::Add => one + other,
        Binary::Subtract => one - other,
        Binary::Multiply => one * other,
        Binary::Divide => one / other,
        Binary::Power => one.powf(other),
        _ => return Err("a remainder is one of whole numbers".to_owned()),
    }))
}

fn indexed(from: &Value, key: &Value) -> Result<Value> {
    match (from, key) {
        (Value::Map(map), key) => Ok(map.get(&key.to_string()).cloned().unwrap_or_default()),
        (Value::Nil, _) => Ok(Value::Nil),
        (Value::List(list), Value::Int(at)) => {
            let at = if *at < 0 { at + list.len() as i64 } else { *at };
            let found = usize::try_from(at).ok().and_then(|at| list.get(at));
            found
                .cloned()
                .ok_or_else(|| format!("there is no element {at}"))
        }
        (Value::Text(text), Value::Int(at)) => {
            let found = usize::try_from(*at)
                .ok()
                .and_then(|at| text.chars().nth(at));
            let found = found.map(|found| Value::Text(found.to_string()));
            found.ok_or_else(|| format!("there is no letter {at}"))
        }
        _ => Err(format!("{} has no element {}", from.kind(), key.kind())),
    }
}

fn in_cidr(ip: &str, net: &str) -> Result<bool> {
    let ip: std::net::IpAddr = ip
        .parse()
        .map_err(|_| "first argument is not an IP address")?;
    let net: ipnet::IpNet = net
        .parse()
        .map_err(|_| format!("invalid CIDR address: {net}"))?;
    Ok(net.contains(&ip))
}
