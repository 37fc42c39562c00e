//! What any process tells of itself.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Reads `/proc/self` when it is asked.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(usage) = Usage::read() else {
            return Ok(());
        };
        encoder
            .encode_descriptor(
                "process_cpu_seconds",
                "Total user and system CPU time spent in seconds",
                None,
                MetricType::Counter,
            )?
            .encode_counter::<NoLabelSet, f64, f64>(&usage.cpu, None)?;
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory size in bytes",
                usage.resident,
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes",
                usage.size,
            ),
            (
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds",
                usage.start,
            ),
            (
                "process_open_fds",
                "Number of open file descriptors",
                usage.open,
            ),
            (
                "process_max_fds",
                "Maximum number of open file descriptors",
                usage.most,
            ),
        ] {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&value)?;
        }
        Ok(())
    }
}

struct Usage {
    cpu: f64,
    resident: f64,
    size: f64,
    start: f64,
    open: f64,
    most: f64,
}

impl Usage {
    fn read() -> Option<Self> {
        use nix::sys::resource::{Resource, getrlimit};
        use nix::unistd::{SysconfVar, sysconf};

        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Behind the program's name, which may contain anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Numbered from the third field of proc_pid_stat(5) on.
        let number = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let ticks = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()?? as f64;
        let up = std::fs::read_to_string("/proc/uptime").ok()?;
        let up: f64 = up.split_ascii_whitespace().next()?.parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let boot = now.unwrap_or(Duration::ZERO).as_secs_f64() - up;
        Some(Self {
            cpu: (number(14)? + number(15)?) / ticks,
            size: number(23)?,
            resident: number(24)? * page,
            start: boot + number(22)? / ticks,
            open: std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
            most: getrlimit(Resource::RLIMIT_NOFILE).ok()?.0 as f64,
        })
    }
}
