//! Templates at work.

use super::functions::Function;
use super::{Assign, Command, Data, Node, Operand, Pipeline, Value, data};

/// So many steps at most.
const MOST_STEPS: u32 = 10_000;
/// So much text at most: no record is longer.
pub(super) const MOST_BYTES: usize = 128 << 10;

type Result<T> = std::result::Result<T, String>;

/// What `.` is.
#[derive(Clone, Debug)]
enum Dot {
    /// The data.
    Data,
    Value(Value),
}

/// How a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Whole,
    Break,
    Continue,
}

pub(super) struct Run<'a> {
    data: &'a Data<'a>,
    variables: Vec<(String, Value)>,
    dot: Dot,
    steps: u32,
    out: String,
}

impl<'a> Run<'a> {
    pub fn new(data: &'a Data<'a>) -> Self {
        Self {
            data,
            variables: Vec::new(),
            dot: Dot::Data,
            steps: 0,
            out: String::new(),
        }
    }

    pub fn all(mut self, nodes: &[Node]) -> Result<String> {
        self.block(nodes)?;
        Ok(self.out)
    }

    fn step(&mut self) -> Result<()> {
        self.steps += 1;
        match self.steps > MOST_STEPS {
            true => Err(format!("more than {MOST_STEPS} steps")),
            false => Ok(()),
        }
    }

    fn write(&mut self, text: &str) -> Result<()> {
        if self.out.len() + text.len() > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes of text"));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn block(&mut self, nodes: &[Node]) -> Result<Ended> {
        let known = self.variables.len();
        let mut ended = Ended::Whole;
        for node in nodes {
            ended = self.node(node)?;
            if ended != Ended::Whole {
                break;
            }
        }
        self.variables.truncate(known);
        Ok(ended)
    }

    fn node(&mut self, node: &Node) -> Result<Ended> {
        self.step()?;
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline)?;
                if pipeline.variable.is_none() {
                    let text = match value {
                        Value::Nil => "<no value>".to_owned(),
                        value => value.to_string(),
                    };
                    self.write(&text)?;
                }
            }
            Node::If(condition, yes, no) => {
                let known = self.variables.len();
                let chosen = if self.pipeline(condition)?.is_true() {
                    yes
                } else {
                    no
                };
                let ended = self.block(chosen);
                self.variables.truncate(known);
                return ended;
            }
            Node::With(condition, yes, no) => {
                let known = self.variables.len();
                let value = self.pipeline(condition)?;
                let ended = match value.is_true() {
                    true => self.on(Dot::Value(value), yes),
                    false => self.block(no),
                };
                self.variables.truncate(known);
                return ended;
            }
            Node::Range {
                variables,
                over,
                body,
                empty,
            } => {
                return self.range(variables, over, body, empty);
            }
            Node::Break => return Ok(Ended::Break),
            Node::Continue => return Ok(Ended::Continue),
        }
        Ok(Ended::Whole)
    }

    fn on(&mut self, dot: Dot, nodes: &[Node]) -> Result<Ended> {
        let before = std::mem::replace(&mut self.dot, dot);
        let ended = self.block(nodes);
        self.dot = before;
        ended
    }

    fn range(
        &mut self,
        names: &[String],
        over: &Pipeline,
        body: &[Node],
        empty: &[Node],
    ) -> Result<Ended> {
        let pairs: Vec<(Value, Value)> = match self.pipeline(over)? {
            Value::List(list) => {
                let numbered = list.into_iter().enumerate();
                numbered
                    .map(|(at, value)| (Value::Int(at as i64), value))
                    .collect()
            }
            Value::Map(map) => map
                .into_iter()
                .map(|(key, value)| (Value::Text(key), value))
                .collect(),
            Value::Int(count) => {
                let count = count.clamp(0, i64::from(MOST_STEPS));
                (0..count)
                    .map(|at| (Value::Int(at), Value::Int(at)))
                    .collect()
            }
            Value::Nil => Vec::new(),
            other => return Err(format!("range over {}", other.kind())),
        };
        if pairs.is_empty() {
            return self.block(empty);
        }
        for (key, value) in pairs {
            self.step()?;
            let known = self.variables.len();
            match names {
                [element] => self.variables.push((element.clone(), value.clone())),
                [number, element] => {
                    self.variables.push((number.clone(), key));
                    self.variables.push((element.clone(), value.clone()));
                }
                _ => {}
            }
            let ended = self.on(Dot::Value(value), body)?;
            self.variables.truncate(known);
            if ended == Ended::Break {
                break;
            }
        }
        Ok(Ended::Whole)
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value> {
        let mut value: Option<Value> = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, value)?);
        }
        let value = value.unwrap_or_default();
        match &pipeline.variable {
            None => {}
            Some((name, Assign::Declare)) => self.variables.push((name.clone(), value.clone())),
            Some((name, Assign::Change)) => {
                let known = self
                    .variables
                    .iter_mut()
                    .rev()
                    .find(|(known, _)| known == name);
                if let Some((_, known)) = known {
                    *known = value.clone();
                }
            }
        }
        Ok(value)
    }

    fn command(&mut self, command: &Command, before: Option<Value>) -> Result<Value> {
        self.step()?;
        match command {
            Command::Value(operand) => self.operand(operand),
            Command::Meta(operands) => {
                for operand in operands {
                    self.operand(operand)?;
                }
                Ok(Value::Text(String::new()))
            }
            // These two stop at the first that decides.
            Command::Call(function @ (Function::And | Function::Or), operands) => {
                let mut last = Value::Nil;
                for operand in operands {
                    last = self.operand(operand)?;
                    if last.is_true() == (*function == Function::Or) {
                        return Ok(last);
                    }
                }
                Ok(before.unwrap_or(last))
            }
            Command::Call(function, operands) => {
                let mut args = Vec::with_capacity(operands.len() + 1);
                for operand in operands {
                    args.push(self.operand(operand)?);
                }
                args.extend(before);
                function.call(&args)
            }
        }
    }

    fn operand(&mut self, operand: &Operand) -> Result<Value> {
        self.step()?;
        match operand {
            Operand::Value(value) => Ok(value.clone()),
            Operand::Field(path) => match &self.dot {
                Dot::Data => self.data.field(path),
                Dot::Value(value) => data::within(value.clone(), path),
            },
            Operand::Variable(name, path) if name.is_empty() => self.data.field(path),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = known.map(|(_, value)| value.clone());
                data::within(value.ok_or_else(|| format!("${name} is not known"))?, path)
            }
            Operand::Pipe(pipeline, path) => {
                let value = self.pipeline(pipeline)?;
                data::within(value, path)
            }
            Operand::Call(function) => function.call(&[]),
        }
    }
}
