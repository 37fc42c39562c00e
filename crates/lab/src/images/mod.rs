//! The built-in image table: which program stands for which image. There is no registry:
//! a well-known image is a program of this binary or of the machine that behaves like it.

use std::io;
use std::path::{Path, PathBuf};

use crate::shim::Mount;

/// The programs of one machine, laid out for containers.
#[derive(Clone, Debug)]
pub struct Images {
    folder: PathBuf,
}

/// What to run for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The image's own environment, PATH included; the pod's overrides it by name.
    pub env: Vec<(String, String)>,
    /// Mounts the program needs, to go before the pod's own.
    pub mounts: Vec<Mount>,
    /// Links the program needs (`ContainerSpec::links`).
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Where the image is unknown and gave no program: the sentence for an Event on the pod.
    pub note: Option<String>,
}

impl Images {
    /// Lays out the programs in `folder` (made where missing), for `program`, the flatnet
    /// binary. Safe to repeat, also while containers run.
    pub fn prepare(folder: &Path, program: &Path) -> io::Result<Self> {
        let _ = program;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// The program for an image: `command` and `args` are the container's, already
    /// expanded, and override the image's as Kubernetes says; `ports` its containerPorts.
    pub fn resolve(
        &self,
        image: &str,
        command: &[String],
        args: &[String],
        ports: &[u16],
    ) -> Program {
        let _ = (&self.folder, image, ports);
        let argv = command.iter().chain(args).cloned().collect();
        Program {
            argv,
            ..Program::default()
        }
    }
}

/// `flatnet lab image NAME ARGS`: runs a built-in program to its end.
pub fn main(name: &str, args: &[String]) -> i32 {
    let _ = (name, args);
    127
}

/// The name of the built-in program a container's path leads to.
pub(crate) fn built_in(path: &Path) -> Option<&str> {
    path.strip_prefix(FOLDER).ok()?.to_str()
}

/// Debian's package of a program.
pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    let _ = program;
    None
}

/// Where containers find the built-in programs.
const FOLDER: &str = "/usr/lib/flatnet/images";
