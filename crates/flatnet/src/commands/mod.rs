//! What each command does.

mod check;
mod cluster;
mod daemons;
mod dns;
pub mod lab;
mod monitor;
mod names;
mod node;
mod policy;
mod run;
mod show;
mod status;
mod trace;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use ::lab::cluster::{Site, up};
use ::lab::paths::ClusterPaths;

use crate::cli::{Cli, Command};
use crate::output::Progress;

/// Why a command did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// The sentence for the user; exit code 1.
    Failed(String),
    /// The command line is to be changed; exit code 2.
    Usage(String),
    /// All was printed already; exit code 1.
    Said,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(text) | Self::Usage(text) => f.write_str(text),
            Self::Said => Ok(()),
        }
    }
}

impl From<::lab::cluster::Error> for Failure {
    fn from(error: ::lab::cluster::Error) -> Self {
        if error.is_usage() {
            Self::Usage(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<String> for Failure {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

impl From<api::Error> for Failure {
    fn from(error: api::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a command returns.
pub type Outcome = Result<(), Failure>;

/// Runs the command and gives its exit code.
pub fn run(cli: Cli) -> ExitCode {
    if let Err(error) = ::lab::cluster::check::check_name("--name", &cli.name, 20) {
        return failed(Failure::Usage(error.to_string()));
    }
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(failure),
    }
}

fn failed(failure: Failure) -> ExitCode {
    let (text, code) = match failure {
        Failure::Failed(text) => (text, 1),
        Failure::Usage(text) => (text, 2),
        Failure::Said => return ExitCode::from(1),
    };
    let mut out = std::io::stderr().lock();
    let word = if out.is_terminal() {
        "\r\u{1b}[K\u{1b}[31merror:\u{1b}[0m"
    } else {
        "error:"
    };
    let _ = writeln!(out, "{word} {text}");
    ExitCode::from(code)
}

fn dispatch(cli: Cli) -> Outcome {
    let paths = ClusterPaths::new(&cli.name);
    let output = cli.output;
    if needs_root(&cli.command) && !nix::unistd::geteuid().is_root() {
        // Where there is no cluster, that is the better answer.
        ::lab::cluster::state::existing(&paths)?;
        return Err(Failure::Failed(
            "network namespaces and cgroups need root; run it with sudo".into(),
        ));
    }
    match cli.command {
        Command::Up(up) => cluster::up(paths, &up, output),
        Command::Down(down) => cluster::down(&paths, &down, output),
        Command::Env => cluster::env(&paths, output),
        Command::Kubectl(words) => run::kubectl(&paths, &words.words),
        Command::Client(words) => run::client(&paths, &words.words),
        Command::Status => status::status(&paths, output),
        Command::Node { action } => node::node(paths, action, output),
        Command::Check(check) => check::check(&paths, &check, output),
        Command::Trace(trace) => trace::trace(&paths, &trace, output),
        Command::Monitor(monitor) => monitor::monitor(&paths, &monitor, output),
        Command::Policy { what } => policy::policy(&paths, &what, output),
        Command::Show { what } => show::show(&paths, &what, output),
        Command::Agent(agent) => daemons::agent(agent),
        Command::Dns(words) => dns::dns(&paths, *words, output),
        Command::Controller(controller) => daemons::controller(controller),
        Command::Lab { part } => lab::part(&paths, part),
    }
}

/// Commands that enter or change what only root may.
fn needs_root(command: &Command) -> bool {
    use Command::{Check, Client, Down, Monitor, Node, Show};
    matches!(
        command,
        Check(_) | Client(_) | Down(_) | Monitor(_) | Node { .. } | Show { .. }
    )
}

/// A runtime for commands that talk to the API.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    built.map_err(|error| Failure::Failed(format!("start the runtime: {error}")))
}

/// Runs `work` with the cluster's site, its steps shown on standard error.
fn on_site<T>(
    paths: ClusterPaths,
    work: impl AsyncFnOnce(&Site<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let progress = Progress::new();
    let report = |event| progress.take(event);
    let site = Site {
        paths,
        programs: up::programs()?,
        report: &report,
    };
    runtime()?.block_on(work(&site))
}
