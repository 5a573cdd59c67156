//! The panics of the process: counted, and printed unless they are on purpose. Those that a queue catches
//! in tasks and codecs may not be among them: its hook hides them, and they are failures of a kind of
//! their own.

use std::any::Any;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// Prints no panic that says that it is on purpose, or that has nothing to say, but with the variable
/// PROVE_TRACE. There are tens of thousands of those, and looking up where each was takes longer than
/// the rest of its case.
pub(crate) fn hide_those_on_purpose() {
    if std::env::var_os("PROVE_TRACE").is_some() {
        return;
    }
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if text(panic.payload()).is_some_and(|text| !text.contains("on purpose")) {
            usual(panic);
        }
    }));
}

/// What a panic says, if it is made of a text.
pub(crate) fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there have been since the first call. They are printed as without this.
pub(crate) fn count() -> u64 {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICS.fetch_add(1, Ordering::AcqRel);
            usual(panic);
        }));
    });
    PANICS.load(Ordering::Acquire)
}
