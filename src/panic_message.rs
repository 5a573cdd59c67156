//! Catching a panic with its message and its place.
//!
//! `catch_unwind` gives the message only. The place is known to the panic hook, so one is put
//! before the hook that is there, once per process; it notes the place for a thread that asked, and
//! calls the one before for all others.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, UnwindSafe};
use std::sync::Once;

use crate::proof::{self, Safeguard};

thread_local! {
    static CATCHING: Cell<usize> = const { Cell::new(0) };
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Calls `call`; if it panics, returns the message and the place.
pub(crate) fn catch<T>(call: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if CATCHING.with(Cell::get) > 0 {
                let place = info.location().map(ToString::to_string);
                PLACE.with(|cell| *cell.borrow_mut() = place);
            } else {
                before(info);
            }
        }));
    });
    CATCHING.with(|depth| depth.set(depth.get() + 1));
    let result = panic::catch_unwind(call);
    CATCHING.with(|depth| depth.set(depth.get() - 1));
    result.map_err(|payload| {
        let place = PLACE.with(|cell| cell.borrow_mut().take());
        let message = text(payload.as_ref());
        let_go(payload);
        match place {
            Some(place) => format!("{message} at {place}"),
            None => message,
        }
    })
}

/// Calls `call`; `None` if it panics. Nothing of the panic is left, whatever it was made of.
pub(crate) fn survive<T>(call: impl FnOnce() -> T) -> Option<T> {
    if !proof::stands(Safeguard::CaughtPanics) {
        return Some(call());
    }
    panic::catch_unwind(panic::AssertUnwindSafe(call)).map_err(let_go).ok()
}

/// Values of the program's that are dropped one by one: two panics at a time would end the process.
pub(crate) struct OneByOne<T>(pub(crate) Vec<T>);

impl<T> Default for OneByOne<T> {
    fn default() -> Self {
        OneByOne(Vec::new())
    }
}

impl<T: fmt::Debug> fmt::Debug for OneByOne<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Drop for OneByOne<T> {
    fn drop(&mut self) {
        for value in self.0.drain(..) {
            if survive(|| drop(value)).is_none() {
                tracing::error!("a value that was kept for a task panicked when it was dropped");
            }
        }
    }
}

/// Drops what a panic was made of. Its drop can panic as well, and what that is made of, too.
fn let_go(payload: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(panic::AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
}

fn text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_message_and_place() {
        let caught = catch(|| -> u8 { panic!("no {}", "luck") }).unwrap_err();
        assert!(caught.starts_with("no luck at "), "{caught}");
        assert!(caught.contains("panic_message.rs:"), "{caught}");
    }

    #[test]
    fn a_panic_made_of_what_panics_when_dropped_again_and_again_is_survived() {
        struct Endless;
        impl Drop for Endless {
            fn drop(&mut self) {
                panic::panic_any(Endless);
            }
        }
        assert_eq!(survive(|| panic::panic_any(Endless)), None::<()>);
        assert_eq!(survive(|| 7), Some(7));
    }

    #[test]
    fn a_payload_of_another_type_or_one_that_panics_when_dropped_is_survived() {
        struct Odd;
        impl Drop for Odd {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let caught = catch(|| panic::panic_any(Odd)).unwrap_err();
        assert!(caught.starts_with("a panic without a message"), "{caught}");
    }
}
