//! Templates in the language of Go's text/template, as the plugin `template` has them: all of it
//! that makes sense for a record. Named templates and the functions for HTML are left out.
//!
//! Text is understood when the Corefile is read; what is not understood is an error there. What
//! runs then is bounded in steps and in what it writes. What it writes is data, never looked at
//! again for actions.

mod data;
mod functions;
mod lex;
mod parse;
mod printf;
mod run;
#[cfg(test)]
mod tests;

pub use data::Data;

use crate::expression::Value;
use functions::Function;

/// A template, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
    text: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        /// Variables for key and element.
        variables: Vec<String>,
        over: Pipeline,
        body: Vec<Node>,
        empty: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands, each of which has the value of the one before as its last argument.
#[derive(Clone, Debug, PartialEq)]
struct Pipeline {
    /// `$x :=` or `$x =`.
    variable: Option<(String, Assign)>,
    commands: Vec<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Assign {
    Declare,
    Change,
}

#[derive(Clone, Debug, PartialEq)]
enum Command {
    Value(Operand),
    Call(Function, Vec<Operand>),
    /// `.Meta "name"`: there is no metadata, so it is empty.
    Meta(Vec<Operand>),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Value(Value),
    /// `.`, `.A`, `.A.B`.
    Field(Vec<String>),
    /// `$`, `$.A`, `$x`, `$x.A`.
    Variable(String, Vec<String>),
    /// What stands in brackets, and a field of it.
    Pipe(Box<Pipeline>, Vec<String>),
    /// A function without arguments.
    Call(Function),
}

impl Template {
    /// Understands a text.
    ///
    /// # Errors
    /// What is not understood.
    pub fn new(text: &str) -> Result<Self, String> {
        Ok(Self {
            nodes: parse::parse(text)?,
            text: text.to_owned(),
        })
    }

    /// The text it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text that comes of it.
    ///
    /// # Errors
    /// Values that do not fit together, or too much of them.
    pub fn render(&self, data: &Data<'_>) -> Result<String, String> {
        run::Run::new(data).all(&self.nodes)
    }
}
