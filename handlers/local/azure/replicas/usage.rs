//! What replicas use: programs of the user's are measured by `/proc`, their whole process group
//! together; replicas that are servers in this process have no processor of their own and are given
//! a model's figures.
//!
//! Where there is no `/proc`, nothing is known of programs, and nothing is said.

use std::{collections::HashMap, fs};

/// Ticks of a processor's time in a second, as `/proc` counts them on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// A server in this process at rest, and what each request a second and each request on its way costs.
const MODEL_CORES: f64 = 0.01;
const MODEL_CORES_PER_REQUEST: f64 = 0.02;
const MODEL_BYTES: u64 = 64 * 1024 * 1024;
const MODEL_BYTES_PER_FLIGHT: u64 = 1024 * 1024;

/// What a process group has used so far, and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::local::azure) struct Spent {
    /// Seconds of a processor.
    pub seconds: f64,
    pub bytes: u64,
}

/// By the leader of a process group.
pub(in crate::local::azure) type Groups = HashMap<i32, Spent>;

/// What a replica uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::local::azure) struct Use {
    pub cores: f64,
    pub bytes: u64,
}

/// What a server in this process is said to use.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "requests on their way are few")]
pub(super) fn model(requests_per_second: f64, in_flight: f64) -> Use {
    Use {
        cores: MODEL_CORES + requests_per_second * MODEL_CORES_PER_REQUEST,
        bytes: MODEL_BYTES + MODEL_BYTES_PER_FLIGHT * in_flight.ceil() as u64,
    }
}

/// What every process group of this machine has used. Reads a small file for each process, so it is
/// not for a task that others wait for.
pub(in crate::local::azure) fn by_group() -> Groups {
    let mut groups = Groups::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let path = entry.path();
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<i32>().is_ok());
        if !is_process {
            continue;
        }
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        let Some((group, seconds)) = read_stat(&stat) else { continue };
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        let spent = groups.entry(group).or_default();
        spent.seconds += seconds;
        spent.bytes += resident_bytes(&status);
    }
    groups
}

/// The process group, and the seconds of its own and of its children that were waited for.
fn read_stat(stat: &str) -> Option<(i32, f64)> {
    // The name of the program may hold anything; what follows its bracket does not.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().collect::<Vec<_>>();
    let group = fields.get(2)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
    Some((group, ticks / TICKS_PER_SECOND))
}

fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_its_group_and_its_time() {
        let stat = "7 (a ) b) S 1 42 42 0 -1 4194304 1 2 3 4 150 50 20 30 20 0 1 0 9 1000 25 1";
        assert_eq!(read_stat(stat), Some((42, 2.5)));
        assert_eq!(read_stat("7 (a) S"), None);
        assert_eq!(resident_bytes("Name:\ta\nVmRSS:\t    12 kB\nThreads: 1"), 12 * 1024);
        assert_eq!(resident_bytes("Name:\ta"), 0);
    }

    #[test]
    fn our_own_group_is_there_and_holds_memory() {
        if cfg!(target_os = "linux") {
            let own = rustix::process::getpgrp().as_raw_nonzero().get();
            assert!(by_group()[&own].bytes > 0);
        }
    }
}
