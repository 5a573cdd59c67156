use std::collections::BTreeSet;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

mod bad;
mod units;

/// A directory that settings are loaded from, and the variables.
struct Place {
    dir: TempDir,
    variables: HashMap<String, String>,
    file: Option<PathBuf>,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("settings")).unwrap();
        Place { dir, variables: HashMap::new(), file: None }
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes `settings/NAME.toml` and sets `MQS_ENV`.
    fn environment(self, name: &str, text: &str) -> Self {
        std::fs::write(self.dir.path().join(format!("settings/{name}.toml")), text).unwrap();
        self.variable("MQS_ENV", name)
    }

    fn file(mut self, text: &str) -> Self {
        let path = self.dir.path().join("mine.toml");
        std::fs::write(&path, text).unwrap();
        self.file = Some(path);
        self
    }

    fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load_from(self.dir.path(), self.file.as_deref(), self.variables.clone())
    }

    /// The mistakes, without the directory.
    fn mistakes(&self) -> Vec<String> {
        let error = self.load().expect_err("there must be a mistake");
        let dir = format!("{}/", self.dir.path().display());
        error.mistakes().iter().map(|mistake| mistake.to_string().replace(&dir, "")).collect()
    }
}

fn defaults() -> Settings {
    Settings::default()
}

fn changed(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[test]
fn nothing_needs_to_be_set() {
    let place = Place::new();
    assert_eq!(place.load(), Ok(defaults()));
    assert_eq!(Settings::load_from("does/not/exist", None, HashMap::new()), Ok(defaults()));
    assert_eq!(defaults().check(), Ok(()));
}

#[test]
fn the_defaults_are_the_promised_ones() {
    let Settings { storage, shards, workers, tasks, limits, retention, shutdown, .. } = defaults();
    assert_eq!(storage.durability, Durability::Full);
    assert_eq!(storage.wal_limit, 64 << 20);
    assert!(!storage.allow_network_filesystem);
    assert_eq!((shards.count, shards.min, shards.max), (None, 1, None));
    assert_eq!(shards.target_wait, Duration::from_millis(1));
    assert_eq!((workers.count, workers.concurrency), (None, 16));
    assert_eq!((tasks.max_attempts, tasks.max_crashes, tasks.timeout), (5, 3, None));
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    assert_eq!((tasks.backoff_min, tasks.backoff_max), (second, 10 * minute));
    assert_eq!(tasks.ageing_per_level, minute);
    assert_eq!((limits.payload, limits.result, limits.bulk), (1 << 20, 1 << 20, 10_000));
    assert_eq!((retention.results, retention.dead), (24 * 60 * minute, 30 * 24 * 60 * minute));
    assert_eq!(shutdown.deadline, 30 * second);
}

/// The names of all leaves of a serialised value.
fn leaves(value: &serde_json::Value, name: &str, found: &mut BTreeSet<String>) {
    let Some(object) = value.as_object() else {
        found.insert(name.to_owned());
        return;
    };
    for (key, value) in object {
        let dot = if name.is_empty() { "" } else { "." };
        leaves(value, &format!("{name}{dot}{key}"), found);
    }
}

fn keys_of_toml(text: &str) -> Vec<(String, Given)> {
    flatten(File::from_str(text, FileFormat::Toml).collect().unwrap())
}

#[test]
fn default_toml_has_exactly_the_keys_that_there_are() {
    let mut fields = BTreeSet::new();
    leaves(&serde_json::to_value(defaults()).unwrap(), "", &mut fields);
    let known: BTreeSet<_> = KEYS.iter().map(|key| key.name.to_owned()).collect();
    let file: BTreeSet<_> = keys_of_toml(DEFAULTS).into_iter().map(|(key, _)| key).collect();
    assert_eq!(fields, known, "the fields of Settings, and the keys");
    assert_eq!(file, known, "default.toml, and the keys");
    assert_eq!(known.len(), KEYS.len(), "no key twice");
}

#[test]
fn default_toml_explains_each_key_in_the_order_of_the_table() {
    let mut section = String::new();
    let mut comment = String::new();
    let mut order = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some(text) = line.strip_prefix("# ") {
            comment += text;
            continue;
        } else if let Some((key, _)) = line.split_once(" = ") {
            assert!(comment.len() > 40, "{section}.{key} needs its unit, range and reason");
            assert!(comment.ends_with('.'), "{section}.{key}: {comment:?} is no sentence");
            order.push(format!("{section}.{key}"));
        }
        comment.clear();
    }
    let table: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(order, table);
}

#[test]
fn the_shipped_environments_hold_differences_only() {
    let environments = [
        ("development", include_str!("../../settings/development.toml")),
        ("production", include_str!("../../settings/production.toml")),
    ];
    for (name, text) in environments {
        let settings = Place::new().environment(name, text).load().unwrap();
        assert_eq!(settings.check(), Ok(()), "{name}");
        let mut copies = (defaults(), settings);
        for (key, _) in keys_of_toml(text) {
            let key = Key::find(&key).unwrap();
            let same = key.get(&mut copies.0) == key.get(&mut copies.1);
            assert!(!same, "{name}: {} is the default", key.name);
        }
    }
}

#[test]
fn later_layers_win() {
    let low = "[storage]\ndir = 'low'\n[shards]\ncount = 2\n[workers]\ncount = 2";
    let place = Place::new().environment("test", low);
    let settings = place.load().unwrap();
    assert_eq!((settings.storage.dir, settings.shards.count), ("low".into(), Some(2)));

    let place = place.file("[shards]\ncount = 3\n[workers]\ncount = 3");
    let settings = place.load().unwrap();
    assert_eq!((settings.storage.dir, settings.shards.count), ("low".into(), Some(3)));

    let settings = place.variable("MQS__WORKERS__COUNT", "4").load().unwrap();
    assert_eq!((settings.shards.count, settings.workers.count), (Some(3), Some(4)));
}

#[test]
fn the_users_file_can_be_named_by_a_variable() {
    let place = Place::new();
    let path = place.dir.path().join("named.toml");
    std::fs::write(&path, "[shards]\ncount = 3").unwrap();
    let named = place.variable("MQS_SETTINGS", path.to_str().unwrap());
    assert_eq!(named.load().unwrap().shards.count, Some(3));
    let argument = named.file("[shards]\ncount = 4");
    let count = argument.load().unwrap().shards.count;
    assert_eq!(count, Some(4), "an argument goes before the variable");
    assert_eq!(Settings::load_with_file(path).unwrap().shards.count, Some(3));
}

#[test]
fn variables_set_every_kind_of_key() {
    let settings = Place::new()
        .variable("MQS__STORAGE__DIR", "over/there")
        .variable("MQS__STORAGE__DURABILITY", "normal")
        .variable("MQS__STORAGE__QUICK_CHECK", "false")
        .variable("MQS__STORAGE__CACHE", "1GiB")
        .variable("MQS__WORKERS__COUNT", "auto")
        .variable("MQS__TASKS__TIMEOUT", "1m30s")
        .variable("MQS__TASKS__AGEING_PER_LEVEL", "0")
        .variable("MQS__LIMITS__PAYLOAD", "64KiB")
        .variable("MQS__SUPERVISION__RESTARTS", "0")
        .variable("mqs__limits__bulk", "7")
        .variable("MQS_UNRELATED", "ignored")
        .variable("MQSERVER", "ignored")
        .load();
    let expected = changed(|settings| {
        settings.storage.dir = "over/there".into();
        settings.storage.durability = Durability::Normal;
        settings.storage.quick_check = false;
        settings.storage.cache = 1 << 30;
        settings.tasks.timeout = Some(Duration::from_secs(90));
        settings.tasks.ageing_per_level = Duration::ZERO;
        settings.limits.payload = 64 << 10;
        settings.supervision.restarts = 0;
        settings.limits.bulk = 7;
    });
    assert_eq!(settings, Ok(expected));
}

#[test]
fn the_python_names_work_in_files_and_variables() {
    let expected = changed(|settings| {
        settings.storage.dir = "python".into();
        settings.workers.count = Some(3);
        settings.shards.count = Some(2);
    });
    let file = Place::new().file("middleware_path = 'python'\nmax_workers = 3\nmiddleware_num = 2");
    assert_eq!(file.load().as_ref(), Ok(&expected));
    let variables = Place::new()
        .variable("MQS__MIDDLEWARE_PATH", "python")
        .variable("MQS__MAX_WORKERS", "3")
        .variable("MQS__MIDDLEWARE_NUM", "2");
    assert_eq!(variables.load().as_ref(), Ok(&expected));
    let over = file.variable("MQS__SHARDS__COUNT", "5").load().unwrap();
    assert_eq!(over.shards.count, Some(5), "a later layer wins over a name of an earlier one");
}

#[test]
fn two_names_of_one_key_must_agree() {
    let same = Place::new().file("max_workers = 3\n[workers]\ncount = 3");
    assert_eq!(same.load().unwrap().workers.count, Some(3));
    let different = Place::new().file("max_workers = 3\n[workers]\ncount = 4");
    let mistakes = different.mistakes();
    assert_eq!(
        mistakes,
        ["workers.count is 4, and 3 as max_workers in mine.toml; allowed is one value"]
    );
}

#[test]
fn saved_settings_are_the_same_when_read_again() {
    let settings = changed(|settings| {
        settings.storage.durability = Durability::Normal;
        settings.workers.count = Some(4);
        settings.tasks.timeout = Some(Duration::new(3, 500_000_001));
        settings.limits.payload = 1_000_001;
    });
    for settings in [defaults(), settings] {
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(json.clone()).unwrap(), settings);

        let mut place = Place::new();
        for (section, keys) in json.as_object().unwrap() {
            for (key, value) in keys.as_object().unwrap() {
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                let name = variable_name(&format!("{section}.{key}"));
                place = place.variable(&name, &text);
            }
        }
        assert_eq!(place.load(), Ok(settings));
    }
}

#[test]
fn sections_have_the_defaults_of_the_file() {
    assert_eq!(Storage::default(), defaults().storage);
    assert_eq!(Supervision::default(), defaults().supervision);
}

#[test]
fn shards_follow_the_load_within_bounds_or_are_fixed() {
    let mut shards = defaults().shards;
    assert_eq!(*shards.resolved_range().start(), 1);
    assert!((1..=8).contains(shards.resolved_range().end()));
    (shards.min, shards.max) = (2, Some(5));
    assert_eq!(shards.resolved_range(), 2..=5);
    shards.count = Some(7);
    assert_eq!(shards.resolved_range(), 7..=7, "a number fixes it");
    (shards.count, shards.min, shards.max) = (None, 20, None);
    assert_eq!(shards.resolved_range(), 20..=20, "more than there are cores");
}

#[test]
fn workers_follow_the_machine_or_the_setting() {
    let mut workers = defaults().workers;
    assert!((1..=256).contains(&workers.resolved_count()));
    workers.count = Some(7);
    assert_eq!(workers.resolved_count(), 7);
}
