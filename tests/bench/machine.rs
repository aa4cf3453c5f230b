//! What the benchmarks share: the machine that a figure was taken on, and how figures are summed up.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// How long the disk alone is measured.
const DISK_FOR: Duration = Duration::from_secs(1);
/// What one write to the disk holds, in bytes.
const DISK_WRITE_BYTES: usize = 4096;

/// The first line that a program says of itself; none where it cannot be run.
pub fn said_by(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

/// Prints what the figures depend on besides the programs.
pub fn introduce() {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let model = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?.to_owned();
        line.split_once(':').map(|(_, model)| model.trim().to_owned())
    });
    println!("machine: {cpus} CPUs, {}", model.unwrap_or_else(|| "of a model that the system does not tell".into()));
    println!("rustc: {}", said_by("rustc", "--version").unwrap_or_else(|| "not found".into()));
    println!("load average at the start: {}", load());
}

/// The load average of the last minute; other work on the machine shows here.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// How many times a second the disk under `directory` alone takes a small write for good.
pub fn fsyncs_per_second(directory: &Path) -> f64 {
    let mut file = File::create(directory.join("fsync")).expect("the directory can be written to");
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < DISK_FOR {
        file.write_all(&[0; DISK_WRITE_BYTES]).expect("there is room on the disk");
        file.sync_data().expect("the disk takes what was written");
        count += 1;
    }
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// The value below which the given share of the values lies; `values` must be sorted.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let last = values.len().saturating_sub(1);
    values.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The median of the rounds and how far apart they lie.
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self { median: quantile(&values, 0.5), least: quantile(&values, 0.0), most: quantile(&values, 1.0) }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = if self.most >= 1000.0 { 0 } else { 2 };
        write!(formatter, "{:.digits$} ({:.digits$} to {:.digits$})", self.median, self.least, self.most)
    }
}
