//! The words of one plugin in one server block, read as `CoreDNS`'s dispenser reads them.
//!
//! What counts as an argument, and where a block starts and ends, is as there, word by word: an
//! argument is beside the word before it, a block opens on the line of what it belongs to, and
//! what an option leaves on its line is taken for the next option.

use super::blocks::FileNames;
use super::lexer::Token;
use super::problem::{Error, ErrorKind, Report, Warning};
use super::{Pattern, Position, Zone, zone};

/// What the plugins of a block know of it.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// The zones of the block.
    pub(super) zones: Vec<Zone>,
    /// The folder of relative file names.
    pub(super) root: Option<String>,
}

/// The words of one plugin.
pub(super) struct Reader<'a> {
    plugin: &'static str,
    tokens: &'a [Token],
    /// The number of words before the current one, plus one; 0 before the first.
    cursor: usize,
    nesting: u32,
    files: &'a FileNames,
    pub(super) block: &'a Surroundings,
    pub(super) report: &'a mut Report,
}

pub(super) type Result<T, E = Error> = std::result::Result<T, E>;

impl<'a> Reader<'a> {
    pub(super) fn new(
        plugin: &'static str,
        tokens: &'a [Token],
        files: &'a FileNames,
        block: &'a Surroundings,
        report: &'a mut Report,
    ) -> Self {
        Self {
            plugin,
            tokens,
            cursor: 0,
            nesting: 0,
            files,
            block,
            report,
        }
    }

    fn current(&self) -> Option<&'a Token> {
        self.cursor
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
    }

    fn next_token(&self) -> Option<&'a Token> {
        self.tokens.get(self.cursor)
    }

    /// The current word.
    pub(super) fn word(&self) -> &'a str {
        self.current().map_or("", |token| &token.text)
    }

    /// Where the current word is.
    pub(super) fn position(&self) -> Position {
        match self.current().or(self.tokens.first()) {
            Some(token) => self.files.position(token),
            None => Position {
                file: "".into(),
                line: 0,
            },
        }
    }

    /// Goes to the next word.
    pub(super) fn advance(&mut self) -> bool {
        let more = self.next_token().is_some();
        self.cursor += usize::from(more);
        more
    }

    /// Goes to the next word if it is on the same line.
    pub(super) fn next_arg(&mut self) -> Option<&'a str> {
        let beside = match (self.current(), self.next_token()) {
            (None, Some(_)) => true,
            (Some(current), Some(next)) => current.is_beside(next),
            (_, None) => false,
        };
        if !beside {
            return None;
        }
        self.cursor += 1;
        Some(self.word())
    }

    /// The rest of the line, up to an opening brace.
    pub(super) fn args(&mut self) -> Vec<&'a str> {
        let mut args = Vec::new();
        while let Some(arg) = self.next_arg() {
            if arg == "{" {
                self.cursor -= 1;
                break;
            }
            args.push(arg);
        }
        args
    }

    /// Goes to the next word within the block, if one is open or opens on this line.
    pub(super) fn next_in_block(&mut self) -> bool {
        if self.nesting > 0 {
            if !self.advance() {
                return false;
            }
            match self.word() {
                // A block within the block: opened below if it is on the line.
                "{" => self.cursor -= 1,
                "}" => {
                    self.nesting -= 1;
                    return false;
                }
                _ => return true,
            }
        }
        match self.next_arg() {
            None => return false,
            Some("{") => {}
            Some(_) => {
                self.cursor -= 1;
                return false;
            }
        }
        if !self.advance() || self.word() == "}" {
            return false;
        }
        self.nesting += 1;
        true
    }

    /// Each time the plugin is there: `each` starts at the plugin's name. After an error the
    /// next one is looked at.
    pub(super) fn each(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) {
        while self.advance() {
            let start = self.cursor;
            if let Err(error) = each(self) {
                let error = self.leftover(start).unwrap_or(error);
                self.report.error(error);
                self.skip_block();
            } else if self.leftover(start).is_some() {
                self.warn("words beyond what it takes are without effect");
            }
        }
    }

    /// A word that is read as the plugin's name but is what was left of the line or block before:
    /// its error, which says more than that of what it was read as.
    fn leftover(&self, start: usize) -> Option<Error> {
        let word = self.tokens.get(start.checked_sub(1)?)?;
        let before = self.tokens.get(start.checked_sub(2)?)?;
        let brace = matches!(&*word.text, "{" | "}");
        let left = brace || before.is_beside(word) || &*before.text == "{";
        left.then(|| Error {
            at: self.files.position(word),
            kind: ErrorKind::Plugin(self.plugin),
            message: format!("unexpected {:?} after {:?}", word.text, before.text),
        })
    }

    /// As [`Self::each`], of a plugin that may be there only once.
    pub(super) fn once(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) {
        let mut first = None;
        self.each(|reader| {
            if let Some(first) = &first {
                return Err(reader.error(format!(
                    "it may be there only once in a server block, and is at {first} already"
                )));
            }
            first = Some(reader.position());
            each(reader)
        });
    }

    /// As [`Self::each`], of a plugin of which `CoreDNS` reads only the first: the others are
    /// said to be without effect.
    pub(super) fn first(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) {
        if !self.advance() {
            return;
        }
        if let Err(error) = each(self) {
            self.report.error(error);
            self.skip_block();
        }
        if self.advance() {
            self.warn("it is there more than once in the server block: only the first one counts");
        }
    }

    /// Each option of the block: `option` starts at its name. After an error the next line is
    /// looked at.
    pub(super) fn options(&mut self, mut option: impl FnMut(&mut Self, &'a str) -> Result<()>) {
        while self.next_in_block() {
            let name = self.word();
            if let Err(error) = option(self, name) {
                self.report.error(error);
                self.skip_line();
            }
        }
    }

    /// Goes to the end of the line, with the blocks that open on it.
    fn skip_line(&mut self) {
        let mut depth = 0_usize;
        while let Some(next) = self.next_token() {
            let beside = self
                .current()
                .is_some_and(|current| current.is_beside(next));
            if depth == 0 && (!beside || &*next.text == "}") {
                return;
            }
            match &*next.text {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.cursor += 1;
        }
    }

    /// Goes to the end of what the plugin's name started.
    fn skip_block(&mut self) {
        let mut depth = std::mem::take(&mut self.nesting);
        while let Some(next) = self.next_token() {
            let beside = self
                .current()
                .is_some_and(|current| current.is_beside(next));
            match &*next.text {
                "{" => depth += 1,
                "}" => depth = depth.saturating_sub(1),
                _ if depth == 0 && !beside => return,
                _ => {}
            }
            self.cursor += 1;
        }
    }

    /// An error of this plugin, at the current word.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error {
            at: self.position(),
            kind: ErrorKind::Plugin(self.plugin),
            message: message.into(),
        }
    }

    /// An error of something that must be at the current word.
    pub(super) fn check<T>(&self, value: Result<T, String>) -> Result<T> {
        value.map_err(|message| self.error(message))
    }

    /// A warning of this plugin, at the current word.
    pub(super) fn warn(&mut self, message: impl Into<String>) {
        let warning = Warning {
            at: self.position(),
            plugin: Some(self.plugin),
            message: message.into(),
        };
        self.report.warn(warning);
    }

    /// The error of an option that is none.
    pub(super) fn unknown_option(&self, known: &[&str]) -> Error {
        let name = self.word();
        let before = self
            .cursor
            .checked_sub(2)
            .and_then(|at| self.tokens.get(at));
        let beside = match (before, self.current()) {
            (Some(before), Some(current)) => before.is_beside(current),
            _ => false,
        };
        if let Some(before) = before.filter(|before| beside && &*before.text != "{") {
            return self.error(format!("unexpected {name:?} after {:?}", before.text));
        }
        let hint = match self.report.hint(name, known) {
            hint if hint.is_empty() && known.is_empty() => "; it has no options".to_owned(),
            hint if hint.is_empty() => format!("; known: {}", known.join(", ")),
            hint => hint,
        };
        self.error(format!("unknown option {name:?}{hint}"))
    }

    /// The error of a value that is none of the known ones.
    pub(super) fn unknown_value(&self, what: &str, value: &str, known: &[&str]) -> Error {
        let hint = self.report.hint(value, known);
        let known = known.join(", ");
        self.error(format!("{value:?} is no {what}{hint} (known: {known})"))
    }

    /// What an error is about: the option at the current word, or the plugin itself.
    fn subject(&self) -> &'a str {
        match self.word() {
            word if word == self.plugin => "it",
            word => word,
        }
    }

    /// The rest of the line must be empty.
    pub(super) fn no_args(&mut self) -> Result<()> {
        let name = self.subject();
        let args = self.args();
        if args.is_empty() {
            return Ok(());
        }
        Err(self.error(format!("{name} takes nothing; found {}", quoted(&args))))
    }

    /// The rest of the line must be one word.
    pub(super) fn one_arg(&mut self, what: &str) -> Result<&'a str> {
        let name = self.subject();
        match self.args().as_slice() {
            [one] => Ok(one),
            args => Err(self.error(format!("{name} takes {what}; found {}", quoted(args)))),
        }
    }

    /// The rest of the line must be one word or more.
    pub(super) fn some_args(&mut self, what: &str) -> Result<Vec<&'a str>> {
        let name = self.subject();
        let args = self.args();
        if args.is_empty() {
            return Err(self.error(format!("{name} takes {what}; found nothing")));
        }
        Ok(args)
    }

    /// The next word on the line; what follows it is looked at as the next option.
    pub(super) fn value(&mut self, what: &str) -> Result<&'a str> {
        let name = self.subject();
        match self.next_arg() {
            Some(value) => Ok(value),
            None => Err(self.error(format!("{name} takes {what}; found nothing"))),
        }
    }

    /// Zones by name, or those of the block when there are none. What is no zone is left out, as
    /// `CoreDNS` does it.
    pub(super) fn zones(&mut self, args: &[&str]) -> Vec<Zone> {
        if !args.is_empty() {
            return self.named_zones(args);
        }
        match self.report.count_zones(self.block.zones.len()) {
            Ok(()) => self.block.zones.clone(),
            Err(message) => {
                self.too_large(message);
                Vec::new()
            }
        }
    }

    /// Zones by name. What is no zone is left out, as `CoreDNS` does it.
    pub(super) fn named_zones(&mut self, args: &[&str]) -> Vec<Zone> {
        let mut zones = Vec::new();
        for arg in args {
            if self.report.has_all_zones() {
                break;
            }
            match zone::zones(arg) {
                Ok(found) => match self.report.count_zones(found.len()) {
                    Ok(()) => zones.extend(found),
                    Err(message) => self.too_large(message),
                },
                Err(message) => self.warn(format!("{message}: it is left out")),
            }
        }
        zones
    }

    fn too_large(&mut self, message: String) {
        let error = Error {
            kind: ErrorKind::TooLarge,
            ..self.error(message)
        };
        self.report.error(error);
    }

    /// A regular expression.
    pub(super) fn pattern(&mut self, text: &str) -> Result<Pattern> {
        let pattern = self.report.pattern(text);
        self.check(pattern)
    }

    /// `fallthrough [ZONES...]`.
    pub(super) fn fallthrough(&mut self) -> Vec<Zone> {
        let args = self.args();
        if args.is_empty() {
            return vec![Zone::root()];
        }
        self.named_zones(&args)
    }

    /// A file name, beside the folder of `root`.
    pub(super) fn file(&self, name: &str) -> String {
        match self.block.root.as_deref() {
            Some(root) if !name.starts_with('/') && !root.is_empty() => {
                format!("{}/{name}", root.trim_end_matches('/'))
            }
            _ => name.to_owned(),
        }
    }
}

/// Words for an error.
pub(super) fn quoted(words: &[&str]) -> String {
    match words {
        [] => "nothing".to_owned(),
        words => {
            let words: Vec<String> = words
                .iter()
                .take(8)
                .map(|word| format!("{word:?}"))
                .collect();
            words.join(" ")
        }
    }
}
