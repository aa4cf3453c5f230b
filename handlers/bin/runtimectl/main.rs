//! The command line. It talks to the platform only as any client would: Service Bus for commands,
//! HTTP functions for reading. So it serves the platform on this machine and the one on Azure alike,
//! told apart by a context; there is no path from here into the platform's store.

use std::process::ExitCode;

use clap::Parser;

use crate::{cli::Cli, failure::Failure, output::Out};

mod bus;
mod cli;
mod client;
mod collections;
mod commands;
mod context;
mod demo;
mod explain;
mod failure;
mod feed;
mod follow;
mod get;
mod logs;
mod message;
mod operate;
mod output;
mod payload_check;
mod send;
mod stage;
mod story;
mod tree;
mod up;
mod watch;

/// One for the work at hand, one for what waits beside it.
const WORKER_THREADS: usize = 2;

fn main() -> ExitCode {
    if let Some(program) = std::env::var_os(up::WARD_PROGRAM) {
        return up::become_ward(&program);
    }
    if std::env::args().nth(1).as_deref() == Some(up::GUARD_ARGUMENT) {
        return up::guard();
    }
    let cli = Cli::parse();
    // Only a second installation could be refused, and this is the first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let out = Out::of_this_process();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()
        {
            Ok(runtime) => runtime,
            Err(error) => {
                return Failure::unusable("Cannot start the threads to work on").because(&error).tell(&out);
            }
        };
    let ended = runtime.block_on(dispatch(cli, &out));
    match ended {
        Ok(code) => code,
        Err(failure) => failure.tell(&out),
    }
}

async fn dispatch(cli: Cli, out: &Out) -> Result<ExitCode, Failure> {
    let Cli { connection, command } = cli;
    match command {
        cli::Command::Demo(args) => demo::run(&args, out).await,
        cli::Command::Up(args) => up::run(&args, out).await,
        cli::Command::Send(args) => send::run(&connection, &args, out).await,
        cli::Command::Get(args) => get::run(&connection, &args, out).await,
        cli::Command::Rollback(args) => operate::rollback(&connection, &args, out).await,
        cli::Command::Rotate(args) => operate::rotate(&connection, &args, out).await,
        cli::Command::Remediate(args) => operate::remediate(&connection, &args, out).await,
        cli::Command::Hold(args) => operate::hold(&connection, &args, out).await,
        cli::Command::Release(args) => operate::release(&connection, &args, out).await,
        cli::Command::Suppress(args) => operate::suppress(&connection, &args, out).await,
        cli::Command::Sweep(args) => operate::sweep(&connection, &args, out).await,
        cli::Command::Decommission(args) => operate::decommission(&connection, &args, out).await,
        cli::Command::Completion(args) => operate::completion(&args, out),
        cli::Command::Lift(args) => operate::lift(&connection, &args, out).await,
        cli::Command::Cancel(args) => operate::cancel(&connection, &args, out).await,
        cli::Command::Watch(args) => watch::run(&connection, &args, out).await,
        cli::Command::Explain(args) => explain::run(&connection, &args, out).await,
        cli::Command::Logs(args) => logs::run(&connection, &args, out).await,
        cli::Command::Stage(args) => stage::run(&args, out).await,
    }
}
