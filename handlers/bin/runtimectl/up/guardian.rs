//! The guardian: a process of its own that ends what `up` started, however `up` dies.
//!
//! It reads process groups from a pipe, and when the pipe ends, because `up` is gone, kills those that
//! were named and not taken back. Where both die at once, the next `up` on the same data finds the list
//! in a file; there a process is ended only if it still has the start time that was noted.
//!
//! Between the start of a process and its name in the pipe lies a moment in which `up` may be killed.
//! So the handler is started by way of this program, which asks the system to end it with its parent
//! and then becomes the handler. Only Linux knows that wish; elsewhere the moment remains.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::BufRead,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::Mutex,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// The setting that makes this program a ward: the program to become.
pub const WARD_PROGRAM: &str = "RUNTIMECTL_WARD_PROGRAM";
/// The process that a ward must not outlive.
pub const WARD_PARENT: &str = "RUNTIMECTL_WARD_PARENT";
/// What makes this program a guardian.
pub const GUARD_ARGUMENT: &str = "guard-children";

/// One process, and when it was started as the system tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ward {
    started: Option<String>,
}

/// The end of the pipe that `up` holds.
pub struct Guardian {
    child: Mutex<Child>,
    wards: Mutex<BTreeMap<u32, Ward>>,
    list: PathBuf,
}

impl Guardian {
    /// Starts a guardian, and ends what an earlier `up` left behind.
    pub fn start(directory: &Path) -> Result<Self, Failure> {
        let list = directory.join("processes.json");
        end_leftovers(&list);
        let cannot = "Cannot start the process that guards the others";
        let program = std::env::current_exe().map_err(|error| Failure::unusable(cannot).because(&error))?;
        let mut command = Command::new(program);
        command.arg(GUARD_ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: Ctrl-C in the terminal is not for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.spawn().map_err(|error| Failure::unusable(cannot).because(&error))?;
        Ok(Self { child: Mutex::new(child), wards: Mutex::default(), list })
    }

    /// Names a process that must not outlive `up`.
    pub fn guard(&self, pid: u32) {
        self.wards.lock().expect("nobody panics while holding the wards").insert(pid, Ward { started: started(pid) });
        self.tell('+', pid);
    }

    /// Takes a process back: it has ended.
    pub fn release(&self, pid: u32) {
        self.wards.lock().expect("nobody panics while holding the wards").remove(&pid);
        self.tell('-', pid);
    }

    fn tell(&self, sign: char, pid: u32) {
        let wards = self.wards.lock().expect("nobody panics while holding the wards");
        // Both are for the worst case; a platform that runs is not stopped for them.
        if let Ok(text) = serde_json::to_string(&*wards) {
            let _ = fs::write(&self.list, text);
        }
        let mut child = self.child.lock().expect("nobody panics while holding the guardian");
        if let Some(pipe) = &mut child.stdin {
            let _ = std::io::Write::write_all(pipe, format!("{sign}{pid}\n").as_bytes());
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("nobody panics while holding the guardian");
        drop(child.stdin.take());
        // It ends by itself when the pipe does.
        let _ = child.wait();
        let _ = fs::remove_file(&self.list);
    }
}

/// The guardian itself: what this program does as [`GUARD_ARGUMENT`].
pub fn guard() -> ExitCode {
    let mut wards = std::collections::BTreeSet::new();
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let pid = line.get(1..).and_then(|pid| pid.parse::<u32>().ok());
        match (line.chars().next(), pid) {
            (Some('+'), Some(pid)) => {
                wards.insert(pid);
            }
            (Some('-'), Some(pid)) => {
                wards.remove(&pid);
            }
            _ => {}
        }
    }
    for pid in wards {
        end(pid);
    }
    ExitCode::SUCCESS
}

/// The ward: ties this process to its parent, then becomes the program that it is told. Comes back only
/// where that cannot be.
pub fn become_ward(program: &OsStr) -> ExitCode {
    let failed = |what: &str| {
        eprintln!("`{}` cannot be started: {what}", program.display());
        ExitCode::FAILURE
    };
    let parent = std::env::var(WARD_PARENT).ok().and_then(|parent| parent.parse::<i32>().ok());
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return failed(&error.to_string());
    }
    // It may have died before it could be asked for.
    if parent.is_some() && parent != rustix::process::getppid().map(Pid::as_raw_nonzero).map(Into::into) {
        return failed("the process that wanted it is gone");
    }
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env_remove(WARD_PROGRAM).env_remove(WARD_PARENT);
    failed(&std::os::unix::process::CommandExt::exec(&mut command).to_string())
}

/// Kills a process and the group that it leads.
fn end(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    // It may have ended by itself.
    let _ = kill_process_group(pid, Signal::KILL);
    let _ = kill_process(pid, Signal::KILL);
}

fn end_leftovers(list: &Path) {
    let Some(wards) = fs::read_to_string(list).ok().and_then(|text| serde_json::from_str::<BTreeMap<u32, Ward>>(&text).ok())
    else {
        return;
    };
    for (pid, ward) in wards {
        if ward.started.is_some() && ward.started == started(pid) {
            end(pid);
        }
    }
}

/// When a process was started, in the system's own words; a number that is used again has another
/// start.
fn started(pid: u32) -> Option<String> {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The 22nd field; the second, the name, may hold spaces and ends with the last parenthesis.
        return stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned);
    }
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
