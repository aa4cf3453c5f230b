//! One round of the benchmark of drift, and what rounds of growing size show together.

use std::{fs, time::Instant};

use serde_json::{Value, json};

use crate::machine::Spread;

/// What one process measured of itself.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub seconds: f64,
    /// None where the system does not tell; so is memory.
    pub cpu_seconds: Option<f64>,
    pub peak_mebibytes: Option<f64>,
}

impl Round {
    /// Reads a round as a process answers it.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(answer: &Value) -> Result<Self, String> {
        let seconds = answer["seconds"].as_f64().ok_or("a round does not tell how long it took")?;
        let (cpu_seconds, peak_mebibytes) = (answer["cpuSeconds"].as_f64(), answer["peakMebibytes"].as_f64());
        Ok(Self { seconds, cpu_seconds, peak_mebibytes })
    }

    pub fn write(&self) -> Value {
        json!({
            "seconds": self.seconds, "cpuSeconds": self.cpu_seconds, "peakMebibytes": self.peak_mebibytes,
        })
    }
}

/// A clock that runs only while something is measured, in a process with one thread.
#[derive(Default)]
pub struct Meter {
    seconds: f64,
    cpu_seconds: Option<f64>,
}

impl Meter {
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (before, began) = (own_cpu_seconds(), Instant::now());
        let done = work();
        self.seconds += began.elapsed().as_secs_f64();
        if let Some((before, after)) = before.zip(own_cpu_seconds()) {
            *self.cpu_seconds.get_or_insert_default() += after - before;
        }
        done
    }

    /// What was measured so far, and the most memory that this process ever had.
    pub fn round(&self) -> Round {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = most.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Round {
            seconds: self.seconds,
            cpu_seconds: self.cpu_seconds,
            peak_mebibytes: kibibytes.map(|kibibytes| kibibytes / 1024.0),
        }
    }
}

/// CPU time of this thread so far; the kernel counts it in nanoseconds.
fn own_cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}

/// The rounds of one size.
pub struct Rounds {
    pub resources: usize,
    pub rounds: Vec<Round>,
}

impl Rounds {
    fn spread(&self, what: impl Fn(&Round) -> Option<f64>) -> Spread {
        Spread::of(self.rounds.iter().filter_map(what))
    }

    /// Milliseconds, the median.
    pub fn milliseconds(&self) -> f64 {
        self.spread(|round| Some(round.seconds * 1000.0)).median
    }

    /// Milliseconds of CPU time, the median.
    pub fn cpu_milliseconds(&self) -> f64 {
        self.spread(|round| round.cpu_seconds.map(|seconds| seconds * 1000.0)).median
    }

    pub fn print(&self, who: &str) {
        println!(
            "  {who:<9} {} ms, {:.4} ms a resource; CPU {:.2} ms, {:.4} ms a resource; peak memory {:.1} MiB{}",
            self.spread(|round| Some(round.seconds * 1000.0)),
            self.milliseconds() / self.resources as f64,
            self.cpu_milliseconds(),
            self.cpu_milliseconds() / self.resources as f64,
            self.spread(|round| round.peak_mebibytes).median,
            if self.rounds.len() == 1 { "; one round" } else { "" }
        );
    }
}

/// How time grows with the number of resources.
pub struct Growth {
    /// The power of the number that it grows with: 1 is linear.
    pub power: f64,
    /// What a further resource costs, in milliseconds.
    pub slope: f64,
}

impl Growth {
    /// By least squares over sizes and milliseconds. None for fewer than three sizes: two always fit.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 3 {
            return None;
        }
        let logarithms: Vec<_> = points.iter().map(|(size, time)| (size.ln(), time.ln())).collect();
        Some(Self { power: slope(&logarithms), slope: slope(points) })
    }
}

fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let both: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    both / points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>()
}
