//! What the path of a request names: a resource, a collection, an action, or an operation.
//!
//! Names keep the case in which they were written; types take Azure's spelling; comparing is done on
//! [`ResourceId::key`], which has no case.

use percent_encoding::percent_decode_str;

use super::{
    refusals::ArmError,
    types::{self, TypeSpec},
};

/// The longest segment of a path, in bytes.
const SEGMENT_BYTES_MAX: usize = 260;
/// The most segments of a path.
const SEGMENTS_MAX: usize = 40;

/// A resource's name in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResourceId {
    /// As it was written, types in Azure's spelling.
    pub text: String,
    pub spec: &'static TypeSpec,
    /// The last name.
    pub name: String,
    /// What it is in: another resource, a group or a subscription.
    pub parent: String,
}

impl ResourceId {
    /// The id without case.
    pub(super) fn key(&self) -> String {
        self.text.to_ascii_lowercase()
    }

    pub(super) fn parent_key(&self) -> String {
        self.parent.to_ascii_lowercase()
    }

    /// The same resource under a parent whose id is spelt as it was first written.
    pub(super) fn under(&self, parent: &str) -> Self {
        let rest = &self.text[self.parent.len()..];
        Self { text: format!("{parent}{rest}"), parent: parent.to_owned(), ..self.clone() }
    }
}

/// Reads a resource's id, as a body refers to one.
pub(super) fn resource(text: &str) -> Option<ResourceId> {
    match parse(text, false) {
        Ok(Address::Resource(id)) => Some(id),
        _ => None,
    }
}

/// The name of the resource group in an id.
pub(super) fn group_name(id: &str) -> &str {
    id.split('/').nth(4).unwrap_or_default()
}

/// `/subscriptions/{id}` of an id.
pub(super) fn subscription_of(id: &str) -> String {
    id.split('/').take(3).collect::<Vec<_>>().join("/")
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Subscription(String),
    /// The resource groups of a subscription.
    Groups {
        scope: String,
    },
    /// Everything in a group or a subscription.
    Everything {
        scope: String,
    },
    Resource(ResourceId),
    /// The resources of one type in a scope.
    Collection {
        scope: String,
        spec: &'static TypeSpec,
    },
    Action {
        resource: ResourceId,
        action: String,
    },
    Operation {
        id: String,
        form: OperationForm,
    },
    /// Azure Monitor's metrics of a resource, or of a subscription.
    Metrics {
        scope: String,
    },
}

/// Which of an operation's two addresses is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperationForm {
    /// `Azure-AsyncOperation`: 200 with a status.
    Status,
    /// `Location`: 202 until it is over, then what the call itself would have answered.
    Result,
}

/// Reads a path. `acting` says that the request is a POST, whose last segment is an action.
///
/// # Errors
/// When the path is none of Resource Manager's, or names a type that is not known.
pub(super) fn parse(path: &str, acting: bool) -> Result<Address, ArmError> {
    let segments = segments(path)?;
    let words = segments.iter().map(String::as_str).collect::<Vec<_>>();
    let is = |word: &str, wanted: &str| word.eq_ignore_ascii_case(wanted);
    let [first, subscription, rest @ ..] = words.as_slice() else { return Err(unknown(path)) };
    if !is(first, "subscriptions") {
        return Err(unknown(path));
    }
    let scope = format!("/subscriptions/{subscription}");
    if let [before @ .., providers, namespace, last] = words.as_slice()
        && is(providers, "providers")
        && is(namespace, "Microsoft.Insights")
        && is(last, "metrics")
    {
        return Ok(Address::Metrics { scope: format!("/{}", before.join("/")) });
    }
    match rest {
        [] => Ok(Address::Subscription((*subscription).to_owned())),
        [word] if is(word, "resourceGroups") => Ok(Address::Groups { scope }),
        [word] if is(word, "resources") => Ok(Address::Everything { scope }),
        [word, id] if is(word, "operationResults") => {
            Ok(Address::Operation { id: (*id).to_owned(), form: OperationForm::Result })
        }
        [providers, _, locations, _, form, id]
            if is(providers, "providers") && is(locations, "locations") =>
        {
            let form = match *form {
                form if is(form, "operationStatuses") => OperationForm::Status,
                form if is(form, "operationResults") => OperationForm::Result,
                _ => return Err(unknown(path)),
            };
            Ok(Address::Operation { id: (*id).to_owned(), form })
        }
        [word, group] if is(word, "resourceGroups") => Ok(Address::Resource(group_id(&scope, group))),
        [word, group, word2] if is(word, "resourceGroups") && is(word2, "resources") => {
            Ok(Address::Everything { scope: format!("{scope}/resourceGroups/{group}") })
        }
        [word, group, rest @ ..] if is(word, "resourceGroups") => {
            within(&format!("{scope}/resourceGroups/{group}"), rest, acting, path)
        }
        rest => within(&scope, rest, acting, path),
    }
}

fn group_id(scope: &str, group: &str) -> ResourceId {
    let spec = types::find(types::GROUP).expect("resource groups are in the table");
    ResourceId {
        text: format!("{scope}/resourceGroups/{group}"),
        spec,
        name: group.to_owned(),
        parent: scope.to_owned(),
    }
}

/// Reads `providers/{namespace}/{type}/{name}...`, once or several times: resources that extend
/// others, as role assignments do, stand under a `providers` of their own.
fn within(scope: &str, mut rest: &[&str], acting: bool, path: &str) -> Result<Address, ArmError> {
    let mut parent = scope.to_owned();
    let mut found: Option<ResourceId> = None;
    while let [word, namespace, tail @ ..] = rest {
        if !word.eq_ignore_ascii_case("providers") {
            return Err(unknown(path));
        }
        rest = tail;
        let mut kind = (*namespace).to_owned();
        let mut first = true;
        loop {
            match rest {
                [] if first => return Err(unknown(path)),
                [] => break,
                [word, ..] if word.eq_ignore_ascii_case("providers") => break,
                [action] if acting => {
                    let resource = found.ok_or_else(|| unknown(path))?;
                    return Ok(Address::Action { resource, action: (*action).to_owned() });
                }
                [last] => {
                    let spec = known(&format!("{kind}/{last}"))?;
                    return Ok(Address::Collection { scope: parent, spec });
                }
                [part, name, tail @ ..] => {
                    kind = format!("{kind}/{part}");
                    let spec = known(&kind)?;
                    let own = spec.name.rsplit('/').next().unwrap_or(part);
                    let text = if first {
                        format!("{parent}/providers/{}/{own}/{name}", spec.namespace())
                    } else {
                        format!("{parent}/{own}/{name}")
                    };
                    found = Some(ResourceId { text: text.clone(), spec, name: (*name).to_owned(), parent });
                    parent = text;
                    first = false;
                    rest = tail;
                }
            }
        }
    }
    match (found, rest) {
        (Some(resource), []) => Ok(Address::Resource(resource)),
        _ => Err(unknown(path)),
    }
}

fn known(kind: &str) -> Result<&'static TypeSpec, ArmError> {
    types::find(kind).ok_or_else(|| {
        ArmError::not_found(
            "InvalidResourceType",
            format!("The resource type `{kind}` could not be found: this stand-in does not have it."),
        )
    })
}

fn segments(path: &str) -> Result<Vec<String>, ArmError> {
    let path = path.split('?').next().unwrap_or_default();
    let mut segments = Vec::new();
    for raw in path.split('/').filter(|segment| !segment.is_empty()) {
        let segment = percent_decode_str(raw).decode_utf8().map_err(|_| unknown(path))?;
        let fits = segment.len() <= SEGMENT_BYTES_MAX
            && !segment.contains('/')
            && !segment.contains(char::is_control);
        if !fits || segments.len() == SEGMENTS_MAX {
            return Err(unknown(path));
        }
        segments.push(segment.into_owned());
    }
    Ok(segments)
}

fn unknown(path: &str) -> ArmError {
    let shown = path.chars().take(SEGMENT_BYTES_MAX).collect::<String>();
    ArmError::not_found("NotFound", format!("`{shown}` names nothing that Resource Manager has."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups/Rg";

    fn id(path: &str) -> ResourceId {
        match parse(path, false).unwrap() {
            Address::Resource(id) => id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn types_take_azures_spelling_and_names_keep_theirs() {
        let id = id("/Subscriptions/s/resourcegroups/Rg/providers/microsoft.app/CONTAINERAPPS/Api");
        assert_eq!(id.text, format!("{GROUP}/providers/Microsoft.App/containerApps/Api"));
        assert_eq!((id.name.as_str(), id.parent.as_str(), id.spec.name), ("Api", GROUP, types::APP));
    }

    #[test]
    fn a_resource_may_extend_another() {
        let vault = format!("{GROUP}/providers/Microsoft.KeyVault/vaults/kv");
        let id = id(&format!("{vault}/providers/Microsoft.Authorization/roleAssignments/g"));
        assert_eq!((id.parent.as_str(), id.spec.name), (vault.as_str(), types::ROLE_ASSIGNMENT));
    }

    #[test]
    fn children_collections_actions_and_operations_are_told_apart() {
        let app = format!("{GROUP}/providers/Microsoft.App/containerApps/a");
        let revision = id(&format!("{app}/revisions/a--1"));
        assert_eq!((revision.parent.as_str(), revision.spec.name), (app.as_str(), types::REVISION));
        let spec = types::find(types::REVISION).unwrap();
        assert_eq!(
            parse(&format!("{app}/revisions"), false),
            Ok(Address::Collection { scope: app.clone(), spec })
        );
        assert_eq!(
            parse(&format!("{app}/revisions/a--1/activate"), true),
            Ok(Address::Action { resource: revision, action: "activate".into() })
        );
        assert_eq!(
            parse("/subscriptions/s/providers/Microsoft.App/locations/weu/operationStatuses/o", false),
            Ok(Address::Operation { id: "o".into(), form: OperationForm::Status })
        );
        assert_eq!(
            parse(&format!("{app}/providers/microsoft.insights/metrics"), false),
            Ok(Address::Metrics { scope: app })
        );
        assert_eq!(
            parse(&format!("{GROUP}/resources"), false),
            Ok(Address::Everything { scope: GROUP.into() })
        );
    }

    #[test]
    fn a_type_that_is_not_there_is_said_to_be_unknown() {
        let error = parse(&format!("{GROUP}/providers/Microsoft.Nope/x/y"), false).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code.as_str()), (404, "InvalidResourceType"));
        assert_eq!(parse("/else", false).unwrap_err().code, "NotFound");
    }
}
