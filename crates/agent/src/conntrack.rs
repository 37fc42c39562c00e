//! The limits of connection tracking, as a KubeProxyConfiguration asks for them.

use std::fs;
use std::time::Duration;

use linux::Kernel;
use model::config::ConntrackConfig;
use tracing::{info, warn};

const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";

/// Raises what is lower; what may not be written here (the limit, in a child namespace) stays,
/// with a line in the log.
pub(crate) fn raise(kernel: &mut dyn Kernel, wanted: &ConntrackConfig, cores: u32) {
    let mut written = Vec::new();
    for (key, value) in settings(wanted, cores) {
        let key = format!("net/netfilter/{key}");
        match raise_one(kernel, &key, value) {
            Ok(true) => {
                info!(key, value, "connection tracking");
                written.push(key);
            }
            Ok(false) => {}
            Err(error) => warn!("connection tracking stays as it is: {error}"),
        }
    }
    // A table with long rows is slow: as kube-proxy, a row for four connections.
    if let Some(max) = wanted.max(cores)
        && written.iter().any(|key| key.ends_with("nf_conntrack_max"))
    {
        let rows = fs::read_to_string(HASH_SIZE);
        let rows = rows.ok().and_then(|rows| rows.trim().parse::<u32>().ok());
        if rows.is_some_and(|rows| rows < max / 4)
            && let Err(error) = fs::write(HASH_SIZE, (max / 4).to_string())
        {
            warn!("connection tracking keeps its number of rows: {HASH_SIZE}: {error}");
        }
    }
}

/// Names and values; without those that are to stay.
fn settings(wanted: &ConntrackConfig, cores: u32) -> Vec<(&'static str, u64)> {
    let seconds = |timeout: Duration| Some(timeout.as_secs()).filter(|seconds| *seconds > 0);
    [
        ("nf_conntrack_max", wanted.max(cores).map(u64::from)),
        (
            "nf_conntrack_tcp_timeout_established",
            seconds(wanted.tcp_established_timeout),
        ),
        (
            "nf_conntrack_tcp_timeout_close_wait",
            seconds(wanted.tcp_close_wait_timeout),
        ),
        (
            "nf_conntrack_tcp_be_liberal",
            wanted.tcp_be_liberal.then_some(1),
        ),
        ("nf_conntrack_udp_timeout", seconds(wanted.udp_timeout)),
        (
            "nf_conntrack_udp_timeout_stream",
            seconds(wanted.udp_stream_timeout),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// True where it was lower.
fn raise_one(kernel: &mut dyn Kernel, key: &str, value: u64) -> linux::Result<bool> {
    let have = kernel
        .sysctl(key)?
        .and_then(|text| text.parse::<u64>().ok());
    match have {
        // No such setting in this kernel or namespace.
        None => Ok(false),
        Some(have) if have >= value => Ok(false),
        Some(_) => kernel.set_sysctl(key, &value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::fake::Fake;

    #[test]
    fn values_are_raised_and_never_lowered() {
        let mut kernel = Fake::default();
        let key = |name: &str| format!("net/netfilter/nf_conntrack_{name}");
        for (name, value) in [
            ("tcp_timeout_established", "432000"),
            ("tcp_timeout_close_wait", "60"),
            ("udp_timeout", "30"),
            ("tcp_be_liberal", "0"),
        ] {
            kernel.sysctls.insert(key(name), value.into());
        }
        let wanted = ConntrackConfig {
            max_per_core: 0,
            udp_timeout: Duration::from_secs(45),
            tcp_be_liberal: true,
            ..ConntrackConfig::default()
        };
        raise(&mut kernel, &wanted, 2);
        let value = |name: &str| kernel.sysctls[&key(name)].as_str();
        assert_eq!(value("tcp_timeout_established"), "432000");
        assert_eq!(value("tcp_timeout_close_wait"), "3600");
        assert_eq!(value("udp_timeout"), "45");
        assert_eq!(value("tcp_be_liberal"), "1");
    }

    #[test]
    fn zero_leaves_the_limit_alone() {
        let all = settings(&ConntrackConfig::default(), 8);
        assert_eq!(all[0], ("nf_conntrack_max", 262_144));
        let none = ConntrackConfig {
            max_per_core: 0,
            ..ConntrackConfig::default()
        };
        assert!(
            settings(&none, 8)
                .iter()
                .all(|(key, _)| *key != "nf_conntrack_max")
        );
    }
}
