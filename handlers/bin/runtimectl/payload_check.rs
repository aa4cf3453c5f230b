//! What can be told of a payload before it is sent: members that are missing or of the wrong kind.
//!
//! The platform judges again, and alone decides; this only spares a person the way there.

use serde_json::Value;

/// What a member has to be.
#[derive(Clone, Copy)]
enum Is {
    Text,
    Number,
    Object,
    List,
    OneOf(&'static [&'static str]),
}

const TARGETS: &[&str] = &["container-apps", "app-service", "aks"];

/// The members that a command cannot do without; `environmentId` comes with all but one.
fn members(command: &str) -> &'static [(&'static str, Is)] {
    match command {
        "ProvisionEnvironment" => {
            &[("name", Is::Text), ("stage", Is::Text), ("region", Is::Text), ("computeTargets", Is::List)]
        }
        "Deploy" => &[("workloads", Is::List)],
        "RollbackDeployment" => &[("reason", Is::Text)],
        "PublishConfiguration" => &[("settings", Is::Object)],
        "BindSecret" => &[
            ("moduleId", Is::Text),
            ("secretName", Is::Text),
            ("vaultUri", Is::Text),
            ("source", Is::OneOf(&["Generated", "External"])),
        ],
        "RotateSecret" => &[
            ("secretBindingId", Is::Text),
            ("reason", Is::OneOf(&["Scheduled", "Manual", "Compromised", "NearExpiry"])),
        ],
        "BindTenant" => &[
            ("boundTenantId", Is::Text),
            ("isolationModel", Is::OneOf(&["silo", "dedicated", "pool", "shared"])),
        ],
        "ApplyScalingPolicy" => &[
            ("serviceId", Is::Text),
            ("kind", Is::OneOf(&["Cpu", "Memory", "QueueDepth", "RequestRate", "Schedule", "Fixed"])),
            ("minReplicas", Is::Number),
            ("maxReplicas", Is::Number),
        ],
        "RemediateDrift" => &[("findingId", Is::Text), ("mode", Is::Text)],
        _ => &[],
    }
}

/// Everything that is wrong with a payload, each in a few words. Values are never repeated: a
/// payload may hold what nobody should read.
pub fn problems(command: &str, payload: &Value) -> Vec<String> {
    if !payload.is_object() {
        return vec!["the payload is no JSON object".to_owned()];
    }
    let mut found = Vec::new();
    if command != "ProvisionEnvironment" {
        check(payload, "", "environmentId", Is::Text, &mut found);
    }
    for (member, is) in members(command) {
        check(payload, "", member, *is, &mut found);
    }
    match command {
        "ProvisionEnvironment" => targets(payload, &mut found),
        "Deploy" => workloads(payload, &mut found),
        "RollbackDeployment"
            if payload.get("deploymentId").is_none() && payload.get("moduleId").is_none() =>
        {
            found.push(
                "`deploymentId` or `moduleId` is missing: one of them says what to roll back".to_owned(),
            );
        }
        _ => {}
    }
    found
}

fn targets(payload: &Value, found: &mut Vec<String>) {
    let Some(targets) = payload["computeTargets"].as_array() else { return };
    if targets.is_empty() {
        found.push("`computeTargets` is empty".to_owned());
    }
    if targets.iter().any(|target| !target.as_str().is_some_and(|target| TARGETS.contains(&target))) {
        found.push(format!("`computeTargets` may only name {}", TARGETS.join(", ")));
    }
}

fn workloads(payload: &Value, found: &mut Vec<String>) {
    let Some(workloads) = payload["workloads"].as_array() else { return };
    if workloads.len() != 1 {
        found.push(format!("`workloads` has {} entries, and exactly one is accepted", workloads.len()));
    }
    for (at, workload) in workloads.iter().enumerate() {
        let place = format!("workloads[{at}].");
        for member in ["moduleId", "componentType", "image"] {
            check(workload, &place, member, Is::Text, found);
        }
        check(workload, &place, "target", Is::OneOf(TARGETS), found);
    }
}

fn check(object: &Value, place: &str, member: &str, is: Is, found: &mut Vec<String>) {
    let Some(value) = object.get(member).filter(|value| !value.is_null()) else {
        found.push(format!("`{place}{member}` is missing"));
        return;
    };
    let (fits, wanted) = match is {
        Is::Text => {
            (value.as_str().is_some_and(|text| !text.is_empty()), "a text that is not empty".to_owned())
        }
        Is::Number => (value.is_u64(), "a whole number, 0 or more".to_owned()),
        Is::Object => (value.is_object(), "a JSON object".to_owned()),
        Is::List => (value.is_array(), "a list".to_owned()),
        Is::OneOf(names) => {
            (value.as_str().is_some_and(|text| names.contains(&text)), format!("one of {}", names.join(", ")))
        }
    };
    if !fits {
        found.push(format!("`{place}{member}` has to be {wanted}"));
    }
}

#[cfg(test)]
mod tests {
    use runtime_platform::events::COMMANDS;
    use serde_json::json;

    use super::*;

    #[test]
    fn every_command_but_one_asks_for_its_environment_and_each_for_something_more() {
        for command in COMMANDS {
            let found = problems(command, &json!({}));
            let asks = found.contains(&"`environmentId` is missing".to_owned());
            assert_eq!(asks, command != "ProvisionEnvironment", "{command}: {found:?}");
            assert!(found.len() > usize::from(asks), "{command}: {found:?}");
        }
    }

    #[test]
    fn a_deploy_is_checked_down_to_its_workload() {
        let workload =
            json!({"moduleId": "m", "componentType": "api", "image": "a/b:1", "target": "container-apps"});
        let good = json!({"environmentId": "env-1", "workloads": [workload]});
        assert_eq!(problems("Deploy", &good), Vec::<String>::new());
        let bad =
            json!({"environmentId": 1, "workloads": [{"moduleId": "m", "image": "", "target": "moon"}]});
        assert_eq!(
            problems("Deploy", &bad),
            [
                "`environmentId` has to be a text that is not empty",
                "`workloads[0].componentType` is missing",
                "`workloads[0].image` has to be a text that is not empty",
                "`workloads[0].target` has to be one of container-apps, app-service, aks",
            ]
        );
        assert_eq!(
            problems("Deploy", &json!({"environmentId": "env-1", "workloads": []})),
            ["`workloads` has 0 entries, and exactly one is accepted"]
        );
    }

    #[test]
    fn a_rollback_says_what_to_roll_back() {
        let said = problems("RollbackDeployment", &json!({"environmentId": "env-1", "reason": "errors"}));
        assert_eq!(said, ["`deploymentId` or `moduleId` is missing: one of them says what to roll back"]);
    }
}
