//! Words to server blocks: which keys, and the words of which plugins. Imports and snippets are
//! followed here.
//!
//! This goes the way of `CoreDNS`'s parser step by step, because what a line means depends on
//! it: words that an import puts in place of itself keep the file and line they came from, and
//! whether two words are on one line is judged by these.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lexer::{FileId, Token};
use super::plugins::{self, Support};
use super::problem::{Error, ErrorKind, Report, Warning};
use super::{Position, Sources, lexer, variables};

mod import;

use import::Imports;

/// The most words taken, those imported counted as often as they are.
const MOST_TOKENS: usize = 1_000_000;

/// The most server blocks taken.
const MOST_BLOCKS: usize = 20_000;

/// The names of the files the text is in.
#[derive(Debug, Default)]
pub(super) struct FileNames {
    names: Vec<Arc<str>>,
    ids: BTreeMap<Arc<str>, FileId>,
}

impl FileNames {
    fn add(&mut self, name: &str) -> FileId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = FileId::try_from(self.names.len()).unwrap_or(FileId::MAX);
        let name: Arc<str> = name.into();
        self.names.push(Arc::clone(&name));
        self.ids.insert(name, id);
        id
    }

    pub(super) fn name(&self, id: FileId) -> Arc<str> {
        let found = usize::try_from(id).ok().and_then(|id| self.names.get(id));
        found.cloned().unwrap_or_else(|| "".into())
    }

    /// Whether a file comes before another one: in the order in which they were met.
    pub(super) fn order(&self, name: &str) -> FileId {
        self.ids.get(name).copied().unwrap_or(FileId::MAX)
    }

    pub(super) fn position(&self, token: &Token) -> Position {
        Position {
            file: self.name(token.file),
            line: token.line,
        }
    }
}

/// A server block.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What it is for: zones with transports and ports.
    pub(super) keys: Vec<Token>,
    /// The words of each plugin, its name first; a plugin that is there more than once has them
    /// one after the other.
    pub(super) plugins: BTreeMap<&'static str, Vec<Token>>,
}

/// The server blocks of a text.
pub(super) fn blocks(
    file: &str,
    text: &str,
    sources: &dyn Sources,
    report: &mut Report,
) -> (Vec<Block>, FileNames) {
    let mut names = FileNames::default();
    let id = names.add(file);
    let mut parser = Parser {
        sources,
        report,
        names,
        before: Vec::new(),
        after: Vec::new(),
        started: false,
        ended: false,
        snippets: BTreeMap::new(),
        imports: Imports::default(),
        tokens: 0,
        block: Block::default(),
    };
    let mut blocks = Vec::new();
    if let Ok(tokens) = parser.lex(text, id) {
        parser.after = tokens;
        parser.after.reverse();
        // The first error after which nothing can be told from the braces ends the parse.
        while parser.advance() {
            if blocks.len() == MOST_BLOCKS {
                let message = format!("the text has more than {MOST_BLOCKS} server blocks");
                let at = parser.position();
                parser.error(at, ErrorKind::TooLarge, message);
                break;
            }
            let parsed = parser.one();
            let block = std::mem::take(&mut parser.block);
            if !block.keys.is_empty() {
                blocks.push(block);
            }
            if parsed.is_err() {
                break;
            }
        }
    }
    (blocks, parser.names)
}

/// Nothing after this can be made sense of; the error is in the report.
struct Stop;

struct Parser<'a> {
    sources: &'a dyn Sources,
    report: &'a mut Report,
    names: FileNames,
    /// The words before the current one.
    before: Vec<Token>,
    /// The current word (once started) and those after it, the next one last.
    after: Vec<Token>,
    started: bool,
    /// The text ended within or after the keys of a block.
    ended: bool,
    snippets: BTreeMap<Arc<str>, Vec<Token>>,
    imports: Imports,
    /// Words so far.
    tokens: usize,
    block: Block,
}

impl Parser<'_> {
    /// The current word.
    fn current(&self) -> Option<&Token> {
        self.after.last().filter(|_| self.started)
    }

    fn is(&self, text: &str) -> bool {
        self.current().is_some_and(|token| *token.text == *text)
    }

    /// Goes to the next word, if there is one.
    fn advance(&mut self) -> bool {
        if !self.started {
            self.started = !self.after.is_empty();
            return self.started;
        }
        if self.after.len() < 2 {
            return false;
        }
        self.before.extend(self.after.pop());
        true
    }

    /// Goes back to the word before.
    fn back(&mut self) {
        match self.before.pop() {
            Some(token) => self.after.push(token),
            None => self.started = false,
        }
    }

    /// Whether the current word is the first of its line.
    fn starts_line(&self) -> bool {
        match (self.before.last(), self.current()) {
            (None, _) => true,
            (Some(before), Some(current)) => before.is_above(current),
            (Some(_), None) => false,
        }
    }

    /// Where the parser is.
    fn position(&self) -> Position {
        let token = self.current().or(self.before.last());
        token.map_or_else(
            || Position {
                file: self.names.name(0),
                line: 0,
            },
            |token| self.names.position(token),
        )
    }

    fn error(&mut self, at: Position, kind: ErrorKind, message: impl Into<String>) {
        let message = message.into();
        self.report.error(Error { at, kind, message });
    }

    /// The words of a text; `Stop` if they would be too many.
    fn lex(&mut self, text: &str, file: FileId) -> Result<Vec<Token>, Stop> {
        let at = |line| Position {
            file: self.names.name(file),
            line,
        };
        let Some((tokens, unclosed)) = lexer::tokens(text, file, MOST_TOKENS - self.tokens) else {
            let at = at(1);
            self.too_many_tokens(at);
            return Err(Stop);
        };
        if let Some(line) = unclosed {
            self.report.warn(Warning {
                at: at(line),
                plugin: None,
                message: "the quotation mark is never closed: the rest of the text is one word"
                    .to_owned(),
            });
        }
        self.tokens += tokens.len();
        Ok(tokens)
    }

    fn too_many_tokens(&mut self, at: Position) {
        let message = format!("with what it imports, the text has more than {MOST_TOKENS} words");
        self.error(at, ErrorKind::TooLarge, message);
    }

    /// The word with environment variables in their places.
    fn replaced(&mut self, token: &Token) -> Token {
        match variables::replaced(&token.text, self.sources) {
            Ok(None) => token.clone(),
            Ok(Some(text)) => Token {
                text: text.into(),
                ..token.clone()
            },
            Err(message) => {
                let at = self.names.position(token);
                self.error(at, ErrorKind::TooLarge, message);
                token.clone()
            }
        }
    }

    /// A server block or a snippet.
    fn one(&mut self) -> Result<(), Stop> {
        self.keys()?;
        if self.ended {
            return Ok(());
        }
        if let [key] = self.block.keys.as_slice()
            && let Some(name) = key.text.strip_prefix('(')
            && let Some(name) = name.strip_suffix(')')
        {
            let (name, at) = (Arc::from(name), self.names.position(key));
            self.block.keys.clear();
            return self.snippet(name, at);
        }
        self.contents()
    }

    /// The keys before a block.
    fn keys(&mut self) -> Result<(), Stop> {
        let mut another = false;
        loop {
            let token = self.current().cloned();
            let token = token.map(|token| self.replaced(&token));
            if let Some(token) = token {
                if &*token.text == "import" && self.starts_line() {
                    self.import()?;
                    continue;
                }
                if &*token.text == "{" {
                    if another {
                        let at = self.names.position(&token);
                        let message = "a comma says that another zone follows, but found \"{\"";
                        self.error(at, ErrorKind::Syntax, message);
                    }
                    return Ok(());
                }
                self.key(token, &mut another);
            }
            if !self.advance() {
                if another {
                    let at = self.position();
                    let message = "a comma says that another zone follows, but the text ends here";
                    self.error(at, ErrorKind::Syntax, message);
                }
                self.ended = true;
                return Ok(());
            }
            if !another && self.starts_line() {
                return Ok(());
            }
        }
    }

    fn key(&mut self, token: Token, another: &mut bool) {
        if token.text.is_empty() {
            return;
        }
        let (text, comma) = match token.text.strip_suffix(',') {
            Some(text) => (text.into(), true),
            None => (Arc::clone(&token.text), false),
        };
        *another = comma;
        self.block.keys.push(Token { text, ..token });
    }

    /// What is between the braces. Without braces the rest of the text is the block.
    fn contents(&mut self) -> Result<(), Stop> {
        let opened = self.is("{").then(|| self.position());
        if opened.is_none() {
            self.back();
        }
        while self.advance() {
            if self.is("}") {
                return Ok(());
            }
            if self.is("import") {
                self.import()?;
                self.back();
                continue;
            }
            self.plugin()?;
        }
        match opened {
            // CoreDNS looks at the last word only, which may have closed a plugin's block.
            Some(opened) if self.is("}") => {
                let message = format!("the server block opened at {opened} is closed by the end");
                self.report.warn(Warning {
                    at: self.position(),
                    plugin: None,
                    message,
                });
                Ok(())
            }
            Some(opened) => self.unclosed("server block", opened),
            None => Ok(()),
        }
    }

    fn unclosed(&mut self, what: &str, opened: Position) -> Result<(), Stop> {
        let at = self.position();
        let message = format!(
            "the text ends within the {what} whose brace is opened at {opened}: \"}}\" is missing"
        );
        self.error(at, ErrorKind::Syntax, message);
        Err(Stop)
    }

    /// One plugin's words: up to the end of the line, or of the braces opened on it.
    fn plugin(&mut self) -> Result<(), Stop> {
        let Some(raw) = self.current().cloned() else {
            return Ok(());
        };
        let word = self.replaced(&raw);
        let name = self.known(&word);
        let mut words = vec![raw];
        let mut open: Vec<Position> = Vec::new();
        while self.advance() {
            if self.is("{") {
                open.push(self.position());
            } else if self.starts_line() && open.is_empty() {
                self.back();
                break;
            } else if self.is("}") {
                if open.pop().is_none() {
                    let at = self.position();
                    let message = format!(
                        "\"}}\" on the line of {:?}, with no \"{{\" before it: it has to be on a \
                         line of its own",
                        word.text
                    );
                    self.error(at, ErrorKind::Syntax, message);
                    self.back();
                    break;
                }
            } else if self.is("import") && self.starts_line() {
                self.import()?;
                self.back();
                continue;
            }
            if let Some(token) = self.current().cloned() {
                let token = self.replaced(&token);
                if let Some(current) = self.after.last_mut() {
                    *current = token.clone();
                }
                words.push(token);
            }
        }
        if let Some(name) = name {
            self.block.plugins.entry(name).or_default().extend(words);
        }
        match open.pop() {
            Some(opened) => self.unclosed(&format!("block of {:?}", word.text), opened),
            None => Ok(()),
        }
    }

    /// The plugin of this name, if there is one that is supported; else the error is told.
    fn known(&mut self, word: &Token) -> Option<&'static str> {
        let known = plugins::known(&word.text);
        if let Some((name, Support::Yes)) = known {
            return Some(name);
        }
        if self.report.is_full() {
            return None;
        }
        let at = self.names.position(word);
        let name = word.text.to_string();
        match known {
            Some(_) => {
                let message = format!("the plugin {name:?} of CoreDNS is not supported");
                self.error(at, ErrorKind::UnsupportedPlugin(name), message);
            }
            None => {
                let hint = match plugins::removed(&name) {
                    Some(hint) => format!("; {hint}"),
                    None => self.report.hint(&name, &plugins::names()),
                };
                let message = match hint.as_str() {
                    "" if name.contains(['.', ':', '/']) => format!(
                        "unknown plugin {name:?}; if a server block starts here, the one before \
                         it has no \"}}\""
                    ),
                    "" if name == "{" => {
                        "found \"{\" where a plugin is expected; it has to be on the line of what \
                         it belongs to"
                            .to_owned()
                    }
                    hint => format!("unknown plugin {name:?}{hint}"),
                };
                self.error(at, ErrorKind::UnknownPlugin(name), message);
            }
        }
        None
    }
}
