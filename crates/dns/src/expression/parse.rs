//! From words to what they mean.

use super::builtin::Builtin;
use super::lex::{Token, tokens};
use super::{About, Binary, Node, Predicate, Value};
use crate::corefile::Pattern;

/// Brackets within brackets.
const DEEPEST: usize = 64;

/// How tightly `not` and `!` bind; then `-` and `+` in front of one value.
const NOT: u16 = 50;
const SIGN: u16 = 90;

struct Parser<'a> {
    tokens: Vec<(usize, Token)>,
    at: usize,
    depth: usize,
    /// Within predicates, so that `#` means something.
    predicates: usize,
    names: Vec<String>,
    groups: bool,
    text: &'a str,
}

type Result<T> = std::result::Result<T, String>;

pub(super) fn parse(text: &str, variables: &[String], groups: bool) -> Result<Node> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        at: 0,
        depth: 0,
        predicates: 0,
        names: variables.to_vec(),
        groups,
        text,
    };
    let node = parser.expression()?;
    match parser.tokens.get(parser.at) {
        None => Ok(node),
        Some(_) => Err(parser.unexpected()),
    }
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Some(Token::Sign(next)) if *next == sign)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(next)) if next == word)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        match self.sign(sign) {
            true => Ok(()),
            false => Err(format!("{}, not {sign:?}", self.unexpected())),
        }
    }

    fn unexpected(&self) -> String {
        match self.tokens.get(self.at) {
            Some((at, _)) => {
                let rest: String = self.text[*at..].chars().take(20).collect();
                format!("{rest:?} is not expected there")
            }
            None => "the expression ends too early".to_owned(),
        }
    }

    fn expression(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} brackets within each other"));
        }
        let node = if self.is_word("let") {
            self.binding()
        } else {
            self.choice()
        };
        self.depth -= 1;
        node
    }

    /// `let name = value; body`.
    fn binding(&mut self) -> Result<Node> {
        self.at += 1;
        let name = self.name()?;
        self.expect("=")?;
        let value = self.choice()?;
        self.expect(";")?;
        self.names.push(name.clone());
        let body = self.expression()?;
        self.names.pop();
        Ok(Node::Let(name, Box::new(value), Box::new(body)))
    }

    fn name(&mut self) -> Result<String> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn choice(&mut self) -> Result<Node> {
        let condition = self.binary(0)?;
        if !self.sign("?") {
            return Ok(condition);
        }
        let yes = self.expression()?;
        self.expect(":")?;
        let no = self.expression()?;
        Ok(Node::Choice(
            Box::new(condition),
            Box::new(yes),
            Box::new(no),
        ))
    }

    /// The operator that comes next, with how tightly it binds, and whether `not` is before it.
    fn operator(&self) -> Option<(Operator, u16, bool)> {
        let at = |at: usize| self.tokens.get(at).map(|(_, token)| token);
        if self.is_word("not")
            && let Some(Token::Name(word)) = at(self.at + 1)
            && let Some(operator) = Operator::from_word(word).filter(|one| one.can_be_denied())
        {
            return Some((operator, operator.binds(), true));
        }
        let operator = match self.peek()? {
            Token::Name(word) => Operator::from_word(word)?,
            Token::Sign(sign) => Operator::from_word(sign)?,
            _ => return None,
        };
        Some((operator, operator.binds(), false))
    }

    fn binary(&mut self, least: u16) -> Result<Node> {
        let mut left = self.unary()?;
        while let Some((operator, binds, denied)) = self.operator() {
            if binds < least {
                break;
            }
            self.at += 1 + usize::from(denied);
            left = match operator {
                Operator::Pipe => self.piped(left)?,
                Operator::Matches => {
                    let pattern = self.unary()?;
                    let Node::Value(Value::Text(pattern)) = pattern else {
                        return Err(
                            "what `matches` compares with is to be a text in quotes".to_owned()
                        );
                    };
                    Node::Matches(Box::new(left), Pattern::new(&pattern)?)
                }
                Operator::Binary(binary) => {
                    // A power is worked out from the right.
                    let next = binds + u16::from(binary != Binary::Power);
                    let right = self.binary(next)?;
                    Node::Binary(binary, Box::new(left), Box::new(right))
                }
            };
            if denied {
                left = Node::Not(Box::new(left));
            }
        }
        Ok(left)
    }

    /// `value | function(more)` is `function(value, more)`.
    fn piped(&mut self, first: Node) -> Result<Node> {
        let name = self.name()?;
        self.call(&name, Some(first))
    }

    fn unary(&mut self) -> Result<Node> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("more than {DEEPEST} signs within each other"));
        }
        let node = if self.word("not") || self.sign("!") {
            Node::Not(Box::new(self.binary(NOT)?))
        } else if self.sign("-") {
            Node::Minus(Box::new(self.binary(SIGN)?))
        } else if self.sign("+") {
            self.binary(SIGN)?
        } else {
            let value = self.primary()?;
            self.members(value)?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn members(&mut self, mut node: Node) -> Result<Node> {
        loop {
            if self.sign(".") || self.sign("?.") {
                let key = Node::Value(Value::Text(self.name()?));
                node = Node::Index(Box::new(node), Box::new(key));
            } else if self.sign("[") {
                node = self.index(node)?;
            } else {
                return Ok(node);
            }
        }
    }

    /// `[1]`, `[1:2]`, `[:2]`, `[1:]`.
    fn index(&mut self, node: Node) -> Result<Node> {
        let node = Box::new(node);
        let from = if self.is_sign(":") {
            None
        } else {
            Some(Box::new(self.binary(0)?))
        };
        if self.sign(":") {
            let to = if self.is_sign("]") {
                None
            } else {
                Some(Box::new(self.binary(0)?))
            };
            self.expect("]")?;
            return Ok(Node::Slice(node, from, to));
        }
        self.expect("]")?;
        let from = from.ok_or_else(|| self.unexpected())?;
        Ok(Node::Index(node, from))
    }

    fn primary(&mut self) -> Result<Node> {
        let Some(token) = self.peek().cloned() else {
            return Err(self.unexpected());
        };
        match token {
            Token::Text(text) => self.literal(Value::Text(text)),
            Token::Int(int) => self.literal(Value::Int(int)),
            Token::Float(float) => self.literal(Value::Float(float)),
            Token::Sign("(") => {
                self.at += 1;
                let node = self.expression()?;
                self.expect(")")?;
                Ok(node)
            }
            Token::Sign("[") => {
                self.at += 1;
                self.list("]").map(Node::List)
            }
            Token::Sign("{") => {
                self.at += 1;
                self.map()
            }
            Token::Sign("#") if self.predicates > 0 => {
                self.at += 1;
                if matches!(self.peek(), Some(Token::Name(_))) && self.is_next_to() {
                    return Err("of # only the element itself is known".to_owned());
                }
                Ok(Node::Element)
            }
            Token::Name(name) => {
                self.at += 1;
                match name.as_str() {
                    "true" => Ok(Node::Value(Value::Bool(true))),
                    "false" => Ok(Node::Value(Value::Bool(false))),
                    "nil" => Ok(Node::Value(Value::Nil)),
                    _ if self.is_sign("(") => self.call(&name, None),
                    _ if self.names.contains(&name) => Ok(Node::Variable(name)),
                    _ => Err(format!("{name} is not known")),
                }
            }
            Token::Sign(_) => Err(self.unexpected()),
        }
    }

    /// Whether the next word stands right behind the one before.
    fn is_next_to(&self) -> bool {
        let place = |at: usize| self.tokens.get(at).map(|(place, _)| *place);
        place(self.at)
            == self
                .at
                .checked_sub(1)
                .and_then(place)
                .map(|place| place + 1)
    }

    fn literal(&mut self, value: Value) -> Result<Node> {
        self.at += 1;
        Ok(Node::Value(value))
    }

    fn list(&mut self, end: &str) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        while !self.sign(end) {
            if !nodes.is_empty() {
                self.expect(",")?;
                if self.sign(end) {
                    break;
                }
            }
            nodes.push(self.expression()?);
        }
        Ok(nodes)
    }

    fn map(&mut self) -> Result<Node> {
        let mut pairs = Vec::new();
        while !self.sign("}") {
            if !pairs.is_empty() {
                self.expect(",")?;
            }
            let key = match self.peek() {
                Some(Token::Name(name)) => {
                    let key = Node::Value(Value::Text(name.clone()));
                    self.at += 1;
                    key
                }
                _ => self.unary()?,
            };
            self.expect(":")?;
            pairs.push((key, self.expression()?));
        }
        Ok(Node::Map(pairs))
    }

    /// A call; the bracket is next.
    fn call(&mut self, name: &str, first: Option<Node>) -> Result<Node> {
        self.expect("(")?;
        if let Some(predicate) = Predicate::from_word(name) {
            let list = match first {
                Some(list) => list,
                None => {
                    let list = self.expression()?;
                    self.expect(",")?;
                    list
                }
            };
            self.predicates += 1;
            let braces = self.sign("{");
            let body = self.expression()?;
            if braces {
                self.expect("}")?;
            }
            self.predicates -= 1;
            self.expect(")")?;
            return Ok(Node::Predicate(predicate, Box::new(list), Box::new(body)));
        }
        let mut args: Vec<Node> = first.into_iter().collect();
        args.extend(self.list(")")?);
        self.known(name, args)
    }

    fn known(&self, name: &str, args: Vec<Node>) -> Result<Node> {
        let count = args.len();
        let takes = |wanted: &str| format!("{name} takes {wanted}, not {count} values");
        if let Some(about) = About::from_word(name) {
            return match count {
                0 => Ok(Node::About(about)),
                _ => Err(takes("no values")),
            };
        }
        let mut args = args.into_iter();
        let mut next = || args.next().map(Box::new);
        match name {
            "group" if self.groups => {
                let arg = next().filter(|_| count == 1);
                return arg
                    .map(Node::Group)
                    .ok_or_else(|| takes("a name or a number"));
            }
            "metadata" => {
                let arg = next().filter(|_| count == 1);
                return arg.map(Node::Metadata).ok_or_else(|| takes("a label"));
            }
            "incidr" => {
                return match (next(), next()) {
                    (Some(ip), Some(net)) if count == 2 => Ok(Node::InCidr(ip, net)),
                    _ => Err(takes("an address and a network")),
                };
            }
            _ => {}
        }
        let builtin = Builtin::from_word(name);
        let builtin = builtin.ok_or_else(|| format!("there is no function {name}"))?;
        if !builtin.takes().contains(&count) {
            let (least, most) = builtin.takes().into_inner();
            return Err(takes(&format!("{least} to {most} values")));
        }
        Ok(Node::Call(builtin, args.collect()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Pipe,
    Matches,
    Binary(Binary),
}

impl Operator {
    fn from_word(word: &str) -> Option<Self> {
        Some(Self::Binary(match word {
            "|" => return Some(Self::Pipe),
            "matches" => return Some(Self::Matches),
            "or" | "||" => Binary::Or,
            "and" | "&&" => Binary::And,
            "==" => Binary::Equal,
            "!=" => Binary::Unequal,
            "<" => Binary::Less,
            "<=" => Binary::LessOrEqual,
            ">" => Binary::Greater,
            ">=" => Binary::GreaterOrEqual,
            "in" => Binary::In,
            "contains" => Binary::Contains,
            "startsWith" => Binary::StartsWith,
            "endsWith" => Binary::EndsWith,
            ".." => Binary::Range,
            "+" => Binary::Add,
            "-" => Binary::Subtract,
            "*" => Binary::Multiply,
            "/" => Binary::Divide,
            "%" => Binary::Remainder,
            "**" | "^" => Binary::Power,
            "??" => Binary::Otherwise,
            _ => return None,
        }))
    }

    fn binds(self) -> u16 {
        match self {
            Self::Pipe => 0,
            Self::Matches => 20,
            Self::Binary(binary) => match binary {
                Binary::Or => 10,
                Binary::And => 15,
                Binary::Range => 25,
                Binary::Add | Binary::Subtract => 30,
                Binary::Multiply | Binary::Divide | Binary::Remainder => 60,
                Binary::Power => 100,
                Binary::Otherwise => 500,
                _ => 20,
            },
        }
    }

    /// Whether `not` may stand before it.
    fn can_be_denied(self) -> bool {
        let denied = [
            Binary::In,
            Binary::Contains,
            Binary::StartsWith,
            Binary::EndsWith,
        ];
        match self {
            Self::Matches => true,
            Self::Binary(binary) => denied.contains(&binary),
            Self::Pipe => false,
        }
    }
}

impl Predicate {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "all" => Self::All,
            "any" => Self::Any,
            "none" => Self::None,
            "one" => Self::One,
            "filter" => Self::Filter,
            "map" => Self::Map,
            "count" => Self::Count,
            "find" => Self::Find,
            _ => return None,
        })
    }
}
