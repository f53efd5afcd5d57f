//! Numbers that were measured.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// From start to end.
    Wall,
    /// Processor time.
    Cpu,
    /// The largest resident set of the program.
    PeakRss,
    /// The size of what was made.
    Bytes,
    /// From the command until the image is mounted.
    Mount,
    /// From the command until the first byte of a program of the image.
    FirstByte,
    /// `lstat` of everything, first after mounting, nothing cached.
    StatCold,
    /// Reading everything, nothing local.
    ReadCold,
    /// Processor time of the serving processes until everything was read.
    DaemonCpu,
    /// Reading everything, all local, page cache dropped.
    ReadDropped,
    /// Reading everything once more.
    ReadWarm,
    /// `lstat` of everything once more.
    StatWarm,
    /// Mounting what was mounted before, with the daemon running.
    MountAgain,
    /// The largest resident set of the serving processes together.
    DaemonPeakRss,
    /// Their own memory in the end, without pages of files.
    DaemonOwnRss,
}

impl Metric {
    /// What people read.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Wall => "wall",
            Self::Cpu => "CPU",
            Self::PeakRss => "peak RSS",
            Self::Bytes => "result",
            Self::Mount => "mount",
            Self::FirstByte => "mount + first byte of bash",
            Self::StatCold => "stat everything, first",
            Self::ReadCold => "read everything, nothing local",
            Self::DaemonCpu => "… CPU of the daemon until then",
            Self::ReadDropped => "read everything, page cache dropped",
            Self::ReadWarm => "read everything, warm",
            Self::StatWarm => "stat everything, warm",
            Self::MountAgain => "mount again",
            Self::DaemonPeakRss => "peak RSS of the daemon",
            Self::DaemonOwnRss => "… anonymous memory at the end",
        }
    }

    /// The key that programs read; its unit is at the end.
    fn key(self) -> &'static str {
        match self {
            Self::Wall => "wall_s",
            Self::Cpu => "cpu_s",
            Self::PeakRss => "peak_rss_bytes",
            Self::Bytes => "result_bytes",
            Self::Mount => "mount_s",
            Self::FirstByte => "first_byte_s",
            Self::StatCold => "stat_cold_s",
            Self::ReadCold => "read_cold_s",
            Self::DaemonCpu => "daemon_cpu_s",
            Self::ReadDropped => "read_dropped_s",
            Self::ReadWarm => "read_warm_s",
            Self::StatWarm => "stat_warm_s",
            Self::MountAgain => "mount_again_s",
            Self::DaemonPeakRss => "daemon_peak_rss_bytes",
            Self::DaemonOwnRss => "daemon_own_rss_bytes",
        }
    }

    fn is_bytes(self) -> bool {
        self.key().ends_with("_bytes")
    }

    /// A value with its unit.
    pub(crate) fn shown(self, value: f64) -> String {
        if self.is_bytes() {
            format!("{:.1} MB", value / 1e6)
        } else if value < 0.1 {
            format!("{:.1} ms", value * 1e3)
        } else {
            format!("{value:.2} s")
        }
    }
}

/// A count as a number to divide by.
pub(crate) fn number(count: u64) -> f64 {
    // Exact below 9 PB.
    count as f64
}

/// What one contender showed.
#[derive(Debug, Default)]
struct Row {
    name: String,
    values: BTreeMap<Metric, Vec<f64>>,
}

/// What all contenders of one discipline showed.
#[derive(Debug, Default)]
pub(crate) struct Results {
    rows: Vec<Row>,
}

impl Results {
    /// Notes what a contender showed in one more run.
    pub(crate) fn record(&mut self, contender: &str, metric: Metric, value: f64) {
        let at = self.rows.iter().position(|row| row.name == contender);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                name: contender.to_owned(),
                ..Row::default()
            });
            self.rows.len() - 1
        });
        if let Some(row) = self.rows.get_mut(at) {
            row.values.entry(metric).or_default().push(value);
        }
    }

    /// All contenders, in the order in which they first came.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row.name.as_str())
    }

    /// What a contender showed, one value a run.
    pub(crate) fn values(&self, contender: &str, metric: Metric) -> &[f64] {
        let row = self.rows.iter().find(|row| row.name == contender);
        row.and_then(|row| row.values.get(&metric))
            .map_or(&[], Vec::as_slice)
    }

    /// The median of what a contender showed.
    pub(crate) fn median(&self, contender: &str, metric: Metric) -> Option<f64> {
        median(self.values(contender, metric).to_vec())
    }

    /// How many times as much one contender needs as another: the median of the ratios of the runs,
    /// since what disturbs one run disturbs both of its halves.
    pub(crate) fn ratio(&self, contender: &str, other: &str, metric: Metric) -> Option<f64> {
        let (ours, theirs) = (self.values(contender, metric), self.values(other, metric));
        let ratios = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs);
        median(ratios.collect())
    }

    /// For programs: all values.
    pub(crate) fn json(&self) -> Value {
        let row = |row: &Row| {
            let values: serde_json::Map<String, Value> = row
                .values
                .iter()
                .map(|(metric, values)| (metric.key().to_owned(), json!(values)))
                .collect();
            json!({"name": row.name, "runs": values})
        };
        self.rows.iter().map(row).collect()
    }
}

/// The middle one, or what is between the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.len() / 2;
    let high = *values.get(upper)?;
    if values.len() % 2 == 1 {
        return Some(high);
    }
    let low = values.get(upper.checked_sub(1)?)?;
    Some(f64::midpoint(*low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_two() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 8.0]), Some(3.0));
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        let mut results = Results::default();
        // The machine was busy in the second run.
        for (ours, theirs) in [(1.0, 2.0), (10.0, 20.0), (2.0, 4.0)] {
            results.record("ours", Metric::Wall, ours);
            results.record("theirs", Metric::Wall, theirs);
        }
        assert_eq!(results.ratio("ours", "theirs", Metric::Wall), Some(0.5));
        assert_eq!(results.ratio("ours", "nobody", Metric::Wall), None);
    }
}
