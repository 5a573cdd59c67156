//! The queue's settings: layers of files and variables over documented defaults.
//!
//! From the lowest layer to the highest:
//!
//! 1. `settings/default.toml`, embedded: every key with its unit, range and reason,
//! 2. `settings/$MQS_ENV.toml`, if the variable `MQS_ENV` is set,
//! 3. a file of the user's: `MQS_SETTINGS`, or the argument of [`Settings::load_with_file`],
//! 4. the variables `MQS__SECTION__KEY`,
//! 5. what the program sets in the loaded [`Settings`].
//!
//! No file is needed. Durations and sizes are texts with a unit, such as `"1m30s"` and `"64MiB"`.
//! The Python package's names `middleware_path`, `max_workers` and `middleware_num` work in files,
//! outside any section, and as variables (`MQS__MAX_WORKERS`).

mod keys;
mod mistakes;
mod sections;
#[cfg(test)]
mod tests;
mod units;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};
use serde::{Deserialize, Serialize};

use keys::{ALIASES, Given, KEYS, Key};

pub use mistakes::{SettingsError, SettingsMistake};
pub use sections::{
    Delivery, Durability, Limits, Retention, Shards, Shutdown, Storage, Supervision, Tasks, Workers,
};
pub use units::{ParseUnitError, parse_bytes, parse_duration};

/// Everything about a queue that can be set.
///
/// [`Settings::default`] is `settings/default.toml`; [`Settings::load`] adds files and variables.
/// Change the fields of either and give it to the builder, which calls [`Settings::check`].
///
/// ```
/// # use message_queue_sqlite::settings::Settings;
/// let mut settings = Settings::default();
/// settings.storage.dir = "my/queue".into();
/// settings.workers.count = Some(4);
/// assert!(settings.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Where the tasks are kept, and how safely.
    pub storage: Storage,
    /// How many files the tasks are spread over.
    pub shards: Shards,
    /// Who runs the tasks.
    pub workers: Workers,
    /// What tasks get that don't say otherwise.
    pub tasks: Tasks,
    /// What one submission may take, and what is kept in memory.
    pub limits: Limits,
    /// How results travel to mailboxes.
    pub delivery: Delivery,
    /// How long the records of ended tasks are kept.
    pub retention: Retention,
    /// What happens when an actor panics.
    pub supervision: Supervision,
    /// How the queue ends.
    pub shutdown: Shutdown,
}

const DEFAULTS: &str = include_str!("../settings/default.toml");

impl Default for Settings {
    fn default() -> Self {
        static EMBEDDED: LazyLock<Settings> = LazyLock::new(|| {
            Config::builder()
                .add_source(File::from_str(DEFAULTS, FileFormat::Toml))
                .build()
                .and_then(Config::try_deserialize)
                .expect("the embedded defaults are the same for everybody, and are tested")
        });
        EMBEDDED.clone()
    }
}

impl Settings {
    /// Loads the defaults, `settings/$MQS_ENV.toml`, the file `$MQS_SETTINGS` and the variables
    /// `MQS__SECTION__KEY`. It works with none of them. Paths are relative to the working
    /// directory. Opens nothing else.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] with every mistake: files that can't be read, unknown keys, values that
    /// aren't allowed.
    pub fn load() -> Result<Settings, SettingsError> {
        Settings::load_from_process(None)
    }

    /// As [`Settings::load`], with this file in place of `$MQS_SETTINGS`.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_with_file(file: impl AsRef<Path>) -> Result<Settings, SettingsError> {
        Settings::load_from_process(Some(file.as_ref()))
    }

    /// As [`Settings::load`], but from what is given: `settings/` is looked for in `base`, and only
    /// the `variables` given count. For tests, and for programs with an environment of their own.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn load_from(
        base: impl AsRef<Path>,
        file: Option<&Path>,
        variables: HashMap<String, String>,
    ) -> Result<Settings, SettingsError> {
        load(base.as_ref(), file, variables, Vec::new())
    }

    /// Finds every mistake; opens nothing.
    ///
    /// # Errors
    ///
    /// [`SettingsError`] with every value that isn't allowed, by itself or beside another.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut mistakes = Vec::new();
        self.find_mistakes(&mut mistakes);
        SettingsError::from_mistakes(mistakes)
    }

    fn load_from_process(file: Option<&Path>) -> Result<Settings, SettingsError> {
        let mut variables = HashMap::new();
        let mut mistakes = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| is_ours(name)) else { continue };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name.to_owned(), value)),
                Err(_) => mistakes.push(SettingsMistake::Unreadable {
                    origin: name.to_owned(),
                    reason: "it is not UTF-8".to_owned(),
                }),
            }
        }
        load(Path::new(""), file, variables, mistakes)
    }

    /// Adds what isn't allowed, but for keys that have a mistake already.
    fn find_mistakes(&self, mistakes: &mut Vec<SettingsMistake>) {
        let mut copy = self.clone();
        mistakes.extend(KEYS.iter().filter_map(|key| key.check(&mut copy).err()));
        for rule in self.rules() {
            let known = |key: &str| mistakes.iter().any(|mistake| mistake.key() == Some(key));
            if !rule.holds && !known(rule.key) && !known(rule.other) {
                let key = Key::find(rule.key).expect("the rules name keys, and are tested");
                let other = Key::find(rule.other).expect("the rules name keys, and are tested");
                mistakes.push(SettingsMistake::Invalid {
                    key: rule.key.to_owned(),
                    origin: None,
                    given: key.get(&mut copy).show(),
                    allowed: format!(
                        "{} {}, which is {}",
                        rule.allowed,
                        rule.other,
                        other.get(&mut copy).show()
                    ),
                });
            }
        }
    }

    /// What must hold between two keys.
    fn rules(&self) -> [Rule; 5] {
        let Settings { shards, tasks, limits, supervision, .. } = self;
        [
            Rule {
                key: "shards.min",
                other: "shards.max",
                allowed: "at most",
                holds: shards.max.is_none_or(|max| shards.min <= max),
            },
            Rule {
                key: "tasks.backoff_min",
                other: "tasks.backoff_max",
                allowed: "at most",
                holds: tasks.backoff_min <= tasks.backoff_max,
            },
            Rule {
                key: "supervision.backoff_min",
                other: "supervision.backoff_max",
                allowed: "at most",
                holds: supervision.backoff_min <= supervision.backoff_max,
            },
            Rule {
                key: "limits.bulk",
                other: "limits.pending_submissions",
                allowed: "at most",
                holds: limits.bulk <= limits.pending_submissions,
            },
            Rule {
                key: "limits.payload",
                other: "limits.result",
                allowed: "at most \"900MiB\" together with",
                holds: limits.payload.saturating_add(limits.result) <= ROW_MAX,
            },
        ]
    }
}

/// What a row may hold: SQLite refuses one of more than 1,000,000,000 bytes.
const ROW_MAX: usize = 900 << 20;

/// A rule about two keys.
struct Rule {
    key: &'static str,
    other: &'static str,
    /// What the first may be, in words that the second's name follows.
    allowed: &'static str,
    holds: bool,
}

/// The directory that holds one file per environment.
const DIRECTORY: &str = "settings";

/// What the names of our variables begin with; two underscores part section and key.
const PREFIX: &str = "MQS";

fn is_ours(variable: &str) -> bool {
    let name = variable.to_ascii_uppercase();
    variable == "MQS_ENV" || variable == "MQS_SETTINGS" || name.starts_with("MQS__")
}

/// Applies the layers one after another, each checked by itself.
fn load(
    base: &Path,
    file: Option<&Path>,
    variables: HashMap<String, String>,
    mut mistakes: Vec<SettingsMistake>,
) -> Result<Settings, SettingsError> {
    let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let mut files = Vec::new();
    match variable("MQS_ENV") {
        Some(name) if name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') => {
            files.push(base.join(DIRECTORY).join(format!("{name}.toml")));
        }
        Some(name) => mistakes.push(SettingsMistake::Invalid {
            key: "MQS_ENV".to_owned(),
            origin: None,
            given: Given::Text(name.clone()).show(),
            allowed: "a name of letters, digits, _ and -".to_owned(),
        }),
        None => {}
    }
    files.extend(file.map(Path::to_owned).or_else(|| variable("MQS_SETTINGS").map(PathBuf::from)));

    let mut settings = Settings::default();
    for file in files {
        let origin = file.display().to_string();
        match read(&file) {
            Ok(values) => apply(flatten(values), |_| origin.clone(), &mut settings, &mut mistakes),
            Err(reason) => mistakes.push(SettingsMistake::Unreadable { origin, reason }),
        }
    }
    let environment =
        Environment::with_prefix(PREFIX).separator("__").source(Some(variables.clone()));
    match environment.collect() {
        Ok(values) => apply(flatten(values), variable_name, &mut settings, &mut mistakes),
        Err(error) => mistakes.push(SettingsMistake::Unreadable {
            origin: "the environment".to_owned(),
            reason: error.to_string(),
        }),
    }
    settings.find_mistakes(&mut mistakes);
    SettingsError::from_mistakes(mistakes).map(|()| settings)
}

/// The values of a TOML file, or why there are none.
fn read(file: &Path) -> Result<Map<String, Value>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    File::from_str(&text, FileFormat::Toml).collect().map_err(|error| match error {
        ConfigError::FileParse { cause, .. } => {
            // The first line says where, the last what; between them the source is drawn.
            let text = cause.to_string();
            let mut lines = text.lines();
            let place = lines.next().unwrap_or_default();
            lines.next_back().map_or_else(|| place.to_owned(), |what| format!("{place}: {what}"))
        }
        other => other.to_string(),
    })
}

/// The leaves of a tree of values, in the order of their names.
fn flatten(values: Map<String, Value>) -> Vec<(String, Given)> {
    let mut leaves = Vec::new();
    for (name, value) in values {
        let given = match value.kind {
            ValueKind::Table(table) if !table.is_empty() => {
                let inner = flatten(table).into_iter();
                leaves.extend(inner.map(|(key, given)| (format!("{name}.{key}"), given)));
                continue;
            }
            ValueKind::Table(_) if is_section(&name) => continue,
            ValueKind::Table(_) => Given::Other("a section"),
            ValueKind::String(text) => Given::Text(text),
            ValueKind::Boolean(switch) => Given::Switch(switch),
            ValueKind::I64(number) => Given::Whole(i128::from(number)),
            ValueKind::U64(number) => Given::Whole(i128::from(number)),
            ValueKind::I128(number) => Given::Whole(number),
            ValueKind::U128(_) => Given::Other("a number over all limits"),
            ValueKind::Float(_) => Given::Other("a number with a fraction"),
            ValueKind::Array(_) => Given::Other("a list"),
            ValueKind::Nil => Given::Other("nothing"),
        };
        leaves.push((name, given));
    }
    leaves.sort_by(|(one, _), (other, _)| one.cmp(other));
    leaves
}

/// Puts one layer's values over the settings, and collects its mistakes.
fn apply(
    leaves: Vec<(String, Given)>,
    origin: impl Fn(&str) -> String,
    settings: &mut Settings,
    mistakes: &mut Vec<SettingsMistake>,
) {
    for (name, given) in &leaves {
        let alias = ALIASES.into_iter().find(|(alias, _)| alias == name);
        let key = alias.map_or(name.as_str(), |(_, key)| key);
        let other = leaves.iter().find(|(name, _)| alias.is_some() && name == key);
        let result = match (Key::find(key), other) {
            (Some(_), Some((_, other))) if other.as_variable() != given.as_variable() => {
                Err(SettingsMistake::Invalid {
                    key: key.to_owned(),
                    origin: Some(origin(name)),
                    given: format!("{}, and {} as {name}", other.show(), given.show()),
                    allowed: "one value".to_owned(),
                })
            }
            (Some(key), _) => key.set(settings, given, &origin(name)),
            (None, _) if is_section(name) => Err(SettingsMistake::Invalid {
                key: name.clone(),
                origin: Some(origin(name)),
                given: given.show(),
                allowed: format!("a section, such as {}", keys_of(name)),
            }),
            (None, _) => Err(SettingsMistake::unknown(name, &origin(name))),
        };
        mistakes.extend(result.err());
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(section, _)| section == name))
}

fn keys_of(section: &str) -> String {
    let keys = KEYS.iter().filter(|key| key.name.starts_with(&format!("{section}.")));
    keys.map(|key| key.name).collect::<Vec<_>>().join(", ")
}

/// The variable that sets this key.
fn variable_name(key: &str) -> String {
    format!("{PREFIX}__{}", key.to_uppercase().replace('.', "__"))
}
