//! Suites with real programs: other people's, which judge our stand-ins, and our own, which are
//! started as a person starts them, fed what is bad, and killed. They have a harness of their own,
//! because what was left out must be seen, and the usual one swallows what a test prints.
//!
//! `WITHOUT=python` leaves out the suites that need Python; the run says so at its end. Words after
//! `--` choose suites by a part of their name, as in the usual harness.

mod bad_input;
mod canary;
mod client;
mod dealt_deaths;
mod demo;
mod full_disk;
mod key_vault;
mod kills;
mod orders;
mod python;
mod registry;
mod resource_manager;
mod staged;
mod starting;
mod up;
mod user_program;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

/// A suite: it answers, or panics with, what went wrong.
struct Suite {
    name: &'static str,
    /// What it needs, as `WITHOUT` names it; none for what every machine has.
    needs: Option<&'static str>,
    /// Answers what went wrong.
    run: fn() -> Result<(), String>,
}

/// Every suite.
const SUITES: &[Suite] = &[
    Suite { name: "resource_manager", needs: Some("python"), run: resource_manager::run },
    Suite { name: "registry", needs: Some("python"), run: registry::run },
    Suite { name: "key_vault", needs: Some("python"), run: key_vault::run },
    Suite { name: "starting", needs: None, run: starting::run },
    Suite { name: "staged", needs: None, run: staged::run },
    Suite { name: "user_program", needs: None, run: user_program::run },
    Suite { name: "canary", needs: None, run: canary::run },
    Suite { name: "demo", needs: None, run: demo::run },
    Suite { name: "bad_input", needs: None, run: bad_input::run },
    Suite { name: "full_disk", needs: None, run: full_disk::run },
    Suite { name: "dealt_deaths", needs: None, run: dealt_deaths::run },
    Suite { name: "kills", needs: None, run: kills::run },
];

fn main() -> ExitCode {
    if env::args().nth(1).as_deref() == Some(user_program::ARGUMENT) {
        return user_program::serve();
    }
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("another TLS provider was installed before");
        return ExitCode::FAILURE;
    }
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    if arguments.iter().any(|argument| argument == "--list") {
        for suite in SUITES {
            println!("{}: test", suite.name);
        }
        return ExitCode::SUCCESS;
    }
    let chosen = arguments.iter().filter(|argument| !argument.starts_with('-')).collect::<Vec<_>>();
    let without = env::var("WITHOUT").unwrap_or_default();
    let without = without.split(',').map(str::trim).filter(|word| !word.is_empty()).collect::<Vec<_>>();
    if let Some(unknown) = without.iter().find(|word| !["python", "node", "go"].contains(word)) {
        eprintln!("WITHOUT names `{unknown}`: it takes python, node and go, with commas between them");
        return ExitCode::FAILURE;
    }
    let (mut failed, mut left_out) = (Vec::new(), Vec::new());
    for suite in SUITES {
        if !chosen.is_empty() && !chosen.iter().any(|word| suite.name.contains(word.as_str())) {
            continue;
        }
        if let Some(needs) = suite.needs.filter(|needs| without.contains(needs)) {
            left_out.push((suite.name, needs));
            continue;
        }
        println!("suite {} ...", suite.name);
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(suite.run))
            .unwrap_or_else(|_| Err("it panicked, see above".to_owned()))
        {
            Ok(()) => println!("suite {} ... ok, {:.1} s", suite.name, began.elapsed().as_secs_f64()),
            Err(problem) => {
                println!("suite {} ... FAILED: {problem}", suite.name);
                failed.push(suite.name);
            }
        }
    }
    for (suite, needs) in left_out {
        println!("left out: suite {suite}, because WITHOUT names {needs}");
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}

/// Runs a suite that is asynchronous.
fn block_on(suite: impl Future<Output = ()>) -> Result<(), String> {
    let runtime =
        tokio::runtime::Runtime::new().map_err(|error| format!("no runtime can be started: {error}"))?;
    runtime.block_on(suite);
    Ok(())
}
