//! The tasks of the Python README, `app/engine/test.py`.
#![expect(clippy::print_stdout, reason = "the tasks print, as the originals do")]

use std::convert::Infallible;

use message_queue_sqlite::prelude::*;

/// The arguments stay in memory: the cache mode.
#[task(use_cache)]
pub(crate) async fn test(message: String) -> Result<String, Infallible> {
    println!("{message}");
    Ok("test".into())
}

/// The arguments are stored with the task.
#[task]
pub(crate) async fn test1(message: String) -> Result<String, Infallible> {
    println!("{message}1");
    Ok("test1".into())
}
