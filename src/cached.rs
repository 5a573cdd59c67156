//! Arguments that are kept in memory instead of the file.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

/// An argument that is kept in memory and shared between a task's attempts: a socket, a channel, a
/// large buffer.
///
/// It derefs to the value. [`take`](Cached::take) moves the value out; an attempt after that ends
/// in [`LostArguments`](crate::FailureKind::LostArguments), and so does one after a restart of the
/// process. The queue drops its share when the task has ended.
///
/// Clones are shares of the same value.
pub struct Cached<T> {
    value: Arc<T>,
    kept: Kept<T>,
}

/// The queue's own share of a cached argument: what the next attempt gets.
#[doc(hidden)]
pub struct Kept<T>(Arc<Mutex<Option<Arc<T>>>>);

impl<T> Cached<T> {
    /// Makes a value that attempts can share.
    pub fn new(value: T) -> Self {
        let value = Arc::new(value);
        let kept = Kept(Arc::new(Mutex::new(Some(Arc::clone(&value)))));
        Cached { value, kept }
    }

    /// Moves the value out, so that no further attempt can run.
    ///
    /// # Errors
    ///
    /// Gives this share back if another one is alive: a clone of it, held by this attempt, by the
    /// submitter, or by an earlier attempt that is still running past its timeout.
    pub fn take(self) -> Result<T, Self> {
        let Cached { value, kept } = self;
        let mut home = kept.lock();
        let spare = home.take();
        drop(spare);
        match Arc::try_unwrap(value) {
            Ok(value) => Ok(value),
            Err(value) => {
                *home = Some(Arc::clone(&value));
                drop(home);
                Err(Cached { value, kept })
            }
        }
    }

    /// The queue's share; the value lives on in it alone.
    #[doc(hidden)]
    #[must_use]
    pub fn keep(self) -> Kept<T> {
        self.kept
    }
}

impl<T> Kept<T> {
    /// A share for one attempt; `None` if the value was taken.
    #[must_use]
    pub fn share(&self) -> Option<Cached<T>> {
        let value = Arc::clone(self.lock().as_ref()?);
        Some(Cached { value, kept: self.clone() })
    }

    /// Nothing panics while the lock is held, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Kept(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(..)")
    }
}

impl<T> Deref for Cached<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Clone for Cached<T> {
    fn clone(&self) -> Self {
        Cached { value: Arc::clone(&self.value), kept: self.kept.clone() }
    }
}

impl<T> From<T> for Cached<T> {
    fn from(value: T) -> Self {
        Cached::new(value)
    }
}

/// Doesn't show the value: it is an argument.
impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cached(..)")
    }
}

/// The cached arguments of one task, of a type that only its definition knows.
#[doc(hidden)]
pub trait CachedInput: Send + Sync {
    /// The definition's `Args` for a new attempt; `None` if something was taken.
    fn arguments(&self) -> Option<Box<dyn Any>>;
}

/// Cached arguments that count towards `limits.cached_arguments` for as long as the queue or an
/// attempt holds them.
pub(crate) struct Counted {
    input: Arc<dyn CachedInput>,
    _permit: OwnedSemaphorePermit,
}

impl Counted {
    pub(crate) fn new(input: Arc<dyn CachedInput>, permit: OwnedSemaphorePermit) -> Self {
        Counted { input, _permit: permit }
    }
}

impl CachedInput for Counted {
    fn arguments(&self) -> Option<Box<dyn Any>> {
        self.input.arguments()
    }
}

/// The arguments of a submission to a definition with a cached handler: a source of fresh `Args`
/// for each attempt.
pub struct CachedArguments<A> {
    input: Arc<dyn CachedInput>,
    arguments: PhantomData<fn() -> A>,
}

/// Shows nothing: these are arguments.
impl fmt::Debug for dyn CachedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachedInput(..)")
    }
}

struct Source<F>(F);

impl<A: 'static, F: Fn() -> Option<A> + Send + Sync> CachedInput for Source<F> {
    fn arguments(&self) -> Option<Box<dyn Any>> {
        (self.0)().map(|arguments| Box::new(arguments) as Box<dyn Any>)
    }
}

impl<A: 'static> CachedArguments<A> {
    /// Arguments that `source` makes for each attempt. Where it says `None`, the task ends in
    /// [`LostArguments`](crate::FailureKind::LostArguments).
    pub fn new(source: impl Fn() -> Option<A> + Send + Sync + 'static) -> Self {
        CachedArguments { input: Arc::new(Source(source)), arguments: PhantomData }
    }
}

impl<A> From<CachedArguments<A>> for Arc<dyn CachedInput> {
    fn from(arguments: CachedArguments<A>) -> Self {
        arguments.input
    }
}

impl<A> fmt::Debug for CachedArguments<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachedArguments(..)")
    }
}

#[cfg(test)]
mod tests;
