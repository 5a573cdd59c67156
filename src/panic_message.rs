//! Catching a panic with its message and its place.
//!
//! `catch_unwind` gives the message only. The place is known to the panic hook, so one is put
//! before the hook that is there, once per process; it notes the place for the thread that asked and
//! otherwise changes nothing.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, UnwindSafe};
use std::sync::Once;

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
        // a payload whose drop panics must not end the process
        drop(panic::catch_unwind(panic::AssertUnwindSafe(|| drop(payload))));
        match place {
            Some(place) => format!("{message} at {place}"),
            None => message,
        }
    })
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
