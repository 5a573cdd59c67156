//! What the macros leave in the program for `discover` to find.

use std::fmt;

use super::{Definition, Place};
use crate::task::{CallbackTask, Task};

inventory::collect!(Discovered);

/// A `#[task]` or `#[callback]` somewhere in the program.
#[doc(hidden)]
pub struct Discovered {
    place: Place,
    definition: fn(Place) -> Definition,
}

impl Discovered {
    /// What `#[task]` leaves.
    #[must_use]
    pub const fn task<T: Task>(module_path: &'static str, file: &'static str, line: u32) -> Self {
        let place = Place { module_path, file, line };
        Discovered { place, definition: Definition::of_task::<T> }
    }

    /// What `#[callback]` leaves.
    #[must_use]
    pub const fn callback<C: CallbackTask>(
        module_path: &'static str,
        file: &'static str,
        line: u32,
    ) -> Self {
        let place = Place { module_path, file, line };
        Discovered { place, definition: Definition::of_callback::<C> }
    }

    pub(super) fn definition(&self) -> Definition {
        (self.definition)(self.place)
    }
}

impl fmt::Debug for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Discovered({} in {})", self.place, self.place.module_path)
    }
}

/// Everything that was left, by place: the linker's order means nothing.
pub(super) fn all() -> Vec<&'static Discovered> {
    let mut all: Vec<_> = inventory::iter::<Discovered>.into_iter().collect();
    all.sort_by_key(|item| (item.place.module_path, item.place.file, item.place.line));
    all
}

/// What was left in the module of this path and in those below it.
pub(super) fn below(prefix: &str) -> Vec<&'static Discovered> {
    let mut all = all();
    all.retain(|item| is_below(item.place.module_path, prefix));
    all
}

/// Whether a module's path is `prefix` or goes on after it with `::`.
pub(super) fn is_below(module_path: &str, prefix: &str) -> bool {
    let rest = module_path.strip_prefix(prefix);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
