//! What is wrong with the settings: everything, not the first thing.

use super::keys::{ALIASES, KEYS};

/// The settings can't be used: every mistake that was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the settings have {}: {}", count(mistakes), join(mistakes))]
pub struct SettingsError {
    mistakes: Vec<SettingsMistake>,
}

impl SettingsError {
    /// An error with these mistakes, or none if there are none.
    pub(super) fn from_mistakes(mistakes: Vec<SettingsMistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(SettingsError { mistakes }) }
    }

    /// The mistakes, in the order in which they were found. There is at least one.
    #[must_use]
    pub fn mistakes(&self) -> &[SettingsMistake] {
        &self.mistakes
    }
}

/// One mistake in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsMistake {
    /// A key's value isn't allowed, or not together with another key's.
    #[error("{key} is {given}{}; allowed is {allowed}", within(origin.as_deref()))]
    Invalid {
        /// The key: section and name, with a dot between them.
        key: String,
        /// The file or variable that gives the value; none if the program does.
        origin: Option<String>,
        /// What was given, at most 80 characters of it.
        given: String,
        /// What would be allowed, in words.
        allowed: String,
    },

    /// There is no such key.
    #[error("there is no key {key}{}{}", within(Some(origin)), did_you_mean(suggestion.as_deref()))]
    Unknown {
        /// What was given as a key.
        key: String,
        /// The file or variable that names it.
        origin: String,
        /// The key that looks most like it.
        suggestion: Option<String>,
    },

    /// A file or a variable can't be read.
    #[error("cannot read {origin}: {reason}")]
    Unreadable {
        /// The file or variable.
        origin: String,
        /// Why not.
        reason: String,
    },
}

impl SettingsMistake {
    /// The key that the mistake is about, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            SettingsMistake::Invalid { key, .. } | SettingsMistake::Unknown { key, .. } => {
                Some(key)
            }
            SettingsMistake::Unreadable { .. } => None,
        }
    }

    /// The unknown key, with the known one that looks most like it.
    pub(super) fn unknown(key: &str, origin: &str) -> Self {
        SettingsMistake::Unknown {
            key: key.to_owned(),
            origin: origin.to_owned(),
            suggestion: nearest(key).map(ToOwned::to_owned),
        }
    }
}

fn count(mistakes: &[SettingsMistake]) -> String {
    match mistakes.len() {
        1 => "a mistake".to_owned(),
        more => format!("{more} mistakes"),
    }
}

fn join(mistakes: &[SettingsMistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn within(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" in {origin}")).unwrap_or_default()
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean {key}?")).unwrap_or_default()
}

/// The known key that is most like this one, if one is: in its section and name, or in its name
/// alone, and then more closely, for one in a wrong section.
fn nearest(key: &str) -> Option<&'static str> {
    let known = || KEYS.iter().map(|key| key.name).chain(ALIASES.map(|(alias, _)| alias));
    let below = known().find(|name| key.strip_prefix(name).is_some_and(|x| x.starts_with('.')));
    let (section, name) = split(key);
    let best = |changes: &dyn Fn(&'static str) -> Option<usize>| {
        let alike = known().filter_map(|known| changes(known).map(|changes| (changes, known)));
        alike.min_by_key(|(changes, _)| *changes).map(|(_, known)| known)
    };
    let in_both = |known| {
        let (known_section, known_name) = split(known);
        let most = |known: &str| 1 + known.len() / 4;
        let section = few_changes(section, known_section, most(known_section))?;
        Some(section + few_changes(name, known_name, most(known_name))?)
    };
    let in_name = |known| few_changes(name, split(known).1, split(known).1.len() / 5);
    below.or_else(|| best(&in_both)).or_else(|| best(&in_name))
}

/// The section and the name; the section of an alias is empty.
fn split(key: &str) -> (&str, &str) {
    key.split_once('.').unwrap_or(("", key))
}

/// How many changes make the texts equal, if that isn't too many.
fn few_changes(given: &str, known: &str, most: usize) -> Option<usize> {
    Some(distance(given, known)).filter(|changes| *changes <= most)
}

/// How many characters must be inserted, removed or replaced to make one text the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, from) in from.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (left, to) in to.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[row.len() - 1]
}
