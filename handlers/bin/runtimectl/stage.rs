//! `stage`: the function app as Azure's host wants it, in one folder: `host.json`, a folder for each
//! function right beside it, and the handler. The host looks for functions nowhere else. What is said
//! of queues and topics comes along: `up --app` runs a staged folder too, and declares them from it.
//!
//! The folder appears whole or not at all: it is laid out beside its place and then moved there.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::Value;
use tokio::process::Command;
use uuid::Uuid;

use crate::{
    cli::StageArgs,
    failure::Failure,
    output::{Out, Tint},
};

/// The host's rule for a function's name: so many characters at most.
const FUNCTION_NAME_LENGTH_MAX: usize = 128;
/// Functions of one app, at most.
const FUNCTIONS_MAX: usize = 1000;
/// Where an app says which queues and topics it uses.
const MESSAGING: &str = "infra/messaging.json";
/// What marks a folder as one of ours, so that no other is ever replaced.
const MARK: &str = ".staged-by-runtimectl";

/// What was found to be laid out.
#[derive(Debug, PartialEq)]
struct App {
    folder: PathBuf,
    /// The handler's name within the staged folder, as `host.json` starts it.
    executable: PathBuf,
    /// Each function's name and its folder.
    functions: Vec<(String, PathBuf)>,
}

/// Runs `stage`.
///
/// # Errors
/// When there is no app, a part of it is wrong, or the folder cannot be written.
pub async fn run(args: &StageArgs, out: &Out) -> Result<ExitCode, Failure> {
    let here = env::current_dir()
        .map_err(|error| Failure::unusable("Cannot tell which folder this is").because(&error))?;
    let folder = match &args.app {
        Some(folder) => here.join(folder),
        None => nearest(&here)?,
    };
    let app = read_app(&folder)?;
    let handler = match &args.handler {
        Some(file) => here.join(file),
        None if args.release => build(&folder, out).await?,
        None => beside_us()?,
    };
    if !handler.is_file() {
        return Err(Failure::unusable(format!("There is no handler `{}`", handler.display())).advice(
            "build it with `cargo build --bin handler`, stage with --release, or name one with --handler",
        ));
    }
    let place =
        args.output.as_ref().map_or_else(|| folder.join("target").join("app"), |place| here.join(place));
    let job = (app, handler, place);
    let (app, place) = tokio::task::spawn_blocking(move || {
        let (app, handler, place) = job;
        lay_out(&app, &handler, &place).map(|()| (app, place))
    })
    .await
    .map_err(|error| Failure::failed("Laying out the app broke off").because(&error))??;

    out.line(&place.display().to_string())?;
    out.note(&format!("{} functions are laid out there.", app.functions.len()));
    out.note(&format!(
        "Run them:   {}",
        out.paint_note(Tint::Bold, &format!("cd {} && func start", place.display()))
    ));
    out.note(&format!(
        "Pack them:  {}",
        out.paint_note(Tint::Bold, &format!("cd {} && zip -r ../app.zip . -x {MARK}", place.display()))
    ));
    Ok(ExitCode::SUCCESS)
}

fn nearest(here: &Path) -> Result<PathBuf, Failure> {
    here.ancestors().find(|folder| folder.join("host.json").is_file()).map(Path::to_owned).ok_or_else(|| {
        Failure::unusable(format!("There is no `host.json` in `{}` or above", here.display()))
            .advice("go to the function app's folder, or name it with --app")
    })
}

fn beside_us() -> Result<PathBuf, Failure> {
    let us = env::current_exe()
        .map_err(|error| Failure::unusable("Cannot tell where this program is").because(&error))?;
    Ok(us.with_file_name(format!("handler{}", env::consts::EXE_SUFFIX)))
}

async fn build(folder: &Path, out: &Out) -> Result<PathBuf, Failure> {
    if !folder.join("Cargo.toml").is_file() {
        return Err(Failure::unusable(format!(
            "`{}` is no checkout: there is no `Cargo.toml`",
            folder.display()
        ))
        .advice("name a built handler with --handler"));
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    out.note("Building the handler as production runs it; the first time this takes minutes.");
    let ended = Command::new(&cargo)
        .args(["build", "--release", "--no-default-features", "--bin", "handler"])
        .current_dir(folder)
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| {
            Failure::unusable("Cannot run cargo")
                .because(&error)
                .advice("install a Rust toolchain, or name a built handler with --handler")
        })?;
    if !ended.success() {
        return Err(Failure::failed(format!("cargo did not build the handler ({ended})"))
            .advice("its own words are above"));
    }
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), |target| folder.join(target));
    Ok(target.join("release").join(format!("handler{}", env::consts::EXE_SUFFIX)))
}

fn json(file: &Path) -> Result<Value, String> {
    let bytes = fs::read(file).map_err(|error| format!("`{}` cannot be read: {error}", file.display()))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("`{}` is no JSON: {error}", file.display()))
}

/// Reads the app, and says all that is wrong with it at once.
fn read_app(folder: &Path) -> Result<App, Failure> {
    let mut problems = Vec::new();
    let executable = executable(folder).unwrap_or_else(|problem| {
        problems.push(problem);
        PathBuf::new()
    });
    let functions = functions(folder, &mut problems);
    if problems.is_empty() {
        return Ok(App { folder: folder.to_owned(), executable, functions });
    }
    Err(Failure::unusable(format!("`{}` cannot be staged: {}", folder.display(), problems.join("; ")))
        .advice("correct it, or name the function app's folder with --app"))
}

fn executable(folder: &Path) -> Result<PathBuf, String> {
    let file = folder.join("host.json");
    let host = json(&file)?;
    let member = "customHandler.description.defaultExecutablePath";
    let path = host["customHandler"]["description"]["defaultExecutablePath"]
        .as_str()
        .filter(|path| !path.is_empty())
        .ok_or_else(|| format!("`{}` has no `{member}`", file.display()))?;
    let path = Path::new(path);
    let inside = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if inside {
        Ok(path.to_owned())
    } else {
        Err(format!("`{member}` in `{}` has to name a file within the app", file.display()))
    }
}

fn functions(app: &Path, problems: &mut Vec<String>) -> Vec<(String, PathBuf)> {
    let folder = app.join("functions");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(format!("`{}` cannot be read: {error}", folder.display()));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for entry in entries.take(FUNCTIONS_MAX + 1) {
        let Ok(entry) = entry else { continue };
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !path.is_dir() {
            continue;
        }
        if !is_function_name(&name) {
            problems.push(format!("`{name}` is no name for a function"));
        }
        match json(&path.join("function.json")) {
            Ok(function) if function["bindings"].as_array().is_some_and(|bindings| !bindings.is_empty()) => {}
            Ok(_) => problems.push(format!("`functions/{name}/function.json` has no `bindings`")),
            Err(problem) => problems.push(problem),
        }
        found.push((name, path));
    }
    if found.is_empty() {
        problems.push(format!("`{}` holds no function", folder.display()));
    }
    if found.len() > FUNCTIONS_MAX {
        problems.push(format!("there are more than {FUNCTIONS_MAX} functions"));
    }
    found.sort();
    found
}

/// The host's rule: a letter, then letters, digits, `_` and `-`; and not `host`.
fn is_function_name(name: &str) -> bool {
    name.len() <= FUNCTION_NAME_LENGTH_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-'))
        && !name.eq_ignore_ascii_case("host")
}

fn lay_out(app: &App, handler: &Path, place: &Path) -> Result<(), Failure> {
    let occupied = place.exists() && !place.join(MARK).is_file();
    let empty = fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
    if occupied && !empty {
        return Err(Failure::unusable(format!(
            "`{}` exists and was not laid out by `runtimectl stage`",
            place.display()
        ))
        .advice("name another folder with --output, or remove that one yourself"));
    }
    let beside = place.with_file_name(format!(".stage-{}", Uuid::new_v4().simple()));
    let laid = fill(app, handler, &beside).and_then(|()| put_in_place(&beside, place));
    if laid.is_err() {
        // What is half done is nobody's; that it cannot be removed changes nothing of the failure.
        let _ = fs::remove_dir_all(&beside);
    }
    laid.map_err(|(path, error)| {
        Failure::failed(format!("Cannot lay out `{}`", path.display()))
            .because(&error)
            .advice("see to it that the folder can be written, or name another with --output")
    })
}

type Laid = Result<(), (PathBuf, io::Error)>;

fn fill(app: &App, handler: &Path, folder: &Path) -> Laid {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    fs::create_dir_all(folder).map_err(at(folder))?;
    fs::write(folder.join(MARK), "").map_err(at(folder))?;
    copy(&app.folder.join("host.json"), &folder.join("host.json"))?;
    let messaging = app.folder.join(MESSAGING);
    if messaging.is_file() {
        let target = folder.join(MESSAGING);
        let parent = target.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(at(parent))?;
        copy(&messaging, &target)?;
    }
    for (name, source) in &app.functions {
        let target = folder.join(name);
        fs::create_dir(&target).map_err(at(&target))?;
        copy(&source.join("function.json"), &target.join("function.json"))?;
    }
    let executable = folder.join(&app.executable);
    if let Some(parent) = executable.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    copy(handler, &executable)?;
    make_executable(&executable).map_err(at(&executable))
}

fn copy(from: &Path, to: &Path) -> Laid {
    fs::copy(from, to).map(drop).map_err(|error| (from.to_owned(), error))
}

#[cfg(unix)]
fn make_executable(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
}

#[cfg(not(unix))]
fn make_executable(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Moves the new folder to its place; the one that was there goes only once it is out of the way.
fn put_in_place(new: &Path, place: &Path) -> Laid {
    let at = |error| (place.to_owned(), error);
    let old = new.with_extension("old");
    let replaced = place.exists();
    if replaced {
        fs::rename(place, &old).map_err(at)?;
    }
    if let Err(error) = fs::rename(new, place) {
        if replaced {
            fs::rename(&old, place).map_err(at)?;
        }
        return Err(at(error));
    }
    if replaced {
        fs::remove_dir_all(&old).map_err(|error| (old.clone(), error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(root: &Path) {
        fs::write(
            root.join("host.json"),
            r#"{"version":"2.0","customHandler":{"description":{"defaultExecutablePath":"handler"}}}"#,
        )
        .unwrap();
        for name in ["Deploy", "OutboxSweep"] {
            fs::create_dir_all(root.join("functions").join(name)).unwrap();
            fs::write(
                root.join("functions").join(name).join("function.json"),
                r#"{"bindings":[{"type":"timerTrigger"}]}"#,
            )
            .unwrap();
        }
        fs::create_dir(root.join("infra")).unwrap();
        fs::write(root.join(MESSAGING), "{}").unwrap();
        fs::write(root.join("built"), "#!/bin/sh\n").unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    #[test]
    fn an_app_is_laid_out_flat_and_again_over_itself() {
        let root = tempfile::tempdir().unwrap();
        app(root.path());
        let found = read_app(root.path()).unwrap();
        let place = root.path().join("target/app");
        lay_out(&found, &root.path().join("built"), &place).unwrap();
        assert_eq!(names(&place), [MARK, "Deploy", "OutboxSweep", "handler", "host.json", "infra"]);
        assert_eq!(names(&place.join("Deploy")), ["function.json"]);
        assert_eq!(names(&place.join("infra")), ["messaging.json"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(place.join("handler")).unwrap().permissions().mode() & 0o777, 0o755);
        }
        fs::remove_dir_all(root.path().join("functions/OutboxSweep")).unwrap();
        lay_out(&read_app(root.path()).unwrap(), &root.path().join("built"), &place).unwrap();
        assert_eq!(names(&place), [MARK, "Deploy", "handler", "host.json", "infra"]);
        assert_eq!(names(&root.path().join("target")), ["app"]);
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        app(root.path());
        let place = root.path().join("precious");
        fs::create_dir(&place).unwrap();
        fs::write(place.join("thesis.txt"), "years").unwrap();
        let found = read_app(root.path()).unwrap();
        assert!(lay_out(&found, &root.path().join("built"), &place).is_err());
        assert_eq!(names(&place), ["thesis.txt"]);
    }

    #[test]
    fn a_failed_layout_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        app(root.path());
        let place = root.path().join("target/app");
        let found = read_app(root.path()).unwrap();
        lay_out(&found, &root.path().join("built"), &place).unwrap();
        assert!(lay_out(&found, &root.path().join("missing"), &place).is_err());
        assert_eq!(names(&root.path().join("target")), ["app"]);
        assert_eq!(names(&place), [MARK, "Deploy", "OutboxSweep", "handler", "host.json", "infra"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let root = tempfile::tempdir().unwrap();
        app(root.path());
        fs::write(root.path().join("host.json"), "{}").unwrap();
        fs::create_dir_all(root.path().join("functions/2nd")).unwrap();
        fs::write(root.path().join("functions/Deploy/function.json"), "{}").unwrap();
        let Err(Failure::Told { what, .. }) = read_app(root.path()) else { panic!() };
        for part in [
            "defaultExecutablePath",
            "`2nd` is no name",
            "`functions/Deploy/function.json` has no `bindings`",
        ] {
            assert!(what.contains(part), "{what}");
        }
    }

    #[test]
    fn the_host_decides_what_a_function_may_be_called() {
        let names = ["Deploy", "a-b_c9", "host", "Host", "9a", "a.b", ""];
        assert_eq!(names.map(is_function_name), [true, true, false, false, false, false, false]);
    }
}
