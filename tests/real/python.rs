//! Python, with pinned packages from PyPI in an environment of its own under `target/`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, time::timeout};

/// An environment with exactly these packages, made once and used again.
///
/// # Errors
/// When there is no Python, or the packages cannot be installed: what to do.
pub fn environment(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let target =
        std::env::current_exe().map_err(|error| format!("this program does not find itself: {error}"))?;
    // target/<profile>/deps/<this program>
    let target = target.ancestors().nth(3).ok_or("this program is not in a target directory")?;
    let directory = target.join("python").join(name);
    let python = directory.join("bin").join("python");
    let mark = directory.join("installed");
    let wanted = packages.join("\n");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&directory);
    if Command::new("python3").arg("--version").output().is_err() {
        return Err("`python3` is not on the path: install Python 3.10 or newer with its venv module, or set WITHOUT=python \
                    to leave this suite out"
            .to_owned());
    }
    println!("  installing {} into {}", packages.join(" "), directory.display());
    run(Command::new("python3").args(["-m", "venv"]).arg(&directory), "making the environment")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
    run(&mut pip, "installing the packages")?;
    fs::write(&mark, wanted).map_err(|error| format!("`{}` cannot be written: {error}", mark.display()))?;
    Ok(python)
}

fn run(command: &mut Command, doing: &str) -> Result<(), String> {
    let hint = "see what Python says above, or set WITHOUT=python to leave this suite out";
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{doing} ended with {status}: {hint}")),
        Err(error) => Err(format!("{doing} cannot be started: {error}: {hint}")),
    }
}

/// Lets a script judge what answers at `endpoint`: it trusts one root certificate, reads its token from
/// standard input, and says by its exit code whether all went well.
///
/// # Errors
/// What the judge came to, where that is not a yes within `patience`.
pub async fn judged(
    python: &Path,
    name: &str,
    endpoint: &str,
    root_certificate: &Path,
    token: &str,
    patience: Duration,
) -> Result<(), String> {
    let mut judge = tokio::process::Command::new(python)
        .arg(script(name))
        .arg(endpoint)
        .arg(root_certificate)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("the judge cannot be started: {error}"))?;
    let mut input = judge.stdin.take().ok_or("the judge has no standard input")?;
    let said = input.write_all(format!("{token}\n").as_bytes()).await;
    said.map_err(|error| format!("the judge does not listen: {error}"))?;
    drop(input);
    match timeout(patience, judge.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("the judge ended with {status}; what it found is above")),
        Ok(Err(error)) => Err(format!("the judge was lost: {error}")),
        Err(_) => Err(format!("the judge did not end in {} seconds", patience.as_secs())),
    }
}

/// The script beside this file.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("real").join(name)
}
