//! What an answer costs in a large data directory: `cargo bench --bench large`.
//!
//! A thousand environments of one tenant with 10,000 services and more than 100,000 events in one file, with
//! everything else that the platform keeps of them. Every GET function is asked for its list, for its list
//! by environment, status and correlation, and for one thing by its id. The answers are the functions' own:
//! what the host and the network add is in the benchmark `commands`.

#[allow(dead_code, reason = "other benchmarks sum up rounds")]
mod machine;
#[path = "../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests' support is larger than what a benchmark needs")]
mod support;

use std::time::Instant;

use machine::quantile;
use runtime_platform::{
    ledger::EVENT,
    sweeps::{self, Kind},
};
use support::large::{Large, SERVICES};

const ENVIRONMENTS: usize = 1_030;
/// Answers to each question.
const ANSWERS: usize = 200;
/// What an answer may take at the 99th percentile, in milliseconds.
const AIM_MS: f64 = 50.0;

fn main() {
    machine::introduce();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the runtime starts");
    runtime.block_on(run());
}

async fn run() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("there is room for a directory");
    let began = Instant::now();
    let large = Large::fill(directory.path(), ENVIRONMENTS).await;
    let file = std::fs::metadata(directory.path().join("store.db")).expect("the file is there");
    println!(
        "{} environments, {} services, {} events, {} documents; {} MB, written in {:.0} s",
        large.environments,
        large.environments * SERVICES,
        large.environments * large.template.count(EVENT),
        large.documents,
        file.len() / 1_000_000,
        began.elapsed().as_secs_f64()
    );
    println!("{:44} {:>9} {:>9} {:>9}  of {ANSWERS}, in milliseconds", "GET", "median", "p99", "most");
    let mut worst: f64 = 0.0;
    for ask in large.asks().await {
        let mut took = Vec::with_capacity(ANSWERS);
        for number in 0..ANSWERS {
            let began = Instant::now();
            let answer = large.get(&ask, number * 7).await;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
            assert!(answer.status < 500, "{} was answered {}: {}", ask.name, answer.status, answer.body);
        }
        took.sort_by(f64::total_cmp);
        let [median, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(&took, share));
        worst = worst.max(p99);
        println!("{:44} {median:>9.2} {p99:>9.2} {most:>9.2}", ask.name);
    }
    println!("the slowest at p99: {worst:.1} ms; the aim is under {AIM_MS:.0} ms");
    let began = Instant::now();
    sweeps::start(&large.platform, Kind::Health).await.expect("the store and the bus are there");
    let sent = large.test.broker.waiting().len();
    let took = began.elapsed().as_secs_f64() * 1000.0;
    println!("a timer had {sent} environments swept, and took {took:.0} ms for it");
    println!("load average at the end: {}", machine::load());
}
