//! Printing: tables and JSON to standard output, progress to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::{Table, presets};
use lab::cluster::Event;
use serde::Serialize;

/// Green, red, or as it is where standard output is no terminal.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// All is well.
    Good,
    /// Something is wrong.
    Bad,
}

/// A text in a tone, where the terminal shows it.
pub fn toned(text: &str, tone: Tone) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if !colours {
        return text.to_owned();
    }
    let code = match tone {
        Tone::Good => 32,
        Tone::Bad => 31,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Prints one JSON document.
pub fn json<T: Serialize>(value: &T) -> Result<(), String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    print(&format!("{text}\n"));
    Ok(())
}

/// Prints an aligned table without lines, as kubectl does.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    print(&lines.collect::<String>());
}

/// Prints; a reader that went away (`| head`) is no error.
pub fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Shows a command's steps on standard error as they happen.
pub struct Progress {
    terminal: bool,
    step: Mutex<&'static str>,
}

impl Progress {
    /// Rewrites its line on a terminal, prints one line a step elsewhere.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            step: Mutex::new(""),
        }
    }

    /// Takes one event.
    pub fn take(&self, event: Event) {
        let mut step = self
            .step
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut out = std::io::stderr().lock();
        let _ = match event {
            Event::Begin(what) => {
                *step = what;
                if self.terminal {
                    write!(out, "\r\u{1b}[K  {what} ...")
                } else {
                    Ok(())
                }
            }
            Event::Progress(words) if self.terminal => {
                write!(out, "\r\u{1b}[K  {} ... {words}", *step)
            }
            Event::Progress(_) => Ok(()),
            Event::Done(words, took) => {
                let start = if self.terminal {
                    "\r\u{1b}[K\u{1b}[32m✓\u{1b}[0m"
                } else {
                    "✓"
                };
                writeln!(out, "{start} {:<13} {words} ({})", *step, short(took))
            }
        };
        let _ = out.flush();
    }
}

/// A duration in a few characters.
pub fn short(took: Duration) -> String {
    if took < Duration::from_secs(1) {
        format!("{} ms", took.as_millis())
    } else {
        format!("{:.1} s", took.as_secs_f64())
    }
}
