//! `flatnet policy`: what can be asked about NetworkPolicies.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `flatnet policy`.
#[derive(Subcommand, Debug)]
#[command(after_help = "\
Nothing here changes the cluster. Whether one connection passes, and by which rule:
  flatnet trace pod/shop/web pod/shop/api:8080

Examples:
  flatnet policy list pod/shop/api        which policies are about it, and what that comes to
  flatnet policy matrix -n shop           who reaches whom on which port
  flatnet policy test -f deny-all.yaml    what would close if it were applied
  flatnet policy lint                     what people most often get wrong")]
pub enum Policy {
    /// Which policies are about a pod, tier by tier, and what each direction comes to.
    List(List),
    /// Who reaches whom on which port.
    Matrix(Matrix),
    /// What would open and close if manifests were applied; nothing is applied.
    Test(Test),
    /// What is most likely not as it was meant: in the cluster's policies, or in files.
    Lint(Lint),
}

/// `flatnet policy list`.
#[derive(Args, Debug)]
#[command(after_help = "\
A pod that no policy selects is open. One that a NetworkPolicy selects for a direction is closed
there, but for what the rules of all such policies allow together. ClusterNetworkPolicies of tier
Admin are asked before, those of tier Baseline where no NetworkPolicy is about the pod.

Examples:
  flatnet policy list                     every policy, and how many pods it is about
  flatnet policy list pod/shop/api        those that are about a pod, with their rules
  flatnet policy list 10.244.1.5")]
pub struct List {
    /// The pod: pod/NAME, pod/NAMESPACE/NAME, or its address [default: all policies].
    pub pod: Option<String>,
}

/// `flatnet policy matrix`.
#[derive(Args, Debug)]
#[command(after_help = "\
Each line says who reaches a group of pods on some of its ports. Pods that no policy tells apart
are one group; ports are those that pods declare and that policies speak of, and `all other`.
What comes from outside is told apart by the address ranges of the policies. Left out, because it
is always so: a pod reaches itself, and is reached from the node it is on.")]
pub struct Matrix {
    /// Only what pods of this namespace reach, and are reached by [default: all].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// `flatnet policy test`.
#[derive(Args, Debug)]
#[command(after_help = "\
Manifests may have NetworkPolicies, ClusterNetworkPolicies, Namespaces (their labels) and Pods;
other kinds are passed over. The API server is asked to validate each (dryRun): one that it
refuses is named with its field.

Exit code, as that of kubectl diff: 0 nobody reaches more or less than before, 1 something opens
or closes, 2 it cannot be told.

Examples:
  flatnet policy test -f deny-all.yaml
  flatnet policy test -f allow.yaml -f labels.yaml
  flatnet policy test --delete -f deny-all.yaml
  cat policy.yaml | flatnet policy test -f -")]
pub struct Test {
    /// Manifests: a file, a folder, or - for standard input.
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// What would change if they were deleted.
    #[arg(long)]
    pub delete: bool,
}

/// `flatnet policy lint`.
#[derive(Args, Debug)]
#[command(after_help = "\
Findings are errors (not understood, so it closes), warnings (most likely not what was meant) and
notes (good to know). Exit code 1 where there are errors, with --strict also where there are
warnings; 2 where the API server refuses a manifest.

Examples:
  flatnet policy lint
  flatnet policy lint -n shop --strict
  flatnet policy lint -f policy.yaml      before it is applied, against the cluster as it is")]
pub struct Lint {
    /// Manifests whose policies are to be held against the cluster: a file, a folder, or -.
    #[arg(short, long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only policies of this namespace [default: all].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Exit code 1 for warnings too.
    #[arg(long)]
    pub strict: bool,
}
