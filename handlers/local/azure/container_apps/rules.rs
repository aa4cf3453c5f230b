//! What a container app must be to be taken.

use serde_json::{Map, Value};

use crate::local::azure::refusals::ArmError;

/// The longest name of an app.
const APP_NAME_MAX: usize = 32;
/// The longest name of a revision, app and suffix together.
const REVISION_NAME_MAX: usize = 54;
/// The most containers of a revision.
const CONTAINERS_MAX: usize = 20;

/// Whether a text is lower-case letters, digits and single dashes, from a letter to a letter or digit.
fn is_label(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.ends_with(|last: char| last.is_ascii_lowercase() || last.is_ascii_digit())
        && text.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
        && !text.contains("--")
}

/// # Errors
/// When the name is none that a container app can have.
pub(super) fn app_name(name: &str) -> Result<(), ArmError> {
    if (2..=APP_NAME_MAX).contains(&name.len()) && is_label(name) {
        return Ok(());
    }
    Err(ArmError::bad_request(
        "ContainerAppInvalidName",
        format!(
            "`{name}` cannot be the name of a container app: it takes 2 to {APP_NAME_MAX} lower-case letters, digits \
             and single dashes, begins with a letter and ends with a letter or digit."
        ),
    ))
}

/// # Errors
/// When the suffix is none that a revision of this app can have.
pub(super) fn suffix(app: &str, suffix: &str) -> Result<(), ArmError> {
    let name = format!("{app}--{suffix}");
    if name.len() <= REVISION_NAME_MAX && is_label(suffix) {
        return Ok(());
    }
    Err(ArmError::bad_request(
        "ContainerAppInvalidRevisionName",
        format!(
            "`{suffix}` cannot be the suffix of a revision: it takes lower-case letters, digits and single dashes, begins \
             with a letter, ends with a letter or digit, and is at most {REVISION_NAME_MAX} characters with the app's name."
        ),
    ))
}

pub(super) fn invalid(field: &str, problem: &str) -> ArmError {
    ArmError::bad_request(
        "InvalidParameterValueInContainerTemplate",
        format!("The field `{field}` is invalid: {problem}"),
    )
}

/// # Errors
/// When the template cannot run.
pub(super) fn template(template: &Value, secrets: &[String]) -> Result<(), ArmError> {
    let containers =
        template.get("containers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if containers.is_empty() || containers.len() > CONTAINERS_MAX {
        let problem =
            format!("a revision has 1 to {CONTAINERS_MAX} containers, this one has {}.", containers.len());
        return Err(invalid("template.containers", &problem));
    }
    for (index, container) in containers.iter().enumerate() {
        let field = format!("template.containers[{index}]");
        let text = |name: &str| container.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("name").is_empty() {
            return Err(invalid(&format!("{field}.name"), "a container needs a name."));
        }
        if text("image").is_empty() || text("image").contains(char::is_whitespace) {
            return Err(invalid(&format!("{field}.image"), "a container needs an image, without spaces."));
        }
        for entry in container.get("env").and_then(Value::as_array).into_iter().flatten() {
            if let Some(secret) = entry.get("secretRef").and_then(Value::as_str)
                && !secrets.iter().any(|known| known == secret)
            {
                return Err(ArmError::bad_request(
                    "ContainerAppSecretRefNotFound",
                    format!("`{field}.env` refers to the secret `{secret}`, which the app does not have."),
                ));
            }
        }
    }
    Ok(())
}

/// # Errors
/// When the ingress cannot listen.
pub(super) fn ingress(ingress: &Value) -> Result<(), ArmError> {
    if ingress.is_null() {
        return Ok(());
    }
    let port = ingress.get("targetPort").and_then(Value::as_u64).unwrap_or_default();
    if (1..=65_535).contains(&port) {
        return Ok(());
    }
    Err(ArmError::bad_request(
        "ContainerAppInvalidIngressTargetPort",
        "The field `configuration.ingress.targetPort` is invalid: it takes a port from 1 to 65535.",
    ))
}

/// One revision that traffic may be given to.
pub(super) struct Candidate<'a> {
    pub name: &'a str,
    pub active: bool,
}

/// # Errors
/// When the weights do not add up, or name a revision that cannot serve.
pub(super) fn traffic(traffic: &[Value], revisions: &[Candidate<'_>]) -> Result<(), ArmError> {
    let refuse = |problem: String| {
        Err(ArmError::bad_request(
            "ContainerAppInvalidTrafficConfiguration",
            format!("The field `configuration.ingress.traffic` is invalid: {problem}"),
        ))
    };
    let mut total = 0;
    for entry in traffic {
        let name = entry.get("revisionName").and_then(Value::as_str);
        let latest = entry.get("latestRevision").and_then(Value::as_bool).unwrap_or_default();
        let weight = match entry.get("weight") {
            None | Some(Value::Null) => Some(0),
            Some(weight) => weight.as_u64().filter(|weight| *weight <= 100),
        };
        let Some(weight) = weight else {
            return refuse("a weight is a whole number from 0 to 100.".to_owned());
        };
        total += weight;
        match (name, latest) {
            (None, true) => {}
            (Some(name), false) => match revisions.iter().find(|candidate| candidate.name == name) {
                None => return refuse(format!("there is no revision `{name}`.")),
                Some(candidate) if !candidate.active && weight > 0 => {
                    return refuse(format!("the revision `{name}` is not active: activate it first."));
                }
                Some(_) => {}
            },
            _ => return refuse("each entry has either `revisionName` or `latestRevision: true`.".to_owned()),
        }
    }
    if total == 100 {
        Ok(())
    } else {
        refuse(format!("the weights add up to {total}, they must add up to 100."))
    }
}

/// The secrets to store: values that a patch leaves out are taken from what is there.
///
/// # Errors
/// When a secret has neither a name nor a value.
pub(super) fn secrets(given: &[Value], known: &[Value]) -> Result<Vec<Value>, ArmError> {
    let name = |secret: &Value| secret.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    given
        .iter()
        .map(|secret| {
            let has = |member: &str| secret.get(member).is_some_and(|value| !value.is_null());
            if !name(secret).is_empty() && (has("value") || has("keyVaultUrl")) {
                return Ok(secret.clone());
            }
            known
                .iter()
                .find(|known| !name(known).is_empty() && name(known) == name(secret))
                .cloned()
                .ok_or_else(|| {
                    ArmError::bad_request(
                        "ContainerAppSecretInvalid",
                        format!(
                            "The secret `{}` needs a value, or a keyVaultUrl and an identity.",
                            name(secret)
                        ),
                    )
                })
        })
        .collect()
}

/// Secrets as a GET shows them: no values.
pub(super) fn without_values(secrets: &mut Value) {
    for secret in secrets.as_array_mut().into_iter().flatten() {
        if let Some(secret) = secret.as_object_mut() {
            Map::shift_remove(secret, "value");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_azures() {
        for name in ["api", "a1", "reservations-api"] {
            assert_eq!(app_name(name), Ok(()), "{name}");
        }
        for name in ["a", "Api", "1api", "api-", "a--b", "a_b", &"a".repeat(33)] {
            assert_eq!(app_name(name).unwrap_err().code, "ContainerAppInvalidName", "{name}");
        }
        assert_eq!(suffix("api", "d3a6e1d40"), Ok(()));
        for text in ["3abc", "a--b", "A", "", &"a".repeat(50)] {
            assert_eq!(suffix("api", text).unwrap_err().code, "ContainerAppInvalidRevisionName", "{text}");
        }
    }

    #[test]
    fn weights_add_up_to_100_on_revisions_that_can_serve() {
        let revisions = [Candidate { name: "a--1", active: true }, Candidate { name: "a--2", active: false }];
        let verdict =
            |value: Value| traffic(value.as_array().unwrap(), &revisions).map_err(|error| error.message);
        let refused =
            |problem: &str| Err(format!("The field `configuration.ingress.traffic` is invalid: {problem}"));
        let table = [
            (json!([{ "latestRevision": true, "weight": 100 }]), Ok(())),
            (
                json!([{ "revisionName": "a--1", "weight": 100 }, { "revisionName": "a--2", "weight": 0 }]),
                Ok(()),
            ),
            (
                json!([{ "revisionName": "a--1", "weight": 90 }]),
                refused("the weights add up to 90, they must add up to 100."),
            ),
            (json!([]), refused("the weights add up to 0, they must add up to 100.")),
            (json!([{ "revisionName": "a--9", "weight": 100 }]), refused("there is no revision `a--9`.")),
            (
                json!([{ "revisionName": "a--2", "weight": 100 }]),
                refused("the revision `a--2` is not active: activate it first."),
            ),
            (
                json!([{ "revisionName": "a--1", "weight": 1.5 }]),
                refused("a weight is a whole number from 0 to 100."),
            ),
            (
                json!([{ "weight": 100 }]),
                refused("each entry has either `revisionName` or `latestRevision: true`."),
            ),
        ];
        for (given, expected) in table {
            assert_eq!(verdict(given.clone()), expected, "{given}");
        }
    }

    #[test]
    fn a_secret_keeps_its_value_where_a_patch_leaves_it_out() {
        let known = [json!({ "name": "a", "value": "1" })];
        assert_eq!(
            secrets(&[json!({ "name": "a" })], &known),
            Ok(vec![json!({ "name": "a", "value": "1" })])
        );
        assert_eq!(secrets(&[json!({ "name": "b" })], &known).unwrap_err().code, "ContainerAppSecretInvalid");
    }

    #[test]
    fn a_template_has_containers_with_images_and_known_secrets() {
        let with = |container: Value| {
            template(&json!({ "containers": [container] }), &["s".to_owned()]).map_err(|error| error.code)
        };
        assert_eq!(
            with(json!({ "name": "c", "image": "i:1", "env": [{ "name": "A", "secretRef": "s" }] })),
            Ok(())
        );
        assert_eq!(
            with(json!({ "name": "c", "image": "i:1", "env": [{ "name": "A", "secretRef": "t" }] })),
            Err("ContainerAppSecretRefNotFound".to_owned())
        );
        assert_eq!(with(json!({ "name": "c" })), Err("InvalidParameterValueInContainerTemplate".to_owned()));
    }
}
