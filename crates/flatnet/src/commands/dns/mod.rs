//! `dns`: the server, in CoreDNS's place.

mod log;
mod server;

use std::path::{Path, PathBuf};

use ::agent::standalone::{self, Wanted};
use ::dns::corefile::{self, Corefile, Error, ErrorKind, Position, files::Files};
use lab::paths::ClusterPaths;

use super::{Failure, Outcome, names, runtime};
use crate::cli::{Dns, DnsCommand, DnsServe, Output};
use crate::output;

/// Serves, or asks.
pub fn dns(paths: &ClusterPaths, words: Dns, output: Output) -> Outcome {
    match words.what {
        Some(DnsCommand::Query(query)) => names::query::query(paths, &query, output),
        None => serve(&words.serve),
    }
}

fn serve(words: &DnsServe) -> Outcome {
    if words.version {
        output::print(&format!("flatnet dns {}\n", env!("CARGO_PKG_VERSION")));
        return Ok(());
    }
    if words.plugins {
        for name in corefile::plugins::SUPPORTED {
            output::print(&format!("{name}\n"));
        }
        return Ok(());
    }
    log::start();
    let source = Source::new(words)?;
    let corefile = source.read().map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::Failed(lines.join("\n"))
    })?;
    if let Some(file) = &words.pidfile {
        std::fs::write(file, format!("{}\n", std::process::id()))
            .map_err(|error| Failure::Failed(format!("write {}: {error}", file.display())))?;
    }
    let runtime = runtime()?;
    let ended = runtime.block_on(server::run(&source, corefile, words));
    if let Some(file) = &words.pidfile {
        let _ = std::fs::remove_file(file);
    }
    runtime.shutdown_background();
    ended
}

/// Where the Corefile is.
struct Source {
    name: String,
    /// What came from standard input, which cannot be read twice.
    given: Option<String>,
    port: u16,
    kubeconfig: Option<PathBuf>,
}

impl Source {
    fn new(words: &DnsServe) -> Result<Self, Failure> {
        let given = if words.conf == Path::new("stdin") {
            let text = std::io::read_to_string(std::io::stdin());
            Some(text.map_err(|error| Failure::Failed(format!("read standard input: {error}")))?)
        } else {
            None
        };
        Ok(Self {
            name: words.conf.display().to_string(),
            given,
            port: words.port,
            kubeconfig: words.kubeconfig.clone(),
        })
    }

    /// The cluster that a Corefile is about.
    fn wanted(&self, corefile: &Corefile) -> Result<Option<Wanted>, Error> {
        standalone::wanted(corefile, self.kubeconfig.as_ref())
    }

    /// The Corefile as it is now, or all that is wrong with it.
    fn read(&self) -> Result<Corefile, Vec<Error>> {
        let text = match &self.given {
            Some(text) => text.clone(),
            None => std::fs::read_to_string(&self.name).map_err(|error| vec![self.gone(&error)])?,
        };
        let (corefile, warnings) = corefile::parse(&self.name, &text, self.port, &Files)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(corefile)
    }

    fn gone(&self, error: &std::io::Error) -> Error {
        let at = Position {
            file: self.name.as_str().into(),
            line: 1,
        };
        Error {
            at,
            kind: ErrorKind::Import,
            message: format!("{error}; --conf FILE names another Corefile"),
        }
    }
}
