//! What fuzzing has found is replayed: the corpus of each target in `fuzz/`, without a fuzzer.
#![expect(clippy::unwrap_used, reason = "a test fails where its helper does")]

use std::fs;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

// the fuzz crate needs a nightly compiler, so its targets' bodies are mounted here
#[path = "../fuzz/src/hostile/mod.rs"]
#[allow(unreachable_pub, missing_docs, reason = "it is the public interface of another crate")]
mod hostile;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts the panics of the process. Those of tasks and codecs the queue catches, and its hook hides
/// them: the targets look at the failures that they come to.
fn watch_panics() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::AcqRel);
            usual(panic);
        }));
    });
}

/// Gives a target each file of its corpus, and each of those cut in two places.
fn replay(target: &str, run: fn(&[u8])) {
    watch_panics();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        run(&bytes);
        run(&bytes[..bytes.len() / 2]);
        replayed += 1;
    }
    assert!(replayed >= 5, "there are only {replayed} files for {target}");
    assert_eq!(PANICS.load(Ordering::Acquire), 0, "something panicked");
}

#[test]
fn hostile_payloads_are_values_or_errors() {
    replay("payloads", hostile::payloads);
}

#[test]
fn hostile_names_are_known_or_errors() {
    replay("names", hostile::names);
}

#[test]
fn hostile_settings_are_checked_or_errors() {
    replay("settings", hostile::settings);
}

#[test]
fn hostile_submissions_end_or_are_errors() {
    replay("submissions", hostile::submissions);
}

#[test]
fn hostile_databases_run_nothing_that_nobody_submitted() {
    replay("databases", hostile::databases);
}
