//! `policy lint`: what is most likely not as it was meant.

use std::collections::BTreeSet;

use api::draft::Doing;
use lab::paths::ClusterPaths;
use policy::explain::{self, Finding, Severity, words};

use super::known::{Known, declared, drafted, known};
use crate::cli::{Lint, Output};
use crate::commands::cluster::objects;
use crate::commands::{Failure, Outcome, runtime};
use crate::output::{self, Tone, toned};

/// Prints findings; exit 1 where there are errors, or warnings with `--strict`.
pub fn lint(paths: &ClusterPaths, words: &Lint, output: Output) -> Outcome {
    let objects = objects(&words.files)?;
    let mut findings = runtime()?.block_on(async {
        let known = known(paths).await?;
        let declared = declared(&known.client).await?;
        if words.files.is_empty() {
            let mut findings = explain::lint(&known.cluster, &declared);
            findings.extend(broken(&known));
            return Ok::<_, Failure>(findings);
        }
        let (after, drafted) = drafted(&known, &objects, Doing::Judge).await?;
        let written: BTreeSet<(String, model::Key)> =
            drafted.into_iter().map(|one| (one.kind, one.key)).collect();
        let mut findings = explain::lint(&after, &declared);
        findings.retain(|one| written.contains(&(one.kind.to_owned(), one.object.clone())));
        Ok(findings)
    })?;
    findings.retain(|one| {
        words
            .namespace
            .as_ref()
            .is_none_or(|namespace| one.object.0 == *namespace)
    });
    findings.sort_by(|a, b| (a.severity, &a.object).cmp(&(b.severity, &b.object)));
    let has = |severity| findings.iter().any(|one| one.severity == severity);
    let bad = has(Severity::Error) || (words.strict && has(Severity::Warning));
    if output == Output::Json {
        output::json(&findings)?;
    } else {
        print(&findings);
    }
    if bad { Err(Failure::Said) } else { Ok(()) }
}

/// Policies of a foreign API server that agents do not understand.
fn broken(known: &Known) -> Vec<Finding> {
    let one = |(object, problem): &(String, String)| {
        let (kind, name) = object.split_once(' ')?;
        let kind = match kind {
            "NetworkPolicy" => "NetworkPolicy",
            "ClusterNetworkPolicy" => "ClusterNetworkPolicy",
            _ => return None,
        };
        let (namespace, name) = name.split_once('/').unwrap_or(("", name));
        let said = problem.strip_prefix(object.as_str()).unwrap_or(problem);
        let said = said.trim_start_matches(": ");
        let (field, message) = said.split_once(": ").unwrap_or(("spec", said));
        Some(Finding {
            severity: Severity::Error,
            code: "not-understood",
            kind,
            object: (namespace.to_owned(), name.to_owned()),
            field: field.to_owned(),
            message: message.to_owned(),
            cure: "correct the field; until then it closes what it is about".into(),
        })
    };
    known.bad.iter().filter_map(one).collect()
}

fn print(findings: &[Finding]) {
    for one in findings {
        let severity = match one.severity {
            Severity::Error => toned("error", Tone::Bad),
            Severity::Warning => toned("warning", Tone::Bad),
            Severity::Note => "note".into(),
        };
        output::print(&format!(
            "{severity}: {} {}: {}: {} ({})\n    {}\n",
            one.kind,
            words::key(&one.object),
            one.field,
            one.message,
            one.code,
            one.cure,
        ));
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|one| one.severity == severity)
            .count()
    };
    let (errors, warnings, notes) = (
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
    );
    output::print(&match findings.is_empty() {
        true => "nothing found\n".to_owned(),
        false => format!("{errors} errors, {warnings} warnings, {notes} notes\n"),
    });
}
