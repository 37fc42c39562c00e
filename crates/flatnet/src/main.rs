//! Command line and wiring only.

mod cli;
mod commands;
mod output;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    // Started once a pod and once a container: they skip building the command line.
    if words.get(1).is_some_and(|word| word == "lab")
        && let Some(code) = commands::lab::quick(&words[2..])
    {
        return code;
    }
    commands::run(cli::Cli::parse_from(cli::two_dashes(words)))
}
