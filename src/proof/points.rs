//! Places where an actor can be made to panic.

#[cfg(feature = "proof")]
use std::collections::HashMap;
use std::path::Path;
#[cfg(feature = "proof")]
use std::path::PathBuf;
#[cfg(feature = "proof")]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "proof")]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
#[cfg(feature = "proof")]
use std::time::{Duration, Instant};

use crate::record::ShardId;

/// A place where an actor can be made to panic: what it is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is named for its actor and its message")]
pub enum Point {
    DispatcherSubmit,
    DispatcherSubmitAll,
    DispatcherWake,
    DispatcherLookup,
    DispatcherSubscribe,
    DispatcherUnsubscribe,
    ShardInsert,
    ShardFinish,
    ShardDelivered,
    ShardWake,
    ShardCancel,
    ShardRedrive,
    ShardLookup,
    /// A batch is about to be stored.
    ShardCommit,
    /// A batch is stored, and nobody knows of it yet.
    ShardCommitted,
    /// What a batch has ended is out of the ledger, and its results aren't sent yet.
    ShardSettled,
    /// Its claims are handed out, and its results aren't sent yet.
    ShardHandedOut,
    WorkerRun,
    WorkerWake,
    WorkerStart,
    WorkerReport,
    CallbackDeliver,
    /// One result of a batch is delivered, and nobody knows of it yet.
    CallbackItem,
    CallbackDiscard,
}

#[cfg(feature = "proof")]
impl Point {
    /// All of them.
    pub const ALL: [Point; 24] = [
        Point::DispatcherSubmit,
        Point::DispatcherSubmitAll,
        Point::DispatcherWake,
        Point::DispatcherLookup,
        Point::DispatcherSubscribe,
        Point::DispatcherUnsubscribe,
        Point::ShardInsert,
        Point::ShardFinish,
        Point::ShardDelivered,
        Point::ShardWake,
        Point::ShardCancel,
        Point::ShardRedrive,
        Point::ShardLookup,
        Point::ShardCommit,
        Point::ShardCommitted,
        Point::ShardSettled,
        Point::ShardHandedOut,
        Point::WorkerRun,
        Point::WorkerWake,
        Point::WorkerStart,
        Point::WorkerReport,
        Point::CallbackDeliver,
        Point::CallbackItem,
        Point::CallbackDiscard,
    ];

    /// Which kind of actor it belongs to.
    fn actor(self) -> &'static str {
        match self {
            Point::DispatcherSubmit
            | Point::DispatcherSubmitAll
            | Point::DispatcherWake
            | Point::DispatcherLookup
            | Point::DispatcherSubscribe
            | Point::DispatcherUnsubscribe => "Dispatcher",
            Point::WorkerRun | Point::WorkerWake | Point::WorkerStart | Point::WorkerReport => {
                "Worker"
            }
            Point::CallbackDeliver | Point::CallbackItem | Point::CallbackDiscard => {
                "CallbackActor"
            }
            _ => "ShardActor",
        }
    }
}

/// The points of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    #[cfg(feature = "proof")]
    panics: Panics,
}

impl Points {
    /// Those of the queue in this directory.
    pub(crate) fn of(directory: &Path) -> Self {
        #[cfg(feature = "proof")]
        return Points { panics: Panics::in_directory(directory) };
        #[cfg(not(feature = "proof"))]
        {
            let _ = directory;
            Points {}
        }
    }

    /// Panics if it is time to.
    #[inline]
    pub(crate) fn pass(&self, point: Point) {
        #[cfg(feature = "proof")]
        self.panics.pass(point, None);
        #[cfg(not(feature = "proof"))]
        let _ = point;
    }

    /// Panics if it is time to, at a point of this shard's.
    #[inline]
    pub(crate) fn pass_in(&self, shard: ShardId, point: Point) {
        #[cfg(feature = "proof")]
        self.panics.pass(point, Some(shard));
        #[cfg(not(feature = "proof"))]
        let _ = (shard, point);
    }

    /// An actor panicked, and is made anew.
    pub(crate) fn lost(&self) {
        #[cfg(feature = "proof")]
        self.panics.1.fetch_add(1, Ordering::AcqRel);
    }
}

/// The panics of the queue in one directory.
#[cfg(feature = "proof")]
#[derive(Clone, Debug, Default)]
pub struct Panics(Arc<Mutex<State>>, Arc<AtomicU64>);

#[cfg(feature = "proof")]
#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    fired: u64,
    at: Option<(Instant, &'static str)>,
    back: Option<Duration>,
    #[cfg(test)]
    hold: Option<Hold>,
}

/// Who passes this point next says so, and waits.
#[cfg(all(test, feature = "proof"))]
#[derive(Debug)]
struct Hold {
    point: Point,
    reached: tokio::sync::oneshot::Sender<()>,
    opened: std::sync::mpsc::Receiver<()>,
}

#[cfg(feature = "proof")]
#[derive(Clone, Copy, Debug)]
struct Plan {
    point: Point,
    /// The only shard that it is about, unless it is about all.
    shard: Option<ShardId>,
    /// How often it is passed before the first panic.
    left: u64,
    /// How many panics there are to be.
    times: u64,
}

#[cfg(feature = "proof")]
static ALL: Mutex<Option<HashMap<PathBuf, Panics>>> = Mutex::new(None);

#[cfg(feature = "proof")]
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(feature = "proof")]
impl Panics {
    /// Those of the queue in this directory, whether it runs already or is yet to be started.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.into());
        lock(&ALL).get_or_insert_default().entry(directory).or_default().clone()
    }

    /// Lets the `nth` passing of the point from now on panic, counted from 1, and those that follow
    /// until there were `times` of them.
    pub fn arm(&self, point: Point, nth: u64, times: u64) {
        self.plan(Plan { point, shard: None, left: nth.saturating_sub(1), times });
    }

    /// Lets each passing of a point in this shard panic from now on, until [`rest`](Self::rest).
    pub fn arm_shard(&self, shard: ShardId, point: Point) {
        self.plan(Plan { point, shard: Some(shard), left: 0, times: u64::MAX });
    }

    fn plan(&self, plan: Plan) {
        *lock(&self.0) = State { plan: Some(plan), ..State::default() };
    }

    /// No more panics. What there was stays counted.
    pub fn rest(&self) {
        lock(&self.0).plan = None;
    }

    /// How many panics there were.
    #[must_use]
    pub fn fired(&self) -> u64 {
        lock(&self.0).fired
    }

    /// How many actors were made anew after a panic, whoever's it was.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.1.load(Ordering::Acquire)
    }

    /// How long it took after the first panic until an actor of that kind did something again: the
    /// same one, if there is one of the kind.
    #[must_use]
    pub fn back_after(&self) -> Option<Duration> {
        lock(&self.0).back
    }

    /// Holds whoever passes the point next: the receiver is told, and it goes on when the sender is
    /// dropped.
    #[cfg(test)]
    pub(crate) fn hold(
        &self,
        point: Point,
    ) -> (tokio::sync::oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (reached, is_reached) = tokio::sync::oneshot::channel();
        let (open, opened) = std::sync::mpsc::channel();
        lock(&self.0).hold = Some(Hold { point, reached, opened });
        (is_reached, open)
    }

    fn pass(&self, point: Point, shard: Option<ShardId>) {
        let mut state = lock(&self.0);
        #[cfg(test)]
        if let Some(hold) = state.hold.take_if(|hold| hold.point == point) {
            drop(state);
            let _ = hold.reached.send(());
            let _ = hold.opened.recv();
            state = lock(&self.0);
        }
        if let Some((at, actor)) = state.at
            && state.back.is_none()
            && actor == point.actor()
        {
            state.back = Some(at.elapsed());
        }
        let Some(plan) = &mut state.plan else { return };
        if plan.point != point || plan.shard.is_some() && plan.shard != shard {
            return;
        }
        if plan.left > 0 {
            plan.left -= 1;
            return;
        }
        if plan.times == 0 {
            return;
        }
        plan.times -= 1;
        state.fired += 1;
        state.at.get_or_insert((Instant::now(), point.actor()));
        drop(state);
        panic!("a panic at {point:?}, on purpose");
    }
}
