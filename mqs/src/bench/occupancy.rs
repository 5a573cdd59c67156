//! How busy the slots were while tasks were ready, from the attempts' own times.

/// One attempt. Times are in nanoseconds since some moment before all of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The worker's number, from 0 on.
    pub(crate) worker: usize,
    /// When it could have run: its submission was answered, and its time had come.
    pub(crate) ready_at: u64,
    pub(crate) started_at: u64,
    pub(crate) ended_at: u64,
}

/// What the slots did while there was a task that could have run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Occupancy {
    /// The part of the slots' time that attempts took, from 0 to 1.
    pub(crate) busy_ratio: f64,
    /// How long each of the slots waited at a stretch, in nanoseconds, the shortest first.
    pub(crate) idle: Vec<u64>,
    /// How long tasks were ready, in nanoseconds.
    pub(crate) ready: u64,
}

impl Occupancy {
    /// The longest that one slot waited at a stretch, in nanoseconds.
    pub(crate) fn longest_idle(&self) -> u64 {
        self.idle.last().copied().unwrap_or(0)
    }

    /// How many times a slot waited for longer than so many nanoseconds.
    pub(crate) fn idle_over(&self, most: u64) -> usize {
        self.idle.len() - self.idle.partition_point(|idle| *idle <= most)
    }
}

/// Stretches of time, in order and apart from each other.
struct Stretches(Vec<(u64, u64)>);

impl Stretches {
    /// When at least one of the attempts could have run and didn't yet.
    fn of_readiness(spans: &[Span]) -> Self {
        let waited = spans.iter().filter(|span| span.ready_at < span.started_at);
        let mut events: Vec<(u64, i64)> =
            waited.flat_map(|span| [(span.ready_at, 1), (span.started_at, -1)]).collect();
        // what begins at a moment comes before what ends then, so that neighbours are one stretch
        events.sort_by_key(|(at, change)| (*at, -change));
        let (mut stretches, mut ready, mut from) = (Vec::new(), 0, 0);
        for (at, change) in events {
            if ready == 0 {
                from = at;
            }
            ready += change;
            if ready == 0 {
                stretches.push((from, at));
            }
        }
        Stretches(stretches)
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(from, to)| to - from).sum()
    }

    /// How much of each stretch lies between two moments, of those of which something does.
    fn within(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let first = self.0.partition_point(|(_, end)| *end <= from);
        let rest = self.0[first..].iter().take_while(move |(begin, _)| *begin < to);
        let part = rest.map(move |(begin, end)| to.min(*end).saturating_sub(from.max(*begin)));
        part.filter(|part| *part > 0)
    }
}

/// How busy the slots of these workers were. `None` if no task ever had to wait.
///
/// A worker's slots are alike, so of those that are free the one takes an attempt that has been free
/// for the longest.
pub(crate) fn occupancy(
    spans: &[Span],
    workers: usize,
    slots_per_worker: usize,
) -> Option<Occupancy> {
    let stretches = Stretches::of_readiness(spans);
    let ready = stretches.total();
    let last = stretches.0.last().map(|(_, to)| *to).filter(|_| ready > 0)?;
    let within = |from, to| stretches.within(from, to);
    let busy: u64 = spans.iter().flat_map(|span| within(span.started_at, span.ended_at)).sum();
    let mut in_order: Vec<&Span> = spans.iter().collect();
    in_order.sort_by_key(|span| span.started_at);
    let mut free_since = vec![vec![0; slots_per_worker]; workers];
    let mut idle = Vec::new();
    for span in in_order {
        let Some(slot) = free_since[span.worker].iter_mut().min() else { continue };
        idle.extend(within(*slot, span.started_at));
        *slot = span.ended_at.max(*slot);
    }
    idle.extend(free_since.into_iter().flatten().flat_map(|slot| within(slot, last)));
    idle.sort_unstable();
    let slots = (workers * slots_per_worker) as f64;
    Some(Occupancy { busy_ratio: busy as f64 / (slots * ready as f64), idle, ready })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(worker: usize, ready_at: u64, started_at: u64, ended_at: u64) -> Span {
        Span { worker, ready_at, started_at, ended_at }
    }

    #[test]
    fn a_slot_that_goes_from_task_to_task_is_always_busy() {
        let spans = [span(0, 0, 0, 10), span(0, 0, 10, 20), span(0, 0, 20, 30)];
        let found = occupancy(&spans, 1, 1);
        assert_eq!(found, Some(Occupancy { busy_ratio: 1.0, idle: vec![], ready: 20 }));
    }

    #[test]
    fn a_pause_while_a_task_is_ready_counts() {
        let spans = [span(0, 0, 0, 10), span(0, 0, 15, 20)];
        let found = occupancy(&spans, 1, 1).unwrap();
        assert_eq!((found.ready, found.longest_idle()), (15, 5));
        assert!((found.busy_ratio - 10.0 / 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_pause_while_nothing_is_ready_does_not_count() {
        let spans = [span(0, 0, 2, 10), span(0, 50, 51, 60)];
        let found = occupancy(&spans, 1, 1).unwrap();
        assert_eq!((found.ready, found.longest_idle()), (3, 2));
    }

    #[test]
    fn a_worker_that_never_ran_anything_was_idle_all_the_time() {
        let spans = [span(0, 0, 0, 10), span(0, 0, 10, 20)];
        let found = occupancy(&spans, 2, 1).unwrap();
        assert_eq!((found.busy_ratio, found.longest_idle()), (0.5, 10));
    }

    #[test]
    fn slots_of_one_worker_take_turns() {
        let spans = [
            span(0, 0, 0, 10),
            span(0, 0, 0, 10),
            span(0, 0, 12, 20),
            span(0, 0, 13, 20),
            span(0, 0, 21, 30),
        ];
        assert_eq!(occupancy(&spans, 1, 2).unwrap().longest_idle(), 3);
    }

    #[test]
    fn a_slot_is_idle_for_as_long_as_one_ready_task_follows_another() {
        let spans = [span(0, 0, 5, 20), span(0, 5, 9, 20)];
        assert_eq!(occupancy(&spans, 1, 2).unwrap().longest_idle(), 9);
    }

    #[test]
    fn each_time_that_a_slot_waits_counts_once() {
        let spans = [
            span(0, 0, 0, 10),
            span(0, 0, 15, 20),
            span(0, 0, 27, 30),
            span(0, 50, 50, 60),
            span(0, 50, 60, 70),
        ];
        let found = occupancy(&spans, 1, 1).unwrap();
        assert_eq!(found.idle, [5, 7], "from 30 to 50 there was nothing to do");
        assert_eq!((found.idle_over(4), found.idle_over(5), found.idle_over(7)), (2, 1, 0));
    }

    #[test]
    fn where_no_task_waits_there_is_nothing_to_say() {
        assert_eq!(occupancy(&[span(0, 5, 5, 10)], 1, 1), None);
        assert_eq!(occupancy(&[], 1, 1), None);
    }
}
