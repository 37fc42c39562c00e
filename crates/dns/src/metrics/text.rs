//! The text form that every scraper reads.

use std::collections::BTreeSet;

/// Prometheus' text form 0.0.4 from `OpenMetrics`: there a counter's samples end in `_total` and
/// its description does not, here both do; units and the end mark are comments nobody reads.
pub fn prometheus_text(open_metrics: &str) -> String {
    let mut counters: BTreeSet<&str> = BTreeSet::new();
    for line in open_metrics.lines() {
        if let Some(name) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.strip_suffix(" counter"))
        {
            counters.insert(name);
        }
    }
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let described = ["# TYPE ", "# HELP "].into_iter().find_map(|mark| {
            let (name, rest) = line.strip_prefix(mark)?.split_once(' ')?;
            counters
                .contains(name)
                .then(|| format!("{mark}{name}_total {rest}"))
        });
        text.push_str(described.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_described_by_the_name_of_their_samples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"1\"} 2\n\
                    # HELP c C.\n# TYPE c gauge\n# UNIT c seconds\nc 1\n# EOF\n";
        assert_eq!(
            prometheus_text(open),
            "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"1\"} 2\n\
             # HELP c C.\n# TYPE c gauge\nc 1\n"
        );
    }
}
