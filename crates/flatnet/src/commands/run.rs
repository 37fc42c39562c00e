//! `kubectl` and `client`: another program takes this one's place.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::cluster::state;
use lab::paths::ClusterPaths;
use linux::NetNs;

use super::{Failure, Outcome};

/// Runs kubectl against the cluster.
pub fn kubectl(paths: &ClusterPaths, words: &[OsString]) -> Outcome {
    state::existing(paths)?;
    let Some(program) = find_kubectl() else {
        return Err(Failure::Failed(
            "kubectl is neither in PATH nor in .tools/bin of the project; `make setup` gets it, \
             or see https://kubernetes.io/docs/tasks/tools/"
                .into(),
        ));
    };
    let mut command = Command::new(&program);
    command.args(words).env("KUBECONFIG", paths.kubeconfig());
    replace(command, program.as_os_str())
}

/// kubectl in PATH, beside this program, or in the project's `.tools/bin` above it.
fn find_kubectl() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    if let Ok(program) = env::current_exe() {
        folders.extend(program.parent().map(Path::to_owned));
        folders.extend(
            program
                .ancestors()
                .skip(1)
                .map(|folder| folder.join(".tools/bin")),
        );
    }
    folders
        .into_iter()
        .map(|folder| folder.join("kubectl"))
        .find(|file| is_program(file))
}

/// Folders a shell must add to its PATH to find this program and kubectl by name.
pub fn folders_to_add() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let programs = [env::current_exe().ok(), find_kubectl()];
    not_on_path(&path, programs.iter().flatten().map(PathBuf::as_path))
}

/// The folders of those programs that are not found by name on `path`, each once.
fn not_on_path<'a>(path: &OsStr, programs: impl Iterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> = Vec::new();
    for program in programs {
        let (Some(folder), Some(name)) = (program.parent(), program.file_name()) else {
            continue;
        };
        let found = env::split_paths(path).any(|entry| is_program(&entry.join(name)));
        if !found && !missing.iter().any(|known| known == folder) {
            missing.push(folder.to_owned());
        }
    }
    missing
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a command in the client's namespace.
pub fn client(paths: &ClusterPaths, words: &[OsString]) -> Outcome {
    state::existing(paths)?;
    let Some((program, args)) = words.split_first() else {
        return Err(Failure::Usage(
            "give a command: flatnet client -- curl http://10.0.1.10:30080".into(),
        ));
    };
    let enter = NetNs::named(&paths.netns("client")).and_then(|netns| netns.enter());
    enter.map_err(|error| {
        Failure::Failed(format!(
            "{error}; flatnet up makes what is missing, as root"
        ))
    })?;
    let mut command = Command::new(program);
    command.args(args);
    replace(command, program)
}

fn replace(mut command: Command, program: &OsStr) -> Outcome {
    let error = command.exec();
    Err(Failure::Failed(format!("{}: {error}", program.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_programs_that_are_not_found_by_name_are_added() {
        let programs = ["/opt/x/flatnet", "/opt/x/kubectl", "/bin/sh"].map(Path::new);
        let missing = not_on_path(OsStr::new("/bin"), programs.into_iter());
        assert_eq!(missing, [PathBuf::from("/opt/x")]);
    }
}
