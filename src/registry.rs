//! The definitions that a queue knows: mounted by hand or discovered, checked before it starts.

mod definition;
mod discovery;

use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;

use actix::Recipient;
use tracing::{debug, warn};

pub(crate) use definition::{Definition, Place, Role};
pub use discovery::Discovered;

use crate::error::StartError;
use crate::result::TaskResult;
use crate::task::{CallbackTask, DataMap, Task};

/// The longest name of a task, callback or subscriber, in bytes.
const NAME_MAX: usize = 63;

/// Whether a name matches `^[a-z0-9_][a-z0-9_.-]{0,62}$`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte == b'.' || byte == b'-';
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(first)
        && name.bytes().skip(1).all(rest)
}

/// Every mounted definition, in the order of mounting: a definition keeps its index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    definitions: Vec<Arc<Definition>>,
    indexes: HashMap<Arc<str>, usize>,
    duplicates: Vec<StartError>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Registry::default()
    }

    /// Mounts a task; its place is where this is called.
    #[track_caller]
    pub(crate) fn register<T: Task>(&mut self) {
        self.mount(Definition::of_task::<T>(Place::of(Location::caller())));
    }

    /// Mounts a durable callback; its place is where this is called.
    #[track_caller]
    pub(crate) fn register_callback<C: CallbackTask>(&mut self) {
        self.mount(Definition::of_callback::<C>(Place::of(Location::caller())));
    }

    /// Mounts a durable, named mailbox; its place is where this is called.
    #[track_caller]
    pub(crate) fn subscriber(&mut self, name: &str, mailbox: Recipient<TaskResult>) {
        self.mount(Definition::subscriber(name, mailbox));
    }

    /// Mounts every `#[task]` and `#[callback]` in the module of this path and in those below it;
    /// says how many there are. None is a warning.
    pub(crate) fn discover(&mut self, prefix: &str) -> usize {
        let prefix = prefix.trim_end_matches("::");
        let found = self.mount_all(discovery::below(prefix));
        match found {
            0 => warn!(prefix, "no task found; is the module or crate part of the program?"),
            _ => debug!(prefix, found, "tasks discovered"),
        }
        found
    }

    /// Mounts every `#[task]` and `#[callback]` of the program; says how many there are. None is a
    /// warning.
    pub(crate) fn discover_all(&mut self) -> usize {
        let found = self.mount_all(discovery::all());
        match found {
            0 => warn!("no task found in the whole program"),
            _ => debug!(found, "tasks discovered"),
        }
        found
    }

    fn mount_all(&mut self, discovered: Vec<&Discovered>) -> usize {
        let found = discovered.len();
        for item in discovered {
            self.mount(item.definition());
        }
        found
    }

    /// Adds a definition. The same one again changes nothing; another one of its name is kept out
    /// and reported by [`check`](Registry::check).
    pub(crate) fn mount(&mut self, definition: Definition) {
        let Some(&index) = self.indexes.get(&definition.name) else {
            self.indexes.insert(Arc::clone(&definition.name), self.definitions.len());
            self.definitions.push(Arc::new(definition));
            return;
        };
        let first = &self.definitions[index];
        if !first.is_same(&definition) {
            self.duplicates.push(StartError::DuplicateName {
                name: definition.name.to_string(),
                first: first.place.to_string(),
                second: definition.place.to_string(),
            });
        }
    }

    /// Every reason why a queue with these definitions and this data can't start.
    pub(crate) fn check(&self, data: &DataMap) -> Vec<StartError> {
        let own = self.definitions.iter().flat_map(|definition| definition.mistakes(data));
        self.duplicates.iter().cloned().chain(own).collect()
    }

    /// The names of all tasks and callbacks, sorted.
    pub(crate) fn task_names(&self) -> Vec<&str> {
        let tasks =
            self.definitions.iter().filter(|definition| definition.role != Role::Subscriber);
        let mut names: Vec<_> = tasks.map(|definition| &*definition.name).collect();
        names.sort_unstable();
        names
    }

    /// The definitions; their positions are their indexes.
    pub(crate) fn definitions(&self) -> &[Arc<Definition>] {
        &self.definitions
    }

    /// The definition of an index that this registry gave.
    pub(crate) fn definition(&self, index: usize) -> &Arc<Definition> {
        &self.definitions[index]
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Arc<Definition>> {
        self.index_of(name).map(|index| self.definition(index))
    }

    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.indexes.get(name).copied()
    }
}

#[cfg(test)]
mod tests;
