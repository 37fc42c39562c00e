//! Conditions and values in the language of the Go module expr, as `view` and `template` have
//! them: the part of it that makes sense for a query.
//!
//! Text is understood when the Corefile is read; what is not understood is an error there. What
//! runs then is bounded in steps and in memory.

mod builtin;
mod eval;
mod lex;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use value::Value;

use crate::corefile::Pattern;
use crate::query::{Query, Transport};
use builtin::Builtin;

/// The longest text that is taken.
const LONGEST: usize = 10_000;

/// An expression, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

/// What an expression may refer to.
#[derive(Debug)]
pub struct Environment<'a> {
    /// The query.
    pub query: &'a Query,
    /// What groups of a regular expression matched, by name and by number.
    pub groups: &'a BTreeMap<String, String>,
    /// Values of variables.
    pub variables: &'a [(String, Value)],
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Value(Value),
    Variable(String),
    /// The element that a predicate looks at.
    Element,
    About(About),
    Group(Box<Node>),
    InCidr(Box<Node>, Box<Node>),
    /// There is none, so it is empty; its name is worked out all the same.
    Metadata(Box<Node>),
    Call(Builtin, Vec<Node>),
    Predicate(Predicate, Box<Node>, Box<Node>),
    Not(Box<Node>),
    Minus(Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    Matches(Box<Node>, Pattern),
    Choice(Box<Node>, Box<Node>, Box<Node>),
    Index(Box<Node>, Box<Node>),
    Slice(Box<Node>, Option<Box<Node>>, Option<Box<Node>>),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Let(String, Box<Node>, Box<Node>),
}

/// What is asked of each element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Predicate {
    All,
    Any,
    None,
    One,
    Filter,
    Map,
    Count,
    Find,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Contains,
    StartsWith,
    EndsWith,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Otherwise,
}

/// Something about the query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    Type,
    Name,
    Class,
    Proto,
    Size,
    ClientIp,
    Port,
    Id,
    Opcode,
    Do,
    Bufsize,
    ServerIp,
    ServerPort,
}

impl About {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "type" => Self::Type,
            "name" => Self::Name,
            "class" => Self::Class,
            "proto" => Self::Proto,
            "size" => Self::Size,
            "client_ip" => Self::ClientIp,
            "port" => Self::Port,
            "id" => Self::Id,
            "opcode" => Self::Opcode,
            "do" => Self::Do,
            "bufsize" => Self::Bufsize,
            "server_ip" => Self::ServerIp,
            "server_port" => Self::ServerPort,
            _ => return None,
        })
    }

    fn of(self, query: &Query) -> Value {
        let text = |text: String| Value::Text(text);
        let ip = |ip: IpAddr| Value::Text(ip.to_canonical().to_string());
        let stream = query.transport != Transport::Udp;
        let edns = query.edns.as_ref();
        match self {
            Self::Type => text(query.question.kind.to_string()),
            Self::Name => text(query.question.name.lower().to_string()),
            Self::Class => text(query.question.class.to_string()),
            Self::Proto => text(if stream { "tcp" } else { "udp" }.to_owned()),
            Self::Size => Value::Int(crate::plugins::log::query_len(query) as i64),
            Self::ClientIp => ip(query.client.ip()),
            Self::Port => text(query.client.port().to_string()),
            Self::Id => Value::Int(query.id.into()),
            Self::Opcode => Value::Int(0),
            Self::Do => Value::Bool(edns.is_some_and(|edns| edns.dnssec_ok)),
            Self::Bufsize if stream => Value::Int(u16::MAX.into()),
            Self::Bufsize => Value::Int(edns.map_or(512, |edns| edns.udp_size.max(512)).into()),
            Self::ServerIp => ip(query.server.ip()),
            Self::ServerPort => text(query.server.port().to_string()),
        }
    }
}

impl Expression {
    /// Understands a text. Variables that there are beside what is known of the query are named;
    /// groups of a regular expression are there for `template` only.
    ///
    /// # Errors
    /// What is not understood, and where.
    pub fn new(text: &str, variables: &[String], groups: bool) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("the expression has more than {LONGEST} bytes"));
        }
        parse::parse(text, variables, groups).map(Self)
    }

    /// Works it out.
    ///
    /// # Errors
    /// Values that do not fit together, or too much work.
    pub fn value(&self, environment: &Environment<'_>) -> Result<Value, String> {
        eval::Run::new(environment).value(&self.0)
    }

    /// Whether it holds: whether it is the value true.
    ///
    /// # Errors
    /// As for [`Self::value`].
    pub fn holds(&self, environment: &Environment<'_>) -> Result<bool, String> {
        Ok(self.value(environment)? == Value::Bool(true))
    }
}
