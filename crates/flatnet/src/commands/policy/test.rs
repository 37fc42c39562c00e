//! `policy test`: what manifests would open and close.

use api::draft::{Doing, Drafted};
use lab::paths::ClusterPaths;
use policy::explain::{self, Changed, Difference, words};
use serde::Serialize;

use super::known::{drafted, known};
use crate::cli::{Output, Test};
use crate::commands::cluster::objects;
use crate::commands::{Failure, Outcome, runtime};
use crate::output::{self, Tone, toned};

/// What is printed as JSON.
#[derive(Serialize)]
struct Shown {
    objects: Vec<Object>,
    #[serde(flatten)]
    difference: Difference,
}

#[derive(Serialize)]
struct Object {
    kind: String,
    object: model::Key,
    becomes: &'static str,
}

/// Prints what would change; exit 1 where anything would, 2 where it cannot be told.
pub fn test(paths: &ClusterPaths, words: &Test, output: Output) -> Outcome {
    // 1 says that something changes, so what fails has to be 2, as with kubectl diff.
    let told = |failure| match failure {
        Failure::Failed(text) => Failure::Usage(text),
        other => other,
    };
    let objects = objects(&words.files).map_err(told)?;
    let doing = match words.delete {
        true => Doing::Delete,
        false => Doing::Apply,
    };
    let (before, after, drafted) = runtime()
        .map_err(told)?
        .block_on(async {
            let known = known(paths).await?;
            let (after, drafted) = drafted(&known, &objects, doing).await?;
            Ok((known.cluster, after, drafted))
        })
        .map_err(told)?;
    let difference = explain::difference(&before, &after);
    let nothing = difference.is_nothing();
    if output == Output::Json {
        let objects = drafted.into_iter().map(|one| Object {
            kind: one.kind,
            object: one.key,
            becomes: one.becomes,
        });
        let objects = objects.collect();
        output::json(&Shown {
            objects,
            difference,
        })
        .map_err(Failure::Usage)?;
    } else {
        print(&drafted, &difference);
    }
    if nothing { Ok(()) } else { Err(Failure::Said) }
}

fn print(drafted: &[Drafted], difference: &Difference) {
    for one in drafted {
        let (kind, object) = (&one.kind, words::key(&one.key));
        let says = match one.becomes {
            "ignored" => "passed over: policies have nothing to do with it",
            "absent" => "is not there",
            "unchanged" => "unchanged",
            becomes => &format!("would be {becomes}"),
        };
        output::print(&format!("{kind} {object}: {says}\n"));
    }
    for (what, pods) in [("new", &difference.new), ("gone", &difference.gone)] {
        if !pods.is_empty() {
            output::print(&format!("{what}: {}\n", words::list(pods)));
        }
    }
    if difference.is_nothing() {
        output::print("\nnobody reaches more or less than before\n");
        return;
    }
    for (title, changed, tone) in [
        ("Opened", &difference.opened, Tone::Good),
        ("Closed", &difference.closed, Tone::Bad),
    ] {
        if !changed.is_empty() {
            output::print(&format!("\n{}\n", toned(title, tone)));
            output::table(&["FROM", "TO", "PORTS"], changed.iter().map(row).collect());
        }
    }
}

fn row(one: &Changed) -> Vec<String> {
    vec![one.from.clone(), one.to.clone(), one.ports.to_string()]
}
