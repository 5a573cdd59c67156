//! Panics inside the queue. It survives those of its actors, so without this no test would notice.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, Once, PoisonError};

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes every panic of this process from now on that doesn't come from a test's own code.
pub(crate) fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
            let own = |file: &str| file.contains("tests/it/");
            if !panic.location().is_some_and(|place| own(place.file())) {
                SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            before(panic);
        }));
    });
}

/// Fails if there was one.
pub(crate) fn none() {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.is_empty(), "the queue panicked: {seen:?}");
}
