//! What the code written by the macros names. Not part of the public interface.

pub use std::clone::Clone;
pub use std::concat;
pub use std::convert::Into;
pub use std::option::Option::{self, Some};
pub use std::result::Result::{self, Ok};
pub use std::time::Duration;
pub use std::vec::Vec;
pub use std::{file, line, module_path};

pub use inventory;
pub use serde::Serialize;
pub use serde::de::DeserializeOwned;

pub use crate::cached::{Cached, CachedArguments};
pub use crate::codec::Codec;
pub use crate::registry::Discovered;
pub use crate::result::TaskResult;
pub use crate::submission::{CallbackRef, Submission};
pub use crate::task::{
    CallbackHandler, CallbackTask, FromContext, Handler, Requirement, Task, TaskContext, TaskError,
    TaskOptions, TaskReturn,
};

/// A submission whose arguments are stored.
#[must_use]
pub fn submit_stored<T: Task<Args: Serialize>>(arguments: T::Args) -> Submission<T> {
    Submission::new(arguments)
}

/// A submission whose arguments stay in memory.
#[must_use]
pub fn submit_cached<T: Task>(arguments: CachedArguments<T::Args>) -> Submission<T> {
    Submission::cached(arguments.into())
}

/// Copies a plain argument of a `use_cache` task for one attempt. Its name is what the compiler
/// says when the argument isn't `Clone`, `Send` and `Sync`.
pub fn plain_argument_cloned_for_each_attempt<T: Clone + Send + Sync + 'static>(argument: &T) -> T {
    argument.clone()
}

/// Checks one argument's type, so that the compiler can point at it.
pub const fn argument_to_store<T: Serialize + DeserializeOwned>() {}

/// Checks one cached argument's type, so that the compiler can point at it.
pub const fn cached_argument<T: Send + Sync + 'static>() {}
