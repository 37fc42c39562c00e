//! `import`, and the snippets it may name.

use std::sync::Arc;

use super::{MOST_TOKENS, Parser, Stop};
use crate::corefile::Position;
use crate::corefile::lexer::Token;
use crate::corefile::problem::{ErrorKind, Warning};
use crate::corefile::reader::quoted;

/// The most imports of snippets; `CoreDNS` has the same bound.
const MOST_SNIPPETS: usize = 10_000;

/// The most imports of files.
const MOST_FILES: usize = 10_000;

/// The most bytes of all files.
const MOST_BYTES: usize = 16 << 20;

/// What was imported so far.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// Each import, by its number less one.
    frames: Vec<Frame>,
    snippets: usize,
    files: usize,
    bytes: usize,
}

/// One import.
#[derive(Debug)]
struct Frame {
    /// The import within which it stands; 0 is none.
    within: u32,
    what: Imported,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Imported {
    Snippet(Arc<str>),
    File(Arc<str>),
}

impl Imports {
    /// Notes an import that stands within another one. An import of what it stands in would
    /// never end: then the names on the way are told.
    fn enter(&mut self, within: u32, what: Imported) -> Result<u32, String> {
        let mut way = vec![name(&what)];
        let mut number = within;
        while let Some(frame) = self.frame(number) {
            way.push(name(&frame.what));
            if frame.what == what {
                way.reverse();
                return Err(format!("the import never ends: {}", way.join(" imports ")));
            }
            number = frame.within;
        }
        self.frames.push(Frame { within, what });
        Ok(u32::try_from(self.frames.len()).unwrap_or(u32::MAX))
    }

    fn frame(&self, number: u32) -> Option<&Frame> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.frames.get(index)
    }
}

fn name(what: &Imported) -> &str {
    match what {
        Imported::Snippet(name) | Imported::File(name) => name,
    }
}

impl Parser<'_> {
    /// Replaces the line of an `import`, whose first word is the current one, by what it
    /// imports; the current word is then the first of that. After an error it is replaced by
    /// nothing.
    pub(super) fn import(&mut self) -> Result<(), Stop> {
        let at = self.position();
        let Some(import) = self.after.pop() else {
            return Ok(());
        };
        let mut arguments: Vec<Token> = Vec::new();
        while let Some(next) = self.after.last()
            && arguments.last().unwrap_or(&import).is_beside(next)
        {
            arguments.extend(self.after.pop());
        }
        let [argument] = arguments.as_slice() else {
            let words: Vec<&str> = arguments.iter().map(|one| &*one.text).collect();
            let found = quoted(&words);
            let message = format!("import takes a file, a pattern or a snippet; found {found}");
            self.error(at, ErrorKind::Syntax, message);
            return Ok(());
        };
        let pattern = self.replaced(argument);
        if pattern.text.is_empty() {
            let message = "import takes a file, a pattern or a snippet; found an empty word";
            self.error(at, ErrorKind::Import, message);
            return Ok(());
        }
        let imported = match self.snippets.get(&pattern.text).cloned() {
            Some(tokens) => self.import_snippet(&pattern, &tokens, &at)?,
            None => self.import_files(&pattern, &at)?,
        };
        self.after.extend(imported.into_iter().rev());
        Ok(())
    }

    /// The words of a snippet, as if they stood where it is imported.
    fn import_snippet(
        &mut self,
        name: &Token,
        tokens: &[Token],
        at: &Position,
    ) -> Result<Vec<Token>, Stop> {
        self.imports.snippets += 1;
        if self.imports.snippets > MOST_SNIPPETS {
            let message = format!("more than {MOST_SNIPPETS} imports of snippets");
            self.error(at.clone(), ErrorKind::TooLarge, message);
            return Err(Stop);
        }
        let what = Imported::Snippet(Arc::clone(&name.text));
        let number = match self.imports.enter(name.import, what) {
            Ok(number) => number,
            Err(message) => {
                self.error(at.clone(), ErrorKind::Import, message);
                return Ok(Vec::new());
            }
        };
        self.tokens += tokens.len();
        if self.tokens > MOST_TOKENS {
            self.too_many_tokens(at.clone());
            return Err(Stop);
        }
        Ok(tokens
            .iter()
            .map(|token| Token {
                import: number,
                ..token.clone()
            })
            .collect())
    }

    /// The words of the files a pattern matches.
    fn import_files(&mut self, pattern: &Token, at: &Position) -> Result<Vec<Token>, Stop> {
        let path = beside(&self.names.name(pattern.file), &pattern.text);
        let count = |c: char| path.matches(c).count();
        if count('*') > 1 || count('?') > 1 || path.contains('[') {
            let message = format!(
                "the pattern {:?} has more than one wildcard: one * and one ? are taken, and no [",
                pattern.text
            );
            self.error(at.clone(), ErrorKind::Import, message);
            return Ok(Vec::new());
        }
        let found = match self.sources.matching(&path) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("cannot look for {path:?}: {error}");
                self.error(at.clone(), ErrorKind::Import, message);
                return Ok(Vec::new());
            }
        };
        if found.is_empty() {
            self.nothing_found(pattern, &path, at);
        }
        let mut tokens = Vec::new();
        for file in found {
            tokens.extend(self.import_file(&file, pattern, at)?);
        }
        Ok(tokens)
    }

    fn nothing_found(&mut self, pattern: &Token, path: &str, at: &Position) {
        let text = &pattern.text;
        if path.contains(['*', '?', ']']) {
            let message = format!("no file matches {text:?}: nothing is imported");
            self.report.warn(Warning {
                at: at.clone(),
                plugin: None,
                message,
            });
            return;
        }
        let snippets: Vec<&str> = self.snippets.keys().map(|name| &**name).collect();
        let message = format!(
            "{text:?} is neither a file (looked for at {path:?}) nor a snippet defined before \
             this line{}",
            self.report.hint(text, &snippets)
        );
        self.error(at.clone(), ErrorKind::Import, message);
    }

    fn import_file(
        &mut self,
        path: &str,
        pattern: &Token,
        at: &Position,
    ) -> Result<Vec<Token>, Stop> {
        self.imports.files += 1;
        if self.imports.files > MOST_FILES {
            let message = format!("more than {MOST_FILES} imports of files");
            self.error(at.clone(), ErrorKind::TooLarge, message);
            return Err(Stop);
        }
        let what = Imported::File(path.into());
        let number = match self.imports.enter(pattern.import, what) {
            Ok(number) => number,
            Err(message) => {
                self.error(at.clone(), ErrorKind::Import, message);
                return Ok(Vec::new());
            }
        };
        let left = MOST_BYTES - self.imports.bytes;
        let content = match self.sources.read(path, left + 1) {
            Ok(content) => content,
            Err(error) => {
                let message = format!("cannot import {path:?}: {error}");
                self.error(at.clone(), ErrorKind::Import, message);
                return Ok(Vec::new());
            }
        };
        if content.len() > left {
            let message = format!("the files imported have more than {MOST_BYTES} bytes");
            self.error(at.clone(), ErrorKind::TooLarge, message);
            return Err(Stop);
        }
        self.imports.bytes += content.len();
        let file = self.names.add(path);
        let mut tokens = self.lex(&String::from_utf8_lossy(&content), file)?;
        for token in &mut tokens {
            token.import = number;
        }
        Ok(tokens)
    }

    /// `(name) { ... }`: kept for later.
    pub(super) fn snippet(&mut self, name: Arc<str>, at: Position) -> Result<(), Stop> {
        let opened = self.position();
        if !self.is("{") {
            let found = self.current().map_or("", |token| &token.text).to_owned();
            let message = format!("the snippet ({name}) needs \"{{\" on its line; found {found:?}");
            self.error(opened, ErrorKind::Syntax, message);
            return Err(Stop);
        }
        let mut depth = 1;
        let mut tokens: Vec<Token> = Vec::new();
        while self.advance() {
            if self.is("}") {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            depth += usize::from(self.is("{"));
            tokens.extend(self.current().cloned());
        }
        if depth > 0 {
            return self.unclosed(&format!("snippet ({name})"), opened);
        }
        if self.imports_itself(&name, &tokens) {
            let message = format!("the import never ends: ({name}) imports itself");
            self.error(at.clone(), ErrorKind::Import, message);
            // It is known now, and who imports it does no more wrong.
            tokens.clear();
        }
        let message = format!("there is a snippet ({name}) already");
        if self.snippets.insert(name, tokens).is_some() {
            self.error(at, ErrorKind::Syntax, message);
        }
        Ok(())
    }

    fn imports_itself(&mut self, name: &str, tokens: &[Token]) -> bool {
        let starts_line = |index: usize| {
            index == 0 || {
                let (before, current) = (&tokens[index - 1], &tokens[index]);
                before.file != current.file || before.line != current.line
            }
        };
        (1..tokens.len()).any(|index| {
            &*tokens[index - 1].text == "import"
                && starts_line(index - 1)
                && *self.replaced(&tokens[index]).text == *name
        })
    }
}

/// A path beside a file, without `.` and `..` parts that can be left out.
fn beside(file: &str, path: &str) -> String {
    let folder = match file.rsplit_once('/') {
        Some(_) if path.starts_with('/') => "",
        Some((folder, _)) => folder,
        None => "",
    };
    let absolute = path.starts_with('/') || file.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    if absolute {
        format!("/{joined}")
    } else {
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn paths_are_relative_to_the_importing_file() {
        for (file, path, expected) in [
            ("Corefile", "zones/a", "zones/a"),
            (
                "/etc/coredns/Corefile",
                "custom/*.override",
                "/etc/coredns/custom/*.override",
            ),
            ("/etc/coredns/Corefile", "../x", "/etc/x"),
            ("/etc/coredns/Corefile", "/a/./b", "/a/b"),
            ("sub/Corefile", "../../x", "../x"),
            ("/Corefile", "../x", "/x"),
            ("sub/Corefile", "/x", "/x"),
        ] {
            assert_eq!(beside(file, path), expected, "{path} beside {file}");
        }
    }
}
