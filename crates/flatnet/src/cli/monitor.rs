//! `flatnet monitor`.

use clap::Args;
use jiff::SignedDuration;

/// `flatnet monitor`.
#[derive(Args, Debug)]
#[command(after_help = "\
Each connection that a NetworkPolicy or ClusterNetworkPolicy denies is one line, as it happens:
when, on which node, on which side, from whom to whom, and which policy decided. Ctrl-C ends it.
With -o json each line is a JSON document, also for further packets of the same connection
(\"again\": true), which the table leaves out.

Examples:
  flatnet monitor --drops
  flatnet monitor --drops -n shop --since 5m
  flatnet monitor --drops --pod shop/db-0 -o json
  flatnet monitor --drops --tail 100 --no-follow")]
pub struct Monitor {
    /// Only what was denied; so far that is all there is.
    #[arg(long)]
    pub drops: bool,
    /// Only connections from or to pods of this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only connections from or to this pod, NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Begin with the last N that happened before [default: 10, or all of --since].
    #[arg(long, value_name = "N")]
    pub tail: Option<usize>,
    /// Begin with what happened within this time: 90s, 5m, 1h.
    #[arg(long, value_name = "TIME")]
    pub since: Option<SignedDuration>,
    /// End behind what has happened, and do not wait for more.
    #[arg(long)]
    pub no_follow: bool,
}
