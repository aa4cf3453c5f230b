//! Where the built handler is: beside this program. In a checkout cargo builds it first, with the
//! profile and features that this program was built with.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::{failure::Failure, output::Out};

/// Finds the handler, building it where this is a checkout.
pub async fn find(out: &Out) -> Result<PathBuf, Failure> {
    let program = env::current_exe().map_err(|error| {
        Failure::unusable("The system does not tell where this program is").because(&error)
    })?;
    let beside = program.with_file_name("handler");
    if let Some(checkout) = checkout(&program) {
        build(&checkout, &program, out).await?;
    }
    if beside.is_file() {
        return Ok(beside);
    }
    Err(Failure::unusable(format!("There is no handler at {}", beside.display()))
        .advice("Put the two programs into one folder, or build both with `cargo build`."))
}

/// The checkout that this program was built in, where it still lies in its target folder.
fn checkout(program: &Path) -> Option<PathBuf> {
    let profile = program.parent()?;
    let target = profile.parent()?;
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_its_own = target == checkout.join("target") && checkout.join("Cargo.toml").is_file();
    is_its_own.then(|| checkout.to_owned())
}

async fn build(checkout: &Path, program: &Path, out: &Out) -> Result<(), Failure> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(checkout).args(["build", "--quiet", "--bin", "handler"]);
    if !cfg!(feature = "default") {
        command.args(["--no-default-features", "--features", "local"]);
    }
    if program.parent().and_then(Path::file_name).is_some_and(|profile| profile == "release") {
        command.arg("--release");
    }
    // What `cargo run` tells this program of its package is not for the packages that are built:
    // build scripts that look at it would run again, and much would be built anew.
    for (name, _) in env::vars_os() {
        let is_ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix));
        if is_ours {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let built = command.status().await;
    match built {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Failure::unusable("cargo could not build the handler; what it said is above")),
        Err(error) => {
            out.note(&format!("cargo cannot be run ({error}); the handler that is there is used."));
            Ok(())
        }
    }
}
