//! Named queues: tasks of one name share a limit on how many run at a time, and are paused together.
//!
//! A queue is its name. It needs no declaration: whoever submits to it, and whatever file holds tasks
//! of it, makes it known to the process, which gives it a number. What is kept here is what all
//! shards and workers must see at once; the durable part, which queues are paused, is in the
//! directory's manifest.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The queue of tasks that name none.
pub(crate) const DEFAULT_QUEUE: &str = "default";

/// How many queues a process can know. Each costs every claim a look once any is paused or limited.
pub(crate) const QUEUES_MAX: usize = 1_000;

/// What a process calls a queue: its place in [`Queues`]. Files know names only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct QueueIndex(u32);

impl QueueIndex {
    /// That of [`DEFAULT_QUEUE`].
    pub(crate) const DEFAULT: QueueIndex = QueueIndex(0);

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// One queue.
#[derive(Debug)]
pub(crate) struct NamedQueue {
    pub(crate) name: Arc<str>,
    pub(crate) index: QueueIndex,
    paused: AtomicBool,
    /// How many of its tasks may run at a time; `usize::MAX` is no limit.
    limit: AtomicUsize,
}

impl NamedQueue {
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// How many of its tasks may run at a time, if that is limited.
    pub(crate) fn limit(&self) -> Option<usize> {
        Some(self.limit.load(Ordering::SeqCst)).filter(|limit| *limit != usize::MAX)
    }
}

/// How many more tasks of each queue may be claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueBudget {
    /// By index; what is missing has no bound.
    tasks: Vec<usize>,
}

impl QueueBudget {
    /// Bounds one queue; 0 is for one that is paused.
    pub(crate) fn limit(&mut self, queue: QueueIndex, tasks: usize) {
        if self.tasks.len() <= queue.index() {
            self.tasks.resize(queue.index() + 1, usize::MAX);
        }
        self.tasks[queue.index()] = tasks;
    }

    pub(crate) fn left(&self, queue: QueueIndex) -> usize {
        self.tasks.get(queue.index()).copied().unwrap_or(usize::MAX)
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&mut self, queue: QueueIndex) -> bool {
        match self.tasks.get_mut(queue.index()) {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= usize::from(*left != usize::MAX);
                true
            }
        }
    }
}

/// How many tasks of each queue. The default one's, which are mostly all, take no memory of their own.
#[derive(Debug, Default)]
pub(crate) struct QueueTally {
    default: usize,
    named: BTreeMap<QueueIndex, usize>,
}

impl QueueTally {
    pub(crate) fn add(&mut self, queue: QueueIndex) {
        match queue {
            QueueIndex::DEFAULT => self.default += 1,
            named => *self.named.entry(named).or_default() += 1,
        }
    }

    /// The queues that have any.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (QueueIndex, usize)> {
        let default = (self.default > 0).then_some((QueueIndex::DEFAULT, self.default));
        default.into_iter().chain(self.named.iter().map(|(queue, tasks)| (*queue, *tasks)))
    }
}

impl FromIterator<QueueIndex> for QueueTally {
    fn from_iter<T: IntoIterator<Item = QueueIndex>>(queues: T) -> Self {
        let mut tally = QueueTally::default();
        queues.into_iter().for_each(|queue| tally.add(queue));
        tally
    }
}

#[derive(Debug, Default)]
struct Known {
    all: Vec<Arc<NamedQueue>>,
    indexes: HashMap<Arc<str>, QueueIndex>,
}

/// The queues that a process knows. They are never forgotten.
#[derive(Debug)]
pub(crate) struct Queues {
    known: RwLock<Known>,
    /// How many are paused or limited: mostly none, and then nobody has to look.
    restrained: AtomicUsize,
}

impl Queues {
    pub(crate) fn new() -> Arc<Self> {
        let queues = Queues { known: RwLock::default(), restrained: AtomicUsize::new(0) };
        queues.get_or_add(DEFAULT_QUEUE);
        Arc::new(queues)
    }

    pub(crate) fn find(&self, name: &str) -> Option<QueueIndex> {
        self.read().indexes.get(name).copied()
    }

    /// The queue of this name, which is known from now on.
    pub(crate) fn get_or_add(&self, name: &str) -> QueueIndex {
        if let Some(index) = self.find(name) {
            return index;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.indexes.get(name) {
            return *index;
        }
        let index = QueueIndex(u32::try_from(known.all.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = name.into();
        known.all.push(Arc::new(NamedQueue {
            name: name.clone(),
            index,
            paused: AtomicBool::new(false),
            limit: AtomicUsize::new(usize::MAX),
        }));
        known.indexes.insert(name, index);
        index
    }

    /// The queue of this name, which is known from now on; `None` if that would be one too many.
    pub(crate) fn get_or_add_one(&self, name: &str) -> Option<QueueIndex> {
        self.find(name).or_else(|| (self.len() < QUEUES_MAX).then(|| self.get_or_add(name)))
    }

    /// The queue with a number that was given out here.
    pub(crate) fn get(&self, index: QueueIndex) -> Arc<NamedQueue> {
        self.read().all[index.index()].clone()
    }

    /// All queues, in the order in which they became known.
    pub(crate) fn all(&self) -> Vec<Arc<NamedQueue>> {
        self.read().all.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.read().all.len()
    }

    /// Whether any queue is paused or limited.
    pub(crate) fn any_restrained(&self) -> bool {
        self.restrained.load(Ordering::SeqCst) > 0
    }

    /// Pauses or resumes a queue, in memory. Tells whether that changed anything.
    pub(crate) fn set_paused(&self, index: QueueIndex, paused: bool) -> bool {
        let queue = self.get(index);
        self.change(&queue, |queue| queue.paused.swap(paused, Ordering::SeqCst) != paused)
    }

    /// Limits how many of a queue's tasks run at a time. Attempts in progress go on.
    pub(crate) fn set_limit(&self, index: QueueIndex, limit: Option<usize>) {
        let queue = self.get(index);
        let limit = limit.unwrap_or(usize::MAX);
        self.change(&queue, |queue| queue.limit.swap(limit, Ordering::SeqCst) != limit);
    }

    /// Changes a queue and counts again; one at a time, so that the count is right.
    fn change(&self, queue: &NamedQueue, change: impl FnOnce(&NamedQueue) -> bool) -> bool {
        let known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(queue);
        let restrained = |queue: &&Arc<NamedQueue>| queue.is_paused() || queue.limit().is_some();
        self.restrained.store(known.all.iter().filter(restrained).count(), Ordering::SeqCst);
        changed
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        // only ever added to, under the lock
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_keeps_its_number_and_the_default_is_the_first() {
        let queues = Queues::new();
        assert_eq!(queues.find(DEFAULT_QUEUE), Some(QueueIndex::DEFAULT));
        let mail = queues.get_or_add("mail");
        assert_eq!(queues.get_or_add("mail"), mail);
        assert_ne!(queues.get_or_add("reports"), mail);
        assert_eq!((&*queues.get(mail).name, queues.len()), ("mail", 3));
    }

    #[test]
    fn nobody_looks_at_queues_while_none_is_restrained() {
        let queues = Queues::new();
        let mail = queues.get_or_add("mail");
        assert!(!queues.any_restrained());
        assert!(queues.set_paused(mail, true));
        assert!(!queues.set_paused(mail, true), "it is paused already");
        queues.set_limit(mail, Some(3));
        assert!(queues.any_restrained() && queues.get(mail).is_paused());
        queues.set_paused(mail, false);
        assert!(queues.any_restrained(), "it is still limited");
        assert_eq!(queues.get(mail).limit(), Some(3));
        queues.set_limit(mail, None);
        assert!(!queues.any_restrained());
    }

    #[test]
    fn a_budget_bounds_only_what_it_names() {
        let queues = Queues::new();
        let (mail, reports) = (queues.get_or_add("mail"), queues.get_or_add("reports"));
        let mut budget = QueueBudget::default();
        budget.limit(mail, 2);
        assert!(budget.take(mail) && budget.take(mail) && !budget.take(mail));
        assert!(budget.take(QueueIndex::DEFAULT) && budget.take(reports));
        assert_eq!((budget.left(mail), budget.left(reports)), (0, usize::MAX));
    }

    #[test]
    fn a_tally_counts_each_queue_by_itself() {
        let mail = Queues::new().get_or_add("mail");
        assert_eq!(QueueTally::default().iter().count(), 0);
        let tally = QueueTally::from_iter([mail, QueueIndex::DEFAULT, mail]);
        assert!(tally.iter().eq([(QueueIndex::DEFAULT, 1), (mail, 2)]));
    }
}
