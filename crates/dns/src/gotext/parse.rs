//! From pieces to what they mean.

use super::functions::Function;
use super::lex::{Piece, Token, pieces};
use super::{Assign, Command, Node, Operand, Pipeline, Value, data};

/// The longest text that is taken.
const LONGEST: usize = 10_000;
/// Actions and brackets within each other.
const DEEPEST: usize = 32;

type Result<T> = std::result::Result<T, String>;

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    if text.len() > LONGEST {
        return Err(format!("the template has more than {LONGEST} bytes"));
    }
    let mut parser = Parser {
        pieces: pieces(text)?.into_iter(),
        variables: Vec::new(),
        depth: 0,
        ranges: 0,
        moved: 0,
    };
    let (nodes, end) = parser.block()?;
    match end {
        None => Ok(nodes),
        Some(End::End) => Err("there is an {{ end }} too much".to_owned()),
        Some(End::Else(_)) => Err("there is an {{ else }} too much".to_owned()),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    variables: Vec<String>,
    depth: usize,
    /// Within so many `range`, so that `break` means something.
    ranges: usize,
    /// Within so many `with` and `range`, so that `.` is not the whole data.
    moved: usize,
}

/// What ends a block.
enum End {
    End,
    /// With what stands behind it.
    Else(Vec<Token>),
}

impl Parser {
    /// Nodes up to `end` or `else`; none at the end of the text.
    fn block(&mut self) -> Result<(Vec<Node>, Option<End>)> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let tokens = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens) => tokens,
            };
            let word = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            let rest = || tokens[1..].to_vec();
            match word {
                "end" if tokens.len() == 1 => return Ok((nodes, Some(End::End))),
                "else" => return Ok((nodes, Some(End::Else(rest())))),
                "if" | "with" | "range" => {
                    let word = word.to_owned();
                    nodes.push(self.within(|parser| parser.control(&word, rest()))?);
                }
                "break" | "continue" if tokens.len() == 1 => {
                    if self.ranges == 0 {
                        return Err(format!("{word} is not within a range"));
                    }
                    nodes.push(if word == "break" {
                        Node::Break
                    } else {
                        Node::Continue
                    });
                }
                "define" | "template" | "block" => {
                    return Err(format!("named templates are not taken: {word}"));
                }
                _ => nodes.push(Node::Print(self.pipeline(&mut Words::new(&tokens))?)),
            }
        }
        Ok((nodes, None))
    }

    fn within<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!(
                "more than {DEEPEST} actions and brackets within each other"
            ));
        }
        let known = self.variables.len();
        let inner = inner(self);
        self.variables.truncate(known);
        self.depth -= 1;
        inner
    }

    fn control(&mut self, word: &str, tokens: Vec<Token>) -> Result<Node> {
        let mut words = Words::new(&tokens);
        let names = if word == "range" {
            ranged(&mut words)?
        } else {
            Vec::new()
        };
        let condition = self.pipeline(&mut words)?;
        self.variables.extend(names.iter().cloned());
        let (range, moves) = (word == "range", word != "if");
        self.ranges += usize::from(range);
        self.moved += usize::from(moves);
        let (body, end) = self.block()?;
        self.ranges -= usize::from(range);
        self.moved -= usize::from(moves);
        let otherwise = match end {
            None => return Err(format!("{{{{ {word} }}}} is not ended")),
            Some(End::End) => Vec::new(),
            Some(End::Else(more)) => self.within(|parser| parser.otherwise(word, more))?,
        };
        Ok(match word {
            "if" => Node::If(condition, body, otherwise),
            "with" => Node::With(condition, body, otherwise),
            _ => Node::Range {
                variables: names,
                over: condition,
                body,
                empty: otherwise,
            },
        })
    }

    /// What is behind `else`; `else if` goes on without an end of its own.
    fn otherwise(&mut self, word: &str, more: Vec<Token>) -> Result<Vec<Node>> {
        if let Some(Token::Word(next)) = more.first() {
            if next != word || word == "range" {
                return Err(format!("behind else of {word} comes no {next}"));
            }
            return Ok(vec![self.control(word, more[1..].to_vec())?]);
        }
        if !more.is_empty() {
            return Err("behind else comes something that is not expected".to_owned());
        }
        match self.block()? {
            (nodes, Some(End::End)) => Ok(nodes),
            _ => Err(format!("{{{{ {word} }}}} is not ended")),
        }
    }

    fn pipeline(&mut self, words: &mut Words<'_>) -> Result<Pipeline> {
        let pipeline = self.part(words)?;
        match words.peek() {
            None => Ok(pipeline),
            Some(_) => Err("an action has something that is not expected".to_owned()),
        }
    }

    fn part(&mut self, words: &mut Words<'_>) -> Result<Pipeline> {
        let variable = self.assigned(words)?;
        let mut commands = Vec::new();
        loop {
            let first = commands.is_empty();
            commands.push(self.command(words, first)?);
            if !words.take(&Token::Pipe) {
                break;
            }
        }
        if let Some((name, Assign::Declare)) = &variable {
            self.variables.push(name.clone());
        }
        Ok(Pipeline { variable, commands })
    }

    fn assigned(&self, words: &mut Words<'_>) -> Result<Option<(String, Assign)>> {
        let Some(Token::Variable(name, path)) = words.peek() else {
            return Ok(None);
        };
        let assign = match words.second() {
            Some(Token::Declare) => Assign::Declare,
            Some(Token::Change) => Assign::Change,
            _ => return Ok(None),
        };
        if name.is_empty() || !path.is_empty() {
            return Err("only a variable can be given a value".to_owned());
        }
        if assign == Assign::Change && !self.variables.contains(name) {
            return Err(format!("${name} is not known"));
        }
        let name = name.clone();
        words.skip(2);
        Ok(Some((name, assign)))
    }

    /// A function and its arguments, or one value.
    fn command(&mut self, words: &mut Words<'_>, first: bool) -> Result<Command> {
        let mut operands = Vec::new();
        let function = match words.peek() {
            Some(Token::Word(word)) if literal(word).is_none() => {
                let function = Function::from_word(word);
                let function = function.ok_or_else(|| format!("there is no function {word}"))?;
                words.skip(1);
                Some(function)
            }
            _ => None,
        };
        let meta = matches!(words.peek(), Some(Token::Field(path)) if path.as_slice() == ["Meta"])
            || matches!(words.peek(), Some(Token::Variable(name, path)) if name.is_empty() && path.as_slice() == ["Meta"]);
        if meta && function.is_none() {
            words.skip(1);
        }
        while !matches!(words.peek(), None | Some(Token::Pipe | Token::Close(_))) {
            operands.push(self.operand(words)?);
        }
        // What comes through the pipe is an argument more.
        let count = operands.len() + usize::from(!first);
        if let Some(function) = function {
            if !function.takes().contains(&count) {
                return Err(format!(
                    "{} does not take {count} arguments",
                    function.word()
                ));
            }
            return Ok(Command::Call(function, operands));
        }
        if meta {
            return match count {
                1 => Ok(Command::Meta(operands)),
                _ => Err(".Meta takes one name".to_owned()),
            };
        }
        match <[Operand; 1]>::try_from(operands) {
            Ok([operand]) if first => Ok(Command::Value(operand)),
            Ok(_) => Err("behind | comes a function".to_owned()),
            Err(operands) if operands.is_empty() => Err("a value is missing".to_owned()),
            Err(_) => Err("a value takes no arguments".to_owned()),
        }
    }

    fn operand(&mut self, words: &mut Words<'_>) -> Result<Operand> {
        let Some(token) = words.next() else {
            return Err("a value is missing".to_owned());
        };
        Ok(match token {
            Token::Word(word) => match literal(&word) {
                Some(value) => Operand::Value(value),
                None => {
                    let function = Function::from_word(&word);
                    let function =
                        function.ok_or_else(|| format!("there is no function {word}"))?;
                    if !function.takes().contains(&0) {
                        return Err(format!("{word} takes arguments; it needs brackets here"));
                    }
                    Operand::Call(function)
                }
            },
            Token::Field(path) => {
                if self.moved == 0 {
                    data::check(&path)?;
                }
                Operand::Field(path)
            }
            Token::Variable(name, path) => {
                if name.is_empty() {
                    data::check(&path)?;
                } else if !self.variables.contains(&name) {
                    return Err(format!("${name} is not known"));
                }
                Operand::Variable(name, path)
            }
            Token::Text(text) => Operand::Value(Value::Text(text)),
            Token::Int(int) => Operand::Value(Value::Int(int)),
            Token::Float(float) => Operand::Value(Value::Float(float)),
            Token::Open => {
                let inner = self.within(|parser| parser.part(words))?;
                match words.next() {
                    Some(Token::Close(path)) => Operand::Pipe(Box::new(inner), path),
                    _ => return Err("a bracket is not closed".to_owned()),
                }
            }
            Token::Close(_) | Token::Pipe | Token::Declare | Token::Change | Token::Comma => {
                return Err("an action has something that is not expected".to_owned());
            }
        })
    }
}

/// `$x :=` or `$k, $x :=` of a `range`.
fn ranged(words: &mut Words<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut ahead = words.clone();
    loop {
        let Some(Token::Variable(name, path)) = ahead.next() else {
            return Ok(Vec::new());
        };
        if name.is_empty() || !path.is_empty() {
            return Ok(Vec::new());
        }
        names.push(name);
        match ahead.next() {
            Some(Token::Comma) if names.len() == 1 => {}
            Some(Token::Declare) => break,
            Some(Token::Change) => return Err("range declares its variables with :=".to_owned()),
            _ => return Ok(Vec::new()),
        }
    }
    *words = ahead;
    Ok(names)
}

fn literal(word: &str) -> Option<Value> {
    match word {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "nil" => Some(Value::Nil),
        _ => None,
    }
}

/// The words of an action.
#[derive(Clone)]
struct Words<'a>(&'a [Token]);

impl<'a> Words<'a> {
    fn new(tokens: &'a [Token]) -> Self {
        Self(tokens)
    }

    fn peek(&self) -> Option<&'a Token> {
        self.0.first()
    }

    fn second(&self) -> Option<&'a Token> {
        self.0.get(1)
    }

    fn skip(&mut self, count: usize) {
        self.0 = self.0.get(count..).unwrap_or_default();
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.skip(usize::from(found));
        found
    }

    fn next(&mut self) -> Option<Token> {
        let next = self.peek().cloned();
        self.skip(1);
        next
    }
}
