//! Every command that there is, in the situations that differ. A new command joins this list, or the
//! test below fails.

use std::collections::BTreeSet;

use runtime_platform::{events::COMMANDS, functions};
use serde_json::json;

use crate::support::{
    builders::{IMAGE, Order, bind, bind_secret, deploy, provision, publish_configuration, rollback},
    fakes::compute::Behaviour,
    test_platform::{RunResult, TestPlatform},
};

/// A command in a situation.
pub struct Case {
    pub name: &'static str,
    /// What was sent before, each to its end.
    before: Vec<Order>,
    pub order: Order,
}

impl Case {
    /// The situation, before the command.
    pub async fn prepare(&self) -> TestPlatform {
        let mut platform = TestPlatform::new();
        platform.compute.image(&format!("{IMAGE}:bad"), Behaviour::Answers(500));
        platform.registry.remove(&format!("{IMAGE}:missing"));
        for order in &self.before {
            platform.run(order).await;
        }
        platform
    }

    /// What comes of the command when nothing goes wrong.
    pub async fn undisturbed(&self) -> RunResult {
        let mut platform = self.prepare().await;
        platform.run(&self.order).await;
        platform.result()
    }
}

pub fn all() -> Vec<Case> {
    let case = |name, before: &[Order], order| Case { name, before: before.to_vec(), order };
    let provisioned = provision("provision-0");
    let serving = [provisioned.clone(), deploy("deploy-0", "1.0")];
    let bound = [provisioned.clone(), bind("bind-0", "acme", "shared")];
    let publish = |id: &str, level: &str| publish_configuration(id, json!({ "LOG_LEVEL": level }));
    let published = [provisioned.clone(), deploy("deploy-0", "1.0"), publish("publish-0", "debug")];
    let two = [provisioned.clone(), deploy("deploy-0", "1.0"), deploy("deploy-1", "1.1")];
    vec![
        case("provision anew", &[], provision("x")),
        case("provision what is in place", std::slice::from_ref(&provisioned), provision("x")),
        case("deploy first", std::slice::from_ref(&provisioned), deploy("x", "1.0")),
        case("deploy second", &serving, deploy("x", "1.1")),
        case("deploy what fails its gate", &serving, deploy("x", "bad")),
        case("deploy first what fails its gate", std::slice::from_ref(&provisioned), deploy("x", "bad")),
        case("deploy what its registry does not have", &serving, deploy("x", "missing")),
        case("deploy to nowhere", &[], deploy("x", "1.0")),
        case("bind a tenant", std::slice::from_ref(&provisioned), bind("x", "acme", "shared")),
        case("bind a tenant again", &bound, bind("x", "acme", "shared")),
        case("deploy as a bound tenant", &bound, deploy("x", "1.0").of("acme")),
        case("bind a tenant to nothing", &[], bind("x", "acme", "shared")),
        case("publish with nobody to apply it", std::slice::from_ref(&provisioned), publish("x", "debug")),
        case("publish to what serves", &serving, publish("x", "debug")),
        case("publish what is published", &published, publish("x", "debug")),
        case("publish to nowhere", &[], publish("x", "debug")),
        case(
            "bind a secret with nobody to read it",
            std::slice::from_ref(&provisioned),
            bind_secret("x", "db-password"),
        ),
        case("bind a secret of what serves", &serving, bind_secret("x", "db-password")),
        case("bind a secret to nothing", &[], bind_secret("x", "db-password")),
        case("roll back", &two, rollback("x")),
        case("roll back with nothing before", &serving, rollback("x")),
    ]
}

#[test]
fn every_command_has_its_cases() {
    let commands: BTreeSet<String> = functions::all()
        .into_iter()
        .map(|function| function.name.to_owned())
        .filter(|name| COMMANDS.contains(&name.as_str()))
        .collect();
    let cases: BTreeSet<String> = all().into_iter().map(|case| case.order.event_type).collect();
    assert_eq!(cases, commands, "a command without a case here is not known to survive redelivery");
}
