//! Suites in which other people's programs judge our stand-ins. They have a harness of their own,
//! because what was left out must be seen, and the usual one swallows what a test prints.
//!
//! `WITHOUT=python` leaves out the suites that need Python; the run says so at its end. Words after
//! `--` choose suites by a part of their name, as in the usual harness.

mod python;
mod resource_manager;

use std::{env, process::ExitCode, time::Instant};

/// Suites that somebody else's program drives.
struct Suite {
    name: &'static str,
    /// What it needs, as `WITHOUT` names it.
    needs: &'static str,
    /// Answers what went wrong.
    run: fn() -> Result<(), String>,
}

/// Every suite.
const SUITES: &[Suite] = &[Suite { name: "resource_manager", needs: "python", run: resource_manager::run }];

fn main() -> ExitCode {
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
        if without.contains(&suite.needs) {
            left_out.push(suite);
            continue;
        }
        println!("suite {} ...", suite.name);
        let began = Instant::now();
        match (suite.run)() {
            Ok(()) => println!("suite {} ... ok, {:.1} s", suite.name, began.elapsed().as_secs_f64()),
            Err(problem) => {
                println!("suite {} ... FAILED: {problem}", suite.name);
                failed.push(suite.name);
            }
        }
    }
    for suite in left_out {
        println!("left out: suite {}, because WITHOUT names {}", suite.name, suite.needs);
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}
