//! `up`, `down` and `env`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kube::core::DynamicObject;
use lab::cluster::spec::{Request, shown};
use lab::cluster::{down as ending, state};
use lab::paths::ClusterPaths;
use serde_json::json;

use super::{Failure, Outcome, on_site};
use crate::cli::{Down, Output, Up};
use crate::output;

/// Makes a cluster, then applies the manifests.
pub fn up(paths: ClusterPaths, up: &Up, output: Output) -> Outcome {
    let start = Instant::now();
    let request = Request {
        nodes: up.nodes,
        fabric: up.fabric,
        mtu: up.mtu,
        pod_mode: up.pod_mode,
        services: up.services,
        dual_stack: up.dual_stack,
        cluster_cidrs: up.cluster_cidr.clone(),
        service_cidrs: up.service_cidr.clone(),
        segments: up.subnets,
        api_port: up.api_port,
        resolv_conf: up.resolv_conf.as_deref().map(absolute).transpose()?,
    };
    // A manifest that cannot be read is found before a cluster is made.
    let objects = objects(&up.files)?;
    let kubeconfig = paths.kubeconfig();
    let outcome = on_site(paths, async |site| {
        let outcome = site.up(&request).await?;
        api::manifest::apply(&outcome.client, "flatnet", &objects, |applied| {
            let namespace = applied
                .namespace
                .as_deref()
                .map(|n| format!("{n}/"))
                .unwrap_or_default();
            eprintln!("  applied {} {namespace}{}", applied.kind, applied.name);
        })
        .await?;
        Ok(outcome)
    })?;
    let spec = &outcome.spec;
    if output == Output::Json {
        let nodes: Vec<&str> = spec.nodes.iter().map(|node| node.name.as_str()).collect();
        output::json(&json!({
            "name": spec.name,
            "created": outcome.fresh,
            "kubeconfig": kubeconfig,
            "server": format!("https://127.0.0.1:{}", spec.api_port),
            "nodes": nodes,
            "fabric": shown(&spec.fabric.mode),
            "services": shown(&spec.services.mode),
            "seconds": start.elapsed().as_secs_f64(),
        }))?;
        return Ok(());
    }
    let name = named(&spec.name);
    let nodes = spec.nodes.len();
    output::print(&format!(
        "cluster {}: {nodes} {} ready in {}, fabric {}, services {}\n  eval \"$(flatnet env{name})\"    then kubectl talks to it\n  flatnet check{name}           tries every path\n",
        spec.name,
        if nodes == 1 { "node" } else { "nodes" },
        output::short(start.elapsed()),
        shown(&spec.fabric.mode),
        shown(&spec.services.mode),
    ));
    Ok(())
}

/// The cluster's processes have another working folder.
fn absolute(file: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(file)
        .map_err(|error| Failure::Usage(format!("--resolv-conf {}: {error}", file.display())))
}

/// The objects of manifests.
pub fn objects(files: &[PathBuf]) -> Result<Vec<DynamicObject>, Failure> {
    let mut objects = Vec::new();
    for file in manifests(files)? {
        let (name, text) = (file.display().to_string(), read(&file)?);
        objects.extend(api::manifest::parse(&name, &text)?);
    }
    Ok(objects)
}

/// A folder stands for the manifests in it, as for kubectl.
fn manifests(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path)
            .map_err(|error| Failure::Usage(format!("--file {}: {error}", path.display())))?;
        let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        inside.retain(|file| {
            let ending = file.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("yaml" | "yml" | "json"))
        });
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::Usage(format!("--file {}: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    fs::read_to_string(file).map_err(failed)
}

/// The flag that names this cluster in a command, where it is needed.
pub fn named(name: &str) -> String {
    if name == "flatnet" {
        String::new()
    } else {
        format!(" --name {name}")
    }
}

/// Ends one cluster, or all.
pub fn down(paths: &ClusterPaths, down: &Down, output: Output) -> Outcome {
    let all = if down.all {
        state::clusters()
            .iter()
            .map(|name| ClusterPaths::new(name))
            .collect()
    } else {
        vec![paths.clone()]
    };
    let mut ended = Vec::new();
    let mut failures = Vec::new();
    for paths in &all {
        let start = Instant::now();
        match ending::down(paths) {
            Ok(true) => {
                eprintln!(
                    "✓ cluster {} is gone ({})",
                    paths.name,
                    output::short(start.elapsed())
                );
                ended.push(paths.name.clone());
            }
            Ok(false) => eprintln!("there is no cluster called {}; nothing to do", paths.name),
            Err(error) => failures.push(format!("cluster {}: {error}", paths.name)),
        }
    }
    if output == Output::Json {
        output::json(&json!({ "ended": ended }))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{}\nwhat could be removed is removed; run it again for the rest",
        failures.join("\n")
    )))
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Prints the lines for the shell: where the cluster is, and where the programs are that a shell
/// does not find by itself.
pub fn env(paths: &ClusterPaths, output: Output) -> Outcome {
    state::existing(paths)?;
    let kubeconfig = paths.kubeconfig();
    if output == Output::Json {
        output::json(&json!({ "KUBECONFIG": kubeconfig }))?;
    } else {
        let mut lines = format!("export KUBECONFIG={}\n", quoted(&kubeconfig));
        for folder in super::run::folders_to_add() {
            lines.push_str(&format!("export PATH={}:\"$PATH\"\n", quoted(&folder)));
        }
        output::print(&lines);
    }
    Ok(())
}
