//! Corefiles as people write them, right and wrong.

mod accepted;
mod bounds;
mod language;
mod plugins;
mod wrong;

use std::collections::BTreeMap;
use std::io;

use super::{Corefile, Error, Plugins, Sources, Warning, parse};

/// Files and variables that only a test knows.
#[derive(Default)]
struct Given {
    files: BTreeMap<&'static str, String>,
    variables: BTreeMap<&'static str, String>,
}

impl Given {
    fn files<const N: usize>(files: [(&'static str, &str); N]) -> Self {
        Self {
            files: files.map(|(name, text)| (name, text.to_owned())).into(),
            ..Self::default()
        }
    }
}

impl Sources for Given {
    fn variable(&self, name: &str) -> String {
        self.variables.get(name).cloned().unwrap_or_default()
    }

    fn matching(&self, pattern: &str) -> io::Result<Vec<String>> {
        let (start, end) = pattern.split_once('*').unwrap_or((pattern, ""));
        let star = pattern.contains('*');
        let fits = |name: &&&str| {
            name.starts_with(start) && name.ends_with(end) && (star || **name == start)
        };
        Ok(self
            .files
            .keys()
            .filter(fits)
            .map(|name| (*name).to_owned())
            .collect())
    }

    fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let text = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(text.bytes().take(limit).collect())
    }
}

fn read(text: &str) -> Result<(Corefile, Vec<Warning>), Vec<Error>> {
    parse("Corefile", text, 53, &Given::default())
}

fn accepted(text: &str) -> Corefile {
    match read(text) {
        Ok((corefile, _)) => corefile,
        Err(errors) => panic!("{text}\n{}", shown(&errors)),
    }
}

/// The plugins of a block with these lines.
fn plugins(lines: &str) -> Plugins {
    let mut corefile = accepted(&format!("example.org {{\n{lines}\n}}\n"));
    corefile.servers.remove(0).plugins
}

/// The warnings about a block with these lines.
fn warnings(lines: &str) -> String {
    let (_, warnings) = read(&format!("example.org {{\n{lines}\n}}\n")).unwrap();
    let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn shown(errors: &[Error]) -> String {
    let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The parts of a file of cases: what follows `=== `, and the lines up to the next one.
fn cases(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let parts = text.split("=== ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap())
}
