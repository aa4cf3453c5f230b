//! The function app: `host.json`, `local.settings.json` and every `function.json`, read once at
//! start. All that is wrong with them is said together.
//!
//! In a checkout the functions lie under `functions/`; a staged app has them beside `host.json`, as
//! Azure wants it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

mod function_json;
mod host_json;
mod problems;
mod settings;
mod timespan;

pub use problems::Problem;

pub(super) use function_json::{
    AuthLevel, DataType, Function, HttpTrigger, MessageTrigger, TimerTrigger, Trigger,
};
pub(super) use host_json::{HostConfig, Program, ServiceBusConfig};
pub(super) use settings::Settings;
pub(super) use timespan::parse as parse_timespan;

use problems::Problems;

/// Functions that one app may have.
const FUNCTIONS_MAX: usize = 500;
/// Characters of a function's name.
const NAME_CHARACTERS_MAX: usize = 128;

/// A function app that can be run.
#[derive(Debug)]
pub(super) struct App {
    pub config: HostConfig,
    pub functions: Vec<Function>,
    pub settings: Settings,
}

impl App {
    /// Reads the app in `folder`; `overrides` win over `local.settings.json`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(folder: &Path, overrides: BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        let problems = Problems::default();
        let settings = Settings::read(folder, overrides, &problems);
        let config = host_json::read(folder, &settings, &problems);
        let functions = read_functions(folder, &settings, &problems);
        same_routes(&functions, &problems);
        let found = problems.into_list();
        match config {
            Some(config) if found.is_empty() => Ok(Self { config, functions, settings }),
            _ => Err(found),
        }
    }
}

fn read_functions(app: &Path, settings: &Settings, problems: &Problems) -> Vec<Function> {
    let checkout = app.join("functions");
    let folder = if checkout.is_dir() { checkout } else { app.to_owned() };
    let place = folder.display().to_string();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.add(&place, "", format!("the folder cannot be read ({error})"));
            return Vec::new();
        }
    };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("function.json").is_file())
        .collect();
    found.sort();
    if found.len() > FUNCTIONS_MAX {
        problems.add(&place, "", format!("has {} functions, {FUNCTIONS_MAX} are the most", found.len()));
        return Vec::new();
    }
    if found.is_empty() {
        problems.add(&place, "", "no folder in it has a function.json, so there is nothing to run");
    }
    found.iter().filter_map(|path| read_function(path, settings, problems)).collect()
}

fn read_function(folder: &Path, settings: &Settings, problems: &Problems) -> Option<Function> {
    let file = folder.join("function.json");
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= NAME_CHARACTERS_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !name.eq_ignore_ascii_case("host");
    if !is_name {
        let problem = format!(
            "the folder `{name}` is no function's name: it begins with a letter and has up to {NAME_CHARACTERS_MAX} letters, digits, `_` and `-`, and is not `host`"
        );
        problems.add(&file.display().to_string(), "", problem);
    }
    function_json::read(name, &file, settings, problems)
}

/// Two functions must not answer the same requests.
fn same_routes(functions: &[Function], problems: &Problems) {
    let http: Vec<(&Function, &HttpTrigger)> = functions
        .iter()
        .filter_map(|function| match &function.trigger {
            Trigger::Http(http) => Some((function, http)),
            Trigger::Messages(_) | Trigger::Timer(_) => None,
        })
        .collect();
    for (index, (second, second_http)) in http.iter().enumerate() {
        let first = http[..index].iter().find(|(_, first_http)| first_http.overlaps(second_http));
        if let Some((first, _)) = first {
            let problem = format!(
                "the function `{}` has the same route for the same method: change one of them",
                first.name
            );
            problems.add(&second.file, "bindings", problem);
        }
    }
}
