//! The shape of the code, held by tests: floors, pure rooms, file sizes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Every crate with its floor: a crate uses crates of lower floors only.
const FLOORS: &[(u8, &[&str])] = &[
    (1, &["model", "nft"]),
    (2, &["linux", "objects", "api"]),
    (
        3,
        &[
            "pods", "fabric", "services", "policy", "dns", "certs", "flows", "testing",
        ],
    ),
    (4, &["agent", "controller", "trace"]),
    (5, &["apiserver", "lab"]),
    (6, &["flatnet", "cni"]),
];

/// Crates that may use nothing but these outside the workspace.
const SLIM: &[(&str, &[&str])] = &[
    ("model", &["serde", "ipnet", "imbl"]),
    ("nft", &["serde", "ipnet"]),
    // The plugin starts for each pod: what it carries is paid thousands of times.
    ("cni", &["serde", "serde_json"]),
];

/// Rooms that take values and give values, wherever they stand.
const PURE_ROOMS: &[&str] = &["plan", "render", "explain"];

/// What a pure room may not touch.
const IO: &[&str] = &[
    "tokio",
    "kube::",
    "std::fs",
    "std::process",
    "std::net::TcpStream",
    "Kernel",
    "SystemTime::now",
    "Instant::now",
];

/// The longest a source file may get.
const MOST_LINES: usize = 600;

fn crates_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn crate_names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(crates_dir())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The names under `[dependencies]` of a crate's manifest (not of its tests).
fn dependencies(name: &str) -> Vec<String> {
    let manifest = fs::read_to_string(crates_dir().join(name).join("Cargo.toml")).unwrap();
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|dependency| !dependency.is_empty() && !dependency.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_use_lower_floors_only() {
    let floor: BTreeMap<&str, u8> = FLOORS
        .iter()
        .flat_map(|(floor, names)| names.iter().map(move |name| (*name, *floor)))
        .collect();
    let mut wrong = Vec::new();
    for name in crate_names() {
        let Some(mine) = floor.get(name.as_str()) else {
            wrong.push(format!(
                "{name} has no floor: add it to FLOORS and to ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in dependencies(&name) {
            if floor
                .get(dependency.as_str())
                .is_some_and(|theirs| theirs >= mine)
            {
                wrong.push(format!("{name} (floor {mine}) uses {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn slim_crates_stay_slim() {
    let ours = crate_names();
    for (name, allowed) in SLIM {
        for dependency in dependencies(name) {
            assert!(
                allowed.contains(&dependency.as_str()) || ours.contains(&dependency),
                "{name} uses {dependency}; it may use only {allowed:?} and crates of lower floors"
            );
        }
    }
}

#[test]
fn pure_rooms_do_no_io() {
    let mut wrong = Vec::new();
    for name in crate_names() {
        let mut files = Vec::new();
        sources(&crates_dir().join(&name).join("src"), &mut files);
        for file in files.iter().filter(|file| is_pure_room(file)) {
            let text = fs::read_to_string(file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for line in code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                if let Some(word) = IO.iter().find(|word| line.contains(**word)) {
                    wrong.push(format!("{}: {word} in: {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_pure_room(file: &Path) -> bool {
    // Where the checkout stands is nobody's business: its folder may be called as a room is.
    let file = file.strip_prefix(crates_dir()).unwrap();
    file.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        PURE_ROOMS.contains(&part.trim_end_matches(".rs"))
    })
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for name in crate_names() {
        let mut files = Vec::new();
        sources(&crates_dir().join(&name), &mut files);
        for file in files {
            let lines = fs::read_to_string(&file).unwrap().lines().count();
            if lines > MOST_LINES {
                long.push(format!(
                    "{} has {lines} lines: which rooms are hiding in it?",
                    file.display()
                ));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}
