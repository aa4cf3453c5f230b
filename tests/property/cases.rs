//! Every command that there is, in the situations that differ. A new command joins this list, or the
//! test below fails.

use std::collections::BTreeSet;

use runtime_platform::{
    events::COMMANDS,
    functions,
    services::runtime_drift_detection_service::{FindingStatus, RuntimeDriftFinding},
};
use serde_json::json;

use crate::support::{
    builders::{
        IMAGE, Order, bind, bind_secret, bind_secret_other, deploy, deploy_other, provision,
        publish_configuration, remediate, rollback, rotate, scale,
    },
    fakes::compute::Behaviour,
    test_platform::{RunResult, TestPlatform},
};

/// The app of the builders' workload.
const APP: &str = "reservations-api";

/// A command in a situation.
pub struct Case {
    pub name: &'static str,
    /// What was sent before, each to its end.
    before: Vec<Order>,
    pub order: Order,
    drift: Option<Drift>,
}

/// What somebody did behind the platform's back, and a sweep found and leaves to a person.
#[derive(Clone, Copy)]
enum Drift {
    /// The workload is reached from inside alone.
    Ingress,
    /// The vault is gone, in a prod environment.
    Vault,
}

impl Drift {
    /// Does it, and has it found.
    async fn happen(self, platform: &mut TestPlatform) {
        match self {
            Self::Ingress => platform.compute.change_settings(APP, |settings| settings.external = false),
            Self::Vault => {
                let resources = platform.infrastructure.world();
                let vault = resources.keys().find(|id| id.contains("/vaults/") && !id.contains("/roleA"));
                platform.infrastructure.meddle(vault.expect("there is a vault"), None);
            }
        }
        for _ in 0..2 {
            platform.sweep("DriftSweep", 300).await;
        }
    }

    /// The id of the finding, which is the same in every run.
    fn finding(self, before: &[Order]) -> String {
        let case =
            Case { name: "", before: before.to_vec(), order: remediate("x", "", ""), drift: Some(self) };
        let found = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let findings = case.prepare().await.states::<RuntimeDriftFinding>();
                let open = findings.iter().find(|finding| finding.status == FindingStatus::Open);
                open.expect("it was found").finding_id.to_string()
            })
        });
        found.join().unwrap()
    }
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
        if let Some(drift) = self.drift {
            drift.happen(&mut platform).await;
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
    let case = |name, before: &[Order], order| Case { name, before: before.to_vec(), order, drift: None };
    let drifted = |name, before: &[Order], drift: Drift| Case {
        drift: Some(drift),
        ..case(name, before, remediate("x", &drift.finding(before), "Manual"))
    };
    let prod = [provision("provision-0").with("/stage", json!("prod"))];
    let provisioned = provision("provision-0");
    let serving = [provisioned.clone(), deploy("deploy-0", "1.0")];
    let bound = [provisioned.clone(), bind("bind-0", "acme", "shared")];
    let pool = provisioned.clone().with("/isolationModel", "pool".into());
    let pooled = [pool.clone(), bind("bind-0", "acme", "pool")];
    let pooled_serving = [pooled[0].clone(), pooled[1].clone(), deploy("deploy-0", "1.0").of("acme")];
    let publish = |id: &str, level: &str| publish_configuration(id, json!({ "LOG_LEVEL": level }));
    let published = [provisioned.clone(), deploy("deploy-0", "1.0"), publish("publish-0", "debug")];
    // The least stays one: whether the inventory hears first of the deployment or of the scaling, which
    // topics do not promise, would else decide which of the two its own event names as its cause.
    let cpu = |id: &str, most: u32| scale(id, "Cpu", (1, most), json!({ "target": 60 }));
    let scaled = [provisioned.clone(), deploy("deploy-0", "1.0"), cpu("scale-0", 4)];
    let two = [provisioned.clone(), deploy("deploy-0", "1.0"), deploy("deploy-1", "1.1")];
    let with_secret = [&serving[..], &[bind_secret("secret-0", "db-password")]].concat();
    let others = [deploy_other("deploy-o", "1.0"), bind_secret_other("secret-o", "db-password")];
    let shared = [&with_secret[..], &others].concat();
    let rotated =
        [&with_secret[..], &[deploy("deploy-1", "1.1"), rotate("rotate-0", "db-password", "Manual")]]
            .concat();
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
        case("bind a tenant to a pool", std::slice::from_ref(&pool), bind("x", "acme", "pool")),
        case("bind a tenant to a pool again", &pooled, bind("x", "acme", "pool")),
        case("publish as a bound tenant", &pooled_serving, publish("x", "debug").of("acme")),
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
        case("rotate a secret of what serves", &with_secret, rotate("x", "db-password", "Manual")),
        case("rotate a compromised secret", &shared, rotate("x", "db-password", "Compromised")),
        case("rotate a secret that nobody is bound to", &serving, rotate("x", "db-password", "Manual")),
        case("roll back to before a rotation", &rotated, rollback("x")),
        case("scale what serves", &serving, cpu("x", 4)),
        case("scale what is scaled otherwise", &scaled, cpu("x", 6)),
        case("scale what is scaled like that", &scaled, cpu("x", 4)),
        case("scale what does not serve", std::slice::from_ref(&provisioned), cpu("x", 4)),
        case("deploy what is scaled", &scaled, deploy("x", "1.1")),
        case("roll back", &two, rollback("x")),
        drifted("put a workload right", &serving, Drift::Ingress),
        drifted("put a resource right", &prod, Drift::Vault),
        case("put right what was never found", &serving, remediate("x", "drift-00000000", "Auto")),
        case("put right what is nowhere", &[], remediate("x", "drift-00000000", "Auto")),
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
