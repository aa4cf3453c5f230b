//! App settings: defaults from `local.settings.json`, what overrides them, and `%NAME%` in texts.

use std::{collections::BTreeMap, env, path::Path};

use serde_json::{Map, Value};

use super::problems::{Problems, kind, read_json};

/// What a handler keeps of our own environment beside the app settings: what any program needs to
/// find others, its files and its language, and nothing that says who we are.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LLVM_PROFILE_FILE",
];

/// Settings with this prefix override members of host.json; `__` stands between names.
const HOST_PREFIX: &str = "AzureFunctionsJobHost__";

/// The app settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::local::host) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// The `Values` of `local.settings.json`, where there is one, under `overrides`.
    pub fn read(app: &Path, overrides: BTreeMap<String, String>, problems: &Problems) -> Self {
        let path = app.join("local.settings.json");
        let mut settings = BTreeMap::new();
        if path.exists()
            && let Some(document) = read_json(&path, problems)
        {
            read_values(&path.display().to_string(), &document, &mut settings, problems);
        }
        settings.extend(overrides);
        Self(settings)
    }

    /// A setting; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let exact = self.0.get(name);
        let found = exact.or_else(|| {
            self.0.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        });
        found.map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// Puts settings in the place of `%NAME%`.
    ///
    /// # Errors
    /// The name of a setting that there is not.
    pub fn expand(&self, text: &str) -> Result<String, String> {
        expand(text, |name| self.get(name).map(str::to_owned).ok_or_else(|| name.to_owned()))
    }

    /// Puts environment variables in the place of `%NAME%`; one that is not set is empty.
    pub fn expand_environment(&self, text: &str) -> String {
        let environment = self.environment();
        let expanded =
            expand(text, |name| Ok::<_, String>(environment.get(name).cloned().unwrap_or_default()));
        expanded.expect("a variable that is not set is empty")
    }

    /// The environment of the handler, without what the host adds for each start.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let inherited = INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), env::var(name).ok()?)));
        inherited.chain(self.0.clone()).collect()
    }

    /// host.json as the settings override it.
    pub fn override_host(&self, host: &mut Value) {
        for (name, value) in &self.0 {
            if let Some(path) = name.strip_prefix(HOST_PREFIX) {
                let names: Vec<&str> = path.split("__").filter(|name| !name.is_empty()).collect();
                if !names.is_empty() {
                    set(host, &names, overriding_value(value));
                }
            }
        }
    }
}

fn read_values(file: &str, document: &Value, settings: &mut BTreeMap<String, String>, problems: &Problems) {
    if document.get("IsEncrypted").and_then(Value::as_bool) == Some(true) {
        problems.add(
            file,
            "IsEncrypted",
            "encrypted settings cannot be read: decrypt them with `func settings decrypt`",
        );
        return;
    }
    let values = match document.get("Values") {
        None => return,
        Some(Value::Object(values)) => values,
        Some(other) => {
            problems.add(file, "Values", format!("must be an object of texts, not {}", kind(other)));
            return;
        }
    };
    for (name, value) in values {
        match value {
            Value::String(text) => drop(settings.insert(name.clone(), text.clone())),
            Value::Bool(_) | Value::Number(_) => drop(settings.insert(name.clone(), value.to_string())),
            other => {
                problems.add(file, &format!("Values.{name}"), format!("must be a text, not {}", kind(other)))
            }
        }
        if name.is_empty() || name.contains(['=', '\0']) {
            problems.add(
                file,
                &format!("Values.{name}"),
                "a setting's name must not be empty or contain `=`",
            );
        }
    }
}

/// Lists and objects are given as JSON.
fn overriding_value(text: &str) -> Value {
    let json = text.trim_start().starts_with(['[', '{']).then(|| serde_json::from_str(text).ok()).flatten();
    json.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(place: &mut Value, names: &[&str], value: Value) {
    let Some((name, rest)) = names.split_first() else {
        *place = value;
        return;
    };
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let members = place.as_object_mut().expect("it was just made one");
    let known = members.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned();
    set(members.entry(known.unwrap_or_else(|| (*name).to_owned())).or_insert(Value::Null), rest, value);
}

/// A `%` without a second one stays as it is, and so does `%%`.
fn expand<E>(text: &str, lookup: impl Fn(&str) -> Result<String, E>) -> Result<String, E> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        expanded.push_str(before);
        let Some((name, end)) = after.split_once('%') else {
            expanded.push('%');
            rest = after;
            break;
        };
        match name {
            "" => expanded.push_str("%%"),
            name => expanded.push_str(&lookup(name)?),
        }
        rest = end;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(of: &[(&str, &str)]) -> Settings {
        Settings(of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn names_between_percent_signs_are_settings() {
        let settings = settings(&[("Queue", "deploy"), ("Empty", "")]);
        assert_eq!(settings.expand("%Queue%-x"), Ok("deploy-x".to_owned()));
        assert_eq!(settings.expand("100%"), Ok("100%".to_owned()));
        assert_eq!(settings.expand("%Other%"), Err("Other".to_owned()));
        assert_eq!(settings.expand("%Empty%"), Err("Empty".to_owned()));
        assert_eq!(settings.expand_environment("a%Other%b"), "ab");
    }

    #[test]
    fn settings_override_host_json_whatever_the_case() {
        let settings = settings(&[
            ("AzureFunctionsJobHost__customHandler__description__defaultExecutablePath", "/bin/h"),
            ("AzureFunctionsJobHost__customHandler__description__arguments", "[\"a\"]"),
            ("AzureFunctionsJobHost__extensions__serviceBus__maxConcurrentCalls", "3"),
            ("Other", "x"),
        ]);
        let mut host =
            json!({"version": "2.0", "CustomHandler": {"description": {"defaultExecutablePath": "handler"}}});
        settings.override_host(&mut host);
        assert_eq!(
            host,
            json!({"version": "2.0",
                "CustomHandler": {"description": {"defaultExecutablePath": "/bin/h", "arguments": ["a"]}},
                "extensions": {"serviceBus": {"maxConcurrentCalls": "3"}}})
        );
    }

    #[test]
    fn values_that_are_no_texts_are_named() {
        let problems = Problems::default();
        let mut settings = BTreeMap::new();
        read_values("f", &json!({"Values": {"A": "x", "B": {"c": 1}, "D": true}}), &mut settings, &problems);
        assert_eq!(
            settings,
            BTreeMap::from([("A".to_owned(), "x".to_owned()), ("D".to_owned(), "true".to_owned())])
        );
        let said: Vec<String> = problems.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(said, ["f: Values.B: must be a text, not an object"]);
    }
}
