//! What it costs to know a cluster's Services: `services KUBECONFIG` watches them until all have
//! been told, and prints how many, how long it took, the processor's time and the memory held.

use std::time::Instant;

use api::watch::{Update, What, changes};
use futures::StreamExt as _;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let kubeconfig = std::env::args()
        .nth(1)
        .ok_or("usage: services KUBECONFIG")?;
    let client = api::client(Some(kubeconfig.as_ref()), "example").await?;
    let before = (Instant::now(), cpu()?, resident()?);
    let mut cluster = model::Cluster::default();
    let mut updates = changes(&client, What::SERVICES);
    while let Some(update) = updates.next().await {
        match update {
            Update::Change(change) => {
                cluster.take(change);
            }
            Update::Synced => break,
            other => println!("{other:?}"),
        }
    }
    println!(
        "{} Services, {} slices: {:.2} s, {:.2} s of processor time, {} MiB more resident",
        cluster.services.len(),
        cluster.slices.len(),
        before.0.elapsed().as_secs_f64(),
        cpu()? - before.1,
        (resident()? - before.2) >> 10,
    );
    Ok(())
}

/// Seconds, own and the kernel's for this process.
fn cpu() -> std::io::Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    Ok(ticks / 100.0)
}

/// KiB.
fn resident() -> std::io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok(value.unwrap_or_default())
}
