//! What can go wrong with a cluster, each with its next step.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::SpecError;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A flag is wrong; nothing was made.
    #[error("{0}")]
    Spec(#[from] SpecError),
    /// The machine lacks something; nothing was made.
    #[error("{}", lacks(.0))]
    Machine(Vec<Lack>),
    /// There is no cluster of that name.
    #[error("there is no cluster called {name}{}; make it with: flatnet up --name {name}", but_there_is(.others))]
    NoCluster {
        /// The name asked for.
        name: String,
        /// The clusters there are.
        others: Vec<String>,
    },
    /// There is no node of that name.
    #[error("cluster {cluster} has no node called {name}; it has {}", .nodes.join(", "))]
    NoNode {
        /// The cluster.
        cluster: String,
        /// The name asked for.
        name: String,
        /// The nodes there are.
        nodes: Vec<String>,
    },
    /// A node that is stopped has no cable.
    #[error("{0} is off; start it with: flatnet node start {0}")]
    Off(String),
    /// A file or folder.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was tried: `write`, `make`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file's content.
    #[error("{}: {message}", path.display())]
    Content {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The kernel refused something.
    #[error("{what}: {message}")]
    Kernel {
        /// What was tried, with the object's name.
        what: String,
        /// Why not.
        message: String,
    },
    /// The Kubernetes API refused something or is away.
    #[error("{what}: {message}")]
    Api {
        /// What was tried, with the object's name.
        what: String,
        /// Why not.
        message: String,
    },
    /// Something did not become ready; with the ends of the logs that tell why.
    #[error("{what}{}\n  `flatnet up` tries again, `flatnet down` clears the cluster away", tails(.logs))]
    NotReady {
        /// What, and how it stands.
        what: String,
        /// Log files and their last lines.
        logs: Vec<(PathBuf, Vec<String>)>,
    },
    /// Several things went wrong and none stopped the others.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

/// One capability the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What is missing.
    pub what: String,
    /// How that showed.
    pub cause: String,
    /// What to do.
    pub next: String,
}

fn lacks(all: &[Lack]) -> String {
    let mut text = String::from("this machine cannot run a cluster:");
    for lack in all {
        let _ = write!(text, "\n  {}: {}; {}", lack.what, lack.cause, lack.next);
    }
    text
}

fn but_there_is(all: &[String]) -> String {
    if all.is_empty() {
        String::new()
    } else {
        format!(" (there is {})", all.join(", "))
    }
}

fn tails(logs: &[(PathBuf, Vec<String>)]) -> String {
    let mut text = String::new();
    for (path, lines) in logs {
        let _ = write!(text, "\n  {} ends with:", path.display());
        if lines.is_empty() {
            text.push_str("\n    (nothing)");
        }
        for line in lines {
            let _ = write!(text, "\n    {line}");
        }
    }
    text
}

impl Error {
    /// A kernel error, named.
    pub fn kernel(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Kernel {
            what: what.into(),
            message: why.to_string(),
        }
    }

    /// An API error, named.
    pub fn api(what: impl Into<String>, why: impl ToString) -> Self {
        Self::Api {
            what: what.into(),
            message: why.to_string(),
        }
    }

    /// One error of many, or nothing.
    pub fn collect(mut all: Vec<Self>) -> Result<()> {
        match all.len() {
            0 => Ok(()),
            1 => Err(all.remove(0)),
            _ => Err(Self::Several(all)),
        }
    }

    /// True where the command line, not the machine, is to be changed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Spec(_) | Self::NoCluster { .. } | Self::NoNode { .. }
        )
    }
}

/// Puts a path and a verb to an I/O error.
pub fn at<T>(what: &'static str, path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::File {
        what,
        path: path.to_owned(),
        source,
    })
}
