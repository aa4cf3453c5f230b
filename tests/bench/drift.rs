//! What a drift sweep costs by the number of resources, beside Terraform's engine:
//! `cargo bench --bench drift`.
//!
//! Neither talks to a cloud: what is compared is what the engines themselves cost. Ours reads what is
//! desired and what is from texts in memory, compares, and judges what it finds. Terraform reads its
//! configuration and its state from two small files, refreshes and plans. One resource was changed.
//! Terraform's resources have three values each, the best that can be for it; ours have about forty.
//!
//! Each round is a process of its own, and rounds alternate. CPU time is printed beside time: it moves
//! least when the machine does other things.

mod drift_world;
mod machine;
#[expect(
    dead_code,
    reason = "the script of this benchmark lies beside it and not beside those of the suites"
)]
#[path = "../real/python.rs"]
mod python;
mod round;
mod terraform;

use std::process::{Command, ExitCode};

use drift_world::Drifted;
use round::{Growth, Round, Rounds};
use terraform::Terraform;

/// The first argument of a process that does one round of ours.
const SWEEP: &str = "sweep";
/// Numbers of resources; Terraform goes as far as its time goes.
const SIZES: [usize; 6] = [100, 500, 1_000, 5_000, 10_000, 100_000];
const TERRAFORM_MAX: usize = 5_000;
const ROUNDS: usize = 5;
/// Numbers of resources of which all drifted.
const ALL_DRIFTED: [usize; 3] = [1_000, 10_000, 100_000];
/// With fewer resources, beginning costs as much as comparing, and tells nothing about growth.
const GROWTH_FROM: usize = 500;
/// The aims: this many times Terraform's resources in the same time, and growth by no higher power.
const RATIO_AIM: f64 = 20.0;
const POWER_AIM: f64 = 1.1;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, resources, drifted] = arguments.as_slice()
        && first == SWEEP
    {
        let resources = resources.parse().expect("a number of resources comes second");
        let drifted = Drifted::of_word(drifted).expect("which of them drifted comes third");
        println!("{}", drift_world::sweep(resources, drifted).write());
        return ExitCode::SUCCESS;
    }
    machine::introduce();
    println!("neither talks to a cloud: this is what the engines themselves cost");
    let mut terraform = Terraform::prepare().inspect_err(|why| println!("{}", alone(why))).ok();
    let (mut all_ours, mut all_theirs) = (Vec::new(), Vec::new());
    for resources in SIZES {
        let (ours, theirs) = compare(resources, &mut terraform);
        all_ours.push(ours);
        all_theirs.extend(theirs);
    }
    println!("every resource drifted, and a finding of each");
    let mut all_drifted = Vec::new();
    for resources in ALL_DRIFTED {
        let rounds = (0..ROUNDS).map(|_| sweep(resources, Drifted::All)).collect();
        let rounds = Rounds { resources, rounds };
        println!("{resources} resources");
        rounds.print("ours");
        all_drifted.push(rounds);
    }
    println!("load average at the end: {}\n", machine::load());
    conclude(&all_ours, &all_theirs, &all_drifted);
    ExitCode::SUCCESS
}

fn alone(why: &str) -> String {
    format!("without Terraform from here on, so there is nothing to compare with: {why}")
}

/// All rounds of one size, alternating.
fn compare(resources: usize, terraform: &mut Option<Terraform>) -> (Rounds, Option<Rounds>) {
    println!("{resources} resources");
    let mut ours = Rounds { resources, rounds: Vec::new() };
    let mut theirs = Rounds { resources, rounds: Vec::new() };
    let mut peer = terraform.take().filter(|_| resources <= TERRAFORM_MAX);
    if let Some(terraform) = &mut peer {
        match terraform.make(resources) {
            Ok(version) => println!("  Terraform {version}"),
            Err(why) => {
                println!("  {}", alone(&why));
                peer = None;
            }
        }
    }
    for _ in 0..ROUNDS {
        ours.rounds.push(sweep(resources, Drifted::One));
        let Some(terraform) = &mut peer else { continue };
        match terraform.plan(resources, resources / 2) {
            Ok(round) => theirs.rounds.extend(round),
            Err(why) => {
                println!("  {}", alone(&why));
                peer = None;
            }
        }
    }
    *terraform = peer;
    ours.print("ours");
    let theirs = (!theirs.rounds.is_empty()).then_some(theirs);
    if let Some(theirs) = &theirs {
        theirs.print("Terraform");
        println!(
            "  ratio     {:.0} times faster; by CPU time {:.0} times",
            theirs.milliseconds() / ours.milliseconds(),
            theirs.cpu_milliseconds() / ours.cpu_milliseconds()
        );
    }
    (ours, theirs)
}

/// One round of ours.
fn sweep(resources: usize, drifted: Drifted) -> Round {
    let program = std::env::current_exe().expect("a program that runs has a file");
    let output = Command::new(program)
        .args([SWEEP, &resources.to_string(), drifted.word()])
        .output()
        .expect("the program starts again");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "a sweep of {resources} resources ended with {}: {said}", output.status);
    let answer = serde_json::from_slice(&output.stdout).expect("a round is one line of JSON");
    Round::read(&answer).expect("a round was written")
}

fn conclude(ours: &[Rounds], theirs: &[Rounds], all_drifted: &[Rounds]) {
    let verdict = |met: bool| if met { "met" } else { "MISSED" };
    for (name, rounds) in [("ours", ours), ("ours, where all drifted", all_drifted), ("Terraform", theirs)] {
        let (Some(time), Some(cpu)) =
            (growth(rounds, Rounds::milliseconds), growth(rounds, Rounds::cpu_milliseconds))
        else {
            continue;
        };
        println!(
            "growth of {name}: {:.4} ms for a further resource, by the power {:.2} of their number; by CPU time {:.4} ms, {:.2}",
            time.slope, time.power, cpu.slope, cpu.power
        );
    }
    for (name, rounds) in [("one drifted", ours), ("all drifted", all_drifted)] {
        // A short process is hardly ever interrupted on a busy machine, and a long one is: only CPU time
        // tells how the work itself grows.
        let growth =
            growth(rounds, Rounds::cpu_milliseconds).map(|growth| (growth, "CPU time")).or_else(|| {
                growth(rounds, Rounds::milliseconds)
                    .map(|growth| (growth, "time, since CPU time is not told"))
            });
        if let Some((growth, what)) = growth {
            println!(
                "linear, where {name}: power {:.2} by {what}; aim at most {POWER_AIM}: {}",
                growth.power,
                verdict(growth.power <= POWER_AIM)
            );
        }
    }
    let ratio = |theirs: &Rounds| {
        let ours = ours.iter().find(|ours| ours.resources == theirs.resources)?;
        Some((theirs.milliseconds() / ours.milliseconds(), theirs.resources))
    };
    if let Some((least, resources)) = theirs.iter().filter_map(ratio).min_by(|a, b| a.0.total_cmp(&b.0)) {
        println!(
            "a resource: at least {least:.0} times faster than Terraform (at {resources}); aim at least {RATIO_AIM}: {}",
            verdict(least >= RATIO_AIM)
        );
    }
}

/// None where too few sizes were measured, or the system does not tell.
fn growth(rounds: &[Rounds], milliseconds: impl Fn(&Rounds) -> f64) -> Option<Growth> {
    let counted = rounds.iter().filter(|rounds| rounds.resources >= GROWTH_FROM);
    let points: Vec<_> = counted.map(|rounds| (rounds.resources as f64, milliseconds(rounds))).collect();
    Growth::of(&points).filter(|growth| growth.power.is_finite())
}
