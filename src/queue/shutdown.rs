//! How a queue ends.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::lock;
use crate::error::{Error, Result};
use crate::record::{ShardId, TaskId};

/// What a shutdown did and what it left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Attempts that were given back and will run again: not started, or cut off by the deadline.
    pub released: u64,
    /// Attempts whose threads didn't come back in time, with their tasks' names: blocking ones, and
    /// async ones that held a worker's thread. They are given back as well, so each may run a second
    /// time while its first attempt still does. Their contexts tell them to end.
    pub left_behind: Vec<(TaskId, String)>,
    /// Tasks that wait for the next start: ready, or for their time.
    pub waiting: u64,
    /// Results whose delivery to targets in memory wasn't over in time: it will be dead.
    pub undelivered: u64,
    /// Shards whose files couldn't be closed in order, and why. The next start recovers them.
    pub unclosed: Vec<(ShardId, String)>,
}

/// The queue's end: run once, waited for by all who ask.
#[derive(Debug)]
pub(super) struct Ending {
    stop: Mutex<Option<oneshot::Sender<Duration>>>,
    ended: watch::Receiver<Option<ShutdownReport>>,
}

impl Ending {
    pub(super) fn new(
        stop: oneshot::Sender<Duration>,
        ended: watch::Receiver<Option<ShutdownReport>>,
    ) -> Self {
        Ending { stop: Mutex::new(Some(stop)), ended }
    }

    pub(super) async fn run(&self, deadline: Duration) -> Result<ShutdownReport> {
        if let Some(stop) = lock(&self.stop).take() {
            // if nobody listens, the system has ended and the report is there, or never will be
            let _ = stop.send(deadline);
        }
        let mut ended = self.ended.clone();
        let report = ended.wait_for(Option::is_some).await.map_err(|_| Error::ShuttingDown)?;
        Ok(report.clone().unwrap_or_default())
    }
}

/// Completes when the process is asked to end: by SIGINT (Ctrl-C) or SIGTERM.
///
/// The library installs no signal handler by itself; calling this does, for the rest of the
/// process. Needs tokio's or actix's runtime.
///
/// # Errors
///
/// The handler can't be installed.
pub async fn shutdown_signal() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
