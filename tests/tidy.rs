//! Rules of the source tree that no compiler checks.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

use std::fs;
use std::path::{Path, PathBuf};

/// The longest that a file of sources may be, in lines. What is longer is hard to keep in mind.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `directory` with this ending.
fn files(directory: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![root().join(directory)];
    while let Some(directory) = ahead.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                ahead.push(entry.path());
            } else if entry.path().extension().is_some_and(|found| found == ending) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<PathBuf> {
    [files("src", "rs"), files("actors", "rs")].concat()
}

/// The path from the root of the repository.
fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

/// A source without its comments and without what stands in quotes.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if first == '"' {
            quoted(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// The length of the string literal at the start.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether `path` (`rusqlite`, say) stands in the code as the start of a path, not as a part of
/// another word or another path.
fn names(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + path.len()..];
        let starts = !before.is_some_and(|c| c.is_alphanumeric() || "_:.".contains(c));
        let leads_on = after.starts_with("::") || after.starts_with(" as ");
        let used = code[..at].trim_end().ends_with("use") && after.starts_with(';');
        starts && (leads_on || used)
    })
}

/// Fails with every file that names `path` and isn't allowed to.
fn only(path: &str, allowed: impl Fn(&str) -> bool) {
    let strangers: Vec<String> = sources()
        .iter()
        .filter(|file| !allowed(&name(file)))
        .filter(|file| names(&code(&fs::read_to_string(file).unwrap()), path))
        .map(|file| name(file))
        .collect();
    assert!(strangers.is_empty(), "{path} is named in {strangers:?}");
}

#[test]
fn only_the_store_names_the_database_library() {
    only("rusqlite", |file| file.starts_with("src/store/"));
}

#[test]
fn only_the_codec_names_the_binary_format() {
    only("bincode", |file| file == "src/codec.rs" || file.starts_with("src/codec/"));
}

#[test]
fn only_the_settings_name_the_configuration_library() {
    only("config", |file| file == "src/settings.rs" || file.starts_with("src/settings/"));
}

#[test]
fn the_domain_names_neither_actors_nor_a_runtime() {
    let domain = ["record", "lifecycle", "retry", "load", "clock", "error", "order", "scaling"];
    let in_domain = |file: &str| {
        let stem = file.trim_start_matches("src/").trim_end_matches(".rs");
        domain.contains(&stem.split('/').next().unwrap()) && file.starts_with("src/")
    };
    only("tokio", |file| !in_domain(file));
    // but for one conversion from the error of a mailbox
    only("actix", |file| !in_domain(file) || file == "src/error.rs");
    let error = code(&fs::read_to_string(root().join("src/error.rs")).unwrap());
    for (at, _) in error.match_indices("actix::") {
        assert!(error[at..].starts_with("actix::MailboxError"), "{}", &error[at..at + 40]);
    }
}

#[test]
fn the_store_names_no_actors() {
    only("actix", |file| !file.starts_with("src/store/"));
    only("actix_rt", |file| !file.starts_with("src/store/"));
}

#[test]
fn nothing_is_unsafe_but_the_vfs_and_the_forks_of_the_tests() {
    let is_safe = |file: &PathBuf| !file.ends_with("src/vfs.rs") && !file.ends_with("src/fork.rs");
    let others = ["faults", "fuzz/src", "fuzz/fuzz_targets", "prove"]
        .iter()
        .flat_map(|others| files(others, "rs"));
    for file in sources().into_iter().chain(others.filter(is_safe)) {
        let code = code(&fs::read_to_string(&file).unwrap());
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found = words.filter(|word| *word == "unsafe").count();
        assert_eq!(found, 0, "in {}", name(&file));
    }
}

#[test]
fn no_file_is_too_long() {
    let more = ["tests", "examples", "macros/src", "faults", "mqs"];
    for file in more.iter().fold(sources(), |all, more| [all, files(more, "rs")].concat()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", name(&file));
    }
}

#[test]
fn every_source_opens_with_what_it_is_for() {
    for file in sources().iter().filter(|file| !name(file).ends_with("tests.rs")) {
        let text = fs::read_to_string(file).unwrap();
        let opens = text.lines().next().unwrap_or_default();
        let says = opens.strip_prefix("//! ").is_some_and(|line| line.split(' ').count() > 2);
        assert!(says, "{} opens with {opens:?}", name(file));
    }
}

#[test]
fn every_migration_is_run() {
    let list = fs::read_to_string(root().join("src/store/migrate.rs")).unwrap();
    let migrations = files("src", "sql");
    assert!(!migrations.is_empty());
    for (number, file) in (1..).zip(&migrations) {
        let file = file.file_name().unwrap().to_str().unwrap();
        assert!(file.starts_with(&format!("{number:04}_")), "{file} is the {number}th");
        let included = format!("include_str!(\"schema/{file}\")");
        assert!(list.contains(&included), "{file} isn't among the migrations");
    }
}

#[test]
fn the_readme_names_every_example() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let example = path.file_stem().unwrap().to_str().unwrap();
        assert!(readme.contains(example), "README.md doesn't name the example {example}");
    }
}

#[test]
fn the_changelog_says_what_is_new() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = format!("## {}", env!("CARGO_PKG_VERSION"));
    let headings = changelog.lines().filter(|line| line.starts_with("## "));
    let plain = headings.map(|line| line.replace(['[', ']'], ""));
    let current = |line: &String| {
        line.starts_with(&version) || line.to_lowercase().starts_with("## unreleased")
    };
    assert!(plain.into_iter().any(|line| current(&line)), "no heading for {version}");
}

#[test]
fn the_reader_of_sources_tells_code_from_comments_and_text() {
    let source = r#"// rusqlite::a
        let text = "rusqlite::\"b"; /* unsafe */ let quote = '"'; use config::Config;"#;
    let code = code(source);
    assert!(!names(&code, "rusqlite") && !code.contains("unsafe"));
    assert!(names(&code, "config"));
    assert!(!names("bincode::config::standard()", "config"));
    assert!(!names("my_config::load()", "config"));
    assert!(names("use bincode;", "bincode") && names("(bincode::serde::x)", "bincode"));
}
