//! `dns query`: a name asked for as a pod would.

use ::trace::ends;
use dns::wire::Type;
use lab::cluster::state;
use lab::paths::ClusterPaths;

use super::super::{Failure, Outcome, runtime, trace};
use super::{Asker, Resolution, Step};
use crate::cli::{DnsQuery, Output};
use crate::output::{self, Tone, toned};

/// Prints each step and its answer; exit 1 where there is none.
pub fn query(paths: &ClusterPaths, words: &DnsQuery, output: Output) -> Outcome {
    let (place, port) =
        ends::parse(&words.from).map_err(|error| Failure::Usage(error.to_string()))?;
    if port.is_some() {
        return Err(Failure::Usage(format!(
            "--from {}: whoever asks has no port",
            words.from
        )));
    }
    let kind = Type::from_word(&words.kind).ok_or_else(|| {
        Failure::Usage(format!(
            "{}: not a type of records; A, AAAA, SRV, PTR, CNAME, TXT, MX, NS and SOA are the usual ones",
            words.kind
        ))
    })?;
    state::existing(paths)?;
    let (cluster, _) = runtime()?.block_on(trace::known(paths))?;
    let asker = Asker::find(paths, &place, &cluster)?;
    let name = reversed(&words.query, kind);
    let resolution = asker.resolve(&name, kind)?;
    if output == Output::Json {
        output::json(&resolution)?;
    } else {
        print(&resolution);
    }
    if resolution.found {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

/// PTR of an address means that of its name in the reverse zone, as `dig -x` has it.
fn reversed(text: &str, kind: Type) -> String {
    match text.parse() {
        Ok(ip) if kind == Type::PTR => dns::wire::Name::of_address(ip).to_string(),
        _ => text.to_owned(),
    }
}

fn print(resolution: &Resolution) {
    head(resolution);
    output::print("\n");
    steps(resolution);
    let tone = if resolution.found {
        Tone::Good
    } else {
        Tone::Bad
    };
    output::print(&format!("\n{}\n", toned(&verdict(resolution), tone)));
}

/// Who asks whom, and by which path.
pub fn head(resolution: &Resolution) {
    let search = if resolution.search.is_empty() {
        "no search path".into()
    } else {
        format!("search {}", resolution.search.join(" "))
    };
    output::print(&format!(
        "{} asks {}; {search}; ndots {}\n",
        resolution.from,
        resolution.servers.join(", "),
        resolution.ndots
    ));
}

/// The table of steps.
pub fn steps(resolution: &Resolution) {
    let rows = resolution.steps.iter().enumerate().map(|(number, step)| {
        vec![
            (number + 1).to_string(),
            format!("{} {}", step.name, step.kind),
            step.status.clone(),
            answers(step),
            step.by.clone().unwrap_or_else(|| step.server.clone()),
            format!("{:.2} ms", step.milliseconds),
        ]
    });
    output::table(
        &["", "QUESTION", "STATUS", "ANSWER", "BY", "TOOK"],
        rows.collect(),
    );
}

fn answers(step: &Step) -> String {
    let each = step.answers.iter().map(|answer| {
        if answer.kind == step.kind {
            answer.data.clone()
        } else {
            format!("{} {}", answer.kind, answer.data)
        }
    });
    let all: Vec<String> = each.collect();
    all.join("\n")
}

/// The outcome in a sentence.
pub fn verdict(resolution: &Resolution) -> String {
    let name = &resolution.name;
    let count = resolution.steps.len();
    let questions = if count == 1 { "question" } else { "questions" };
    let Some(last) = resolution.steps.last().filter(|_| resolution.found) else {
        return format!("{name} has no answer after {count} {questions}");
    };
    let asked = last
        .answers
        .iter()
        .filter(|answer| answer.kind == last.kind);
    let asked: Vec<&str> = asked.map(|answer| answer.data.as_str()).collect();
    format!("{name} is {}, after {count} {questions}", asked.join(", "))
}
