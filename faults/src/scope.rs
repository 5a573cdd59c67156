//! Which directory has which faults, and what was asked of its files.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::plan::{File, Operation, Plan, Verdict};

/// All directories that are watched.
static SCOPES: Mutex<Vec<Arc<Scope>>> = Mutex::new(Vec::new());

/// A directory that is watched. Open files hold on to theirs.
pub(crate) struct Scope {
    /// Without symbolic links, as SQLite names its files.
    directory: PathBuf,
    state: Mutex<State>,
    /// What the disk would hold, if it is recorded.
    disk: Mutex<Option<Disk>>,
    /// Told when the faults are healed or others planned.
    changed: Condvar,
}

/// What is to happen to the files of a scope, and what has happened.
#[derive(Default)]
pub(crate) struct State {
    plan: Option<Plan>,
    armed: bool,
    /// Which plan it is.
    round: u64,
    /// How many of the operations that the plan is about were met.
    met: u64,
    fired: u64,
    /// The first operation that failed.
    first: Option<(Operation, File)>,
    seen: [[u64; File::ALL.len()]; Operation::ALL.len()],
}

impl Scope {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn arm(&self, plan: Plan) {
        self.state().arm(plan);
        self.changed.notify_all();
    }

    pub(crate) fn heal(&self) {
        self.state().heal();
        self.changed.notify_all();
    }

    /// The recorded disk, while the lock is held.
    pub(crate) fn disk(&self) -> MutexGuard<'_, Option<Disk>> {
        lock(&self.disk)
    }

    /// Counts an operation; how it is to fail, if it is. Comes back when it needn't hang.
    pub(crate) fn meet(&self, operation: Operation, file: File) -> Option<Verdict> {
        let mut state = self.state();
        match state.meet(operation, file)? {
            failure @ (Verdict::Fails(_) | Verdict::Breaks(_)) => Some(failure),
            Verdict::Hangs => {
                let round = state.round;
                let hangs = |state: &mut State| state.armed && state.round == round;
                drop(self.changed.wait_while(state, hangs).unwrap_or_else(PoisonError::into_inner));
                None
            }
        }
    }
}

impl State {
    fn arm(&mut self, plan: Plan) {
        let (seen, round) = (self.seen, self.round + 1);
        *self = State { plan: Some(plan), armed: true, round, seen, ..State::default() };
    }

    fn heal(&mut self) {
        self.armed = false;
    }

    pub(crate) fn fired(&self) -> u64 {
        self.fired
    }

    pub(crate) fn seen(&self, operation: Operation, file: File) -> u64 {
        self.seen[operation as usize][file as usize]
    }

    /// Counts an operation.
    fn meet(&mut self, operation: Operation, file: File) -> Option<Verdict> {
        self.seen[operation as usize][file as usize] += 1;
        let plan = self.plan.filter(|plan| self.armed && plan.means(operation, file))?;
        self.met += 1;
        let verdict = plan.verdict(self.met, operation)?;
        self.fired += 1;
        self.first.get_or_insert((operation, file));
        Some(verdict)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(plan) = self.plan else { return f.write_str("no fault planned") };
        write!(f, "the plan: {plan}; met {}, failed {}", self.met, self.fired)?;
        if let Some((operation, file)) = self.first {
            write!(f, ", first a {operation:?} of the {file:?}")?;
        }
        Ok(())
    }
}

/// Watches a directory that is there.
pub(crate) fn add(directory: &Path) -> Arc<Scope> {
    let directory = directory.canonicalize().expect("the directory of the faults is there");
    let (state, disk, changed) = (Mutex::default(), Mutex::default(), Condvar::new());
    let scope = Arc::new(Scope { directory, state, disk, changed });
    lock(&SCOPES).push(scope.clone());
    scope
}

pub(crate) fn remove(scope: &Arc<Scope>) {
    lock(&SCOPES).retain(|other| !Arc::ptr_eq(other, scope));
}

/// Who watches the file of this path, which is as SQLite gives it.
pub(crate) fn of(path: &[u8]) -> Option<Arc<Scope>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    lock(&SCOPES).iter().find(|scope| path.starts_with(&scope.directory)).cloned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // plain numbers: a panic under the lock leaves them usable
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
