//! File work away from the caller's thread, which may be an event loop.

use tokio::sync::oneshot;

use crate::error::{Error, Result, StartError};
use crate::proof;

/// Does some short work on a thread of its own. Dropping the future doesn't end it once it has begun.
///
/// # Errors
///
/// [`Error::Start`] if there is no thread to be had, or the work panicked.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if proof::on_one_thread() {
        return work();
    }
    let (answer, answered) = oneshot::channel();
    let work = move || {
        // nobody waits any more if the future was dropped
        drop(answer.send(work()));
    };
    let no_thread =
        |message: String| Error::Start { reasons: vec![StartError::Thread { message }] };
    let spawned = std::thread::Builder::new().name("mqs-files".into()).spawn(work);
    spawned.map_err(|error| no_thread(error.to_string()))?;
    answered.await.unwrap_or_else(|_| Err(no_thread("work on files ended in a panic".into())))
}
