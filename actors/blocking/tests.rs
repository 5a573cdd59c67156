use std::sync::mpsc;
use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(30);

/// Tells when the thread that it belongs to has ended.
struct Ended(mpsc::Sender<()>);

impl Drop for Ended {
    fn drop(&mut self) {
        // late, so that who doesn't wait for the thread misses it
        for _ in 0..10_000 {
            thread::yield_now();
        }
        self.0.send(()).ok();
    }
}

fn until_idle(pool: &BlockingPool) {
    while pool.shared.lock().idle < 1 {
        thread::yield_now();
    }
}

thread_local! {
    static ENDED: std::cell::RefCell<Option<Ended>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_close_joins_the_idle_threads_while_others_are_busy() {
    let pool = BlockingPool::new(2);
    let (started, starting) = mpsc::channel();
    let (ended, ending) = mpsc::channel();
    // two jobs at a time, so two threads; the gates let them end one by one
    let gates: Vec<_> = (0..2)
        .map(|_| {
            let (open, gate) = mpsc::channel::<()>();
            let (started, ended) = (started.clone(), Ended(ended.clone()));
            let job = move || {
                ENDED.set(Some(ended));
                started.send(()).unwrap();
                gate.recv().ok();
            };
            pool.run(QueueIndex::DEFAULT, || true, job).unwrap();
            open
        })
        .collect();
    for _ in &gates {
        starting.recv_timeout(LONG).unwrap();
    }
    let [busy, idle] = gates.try_into().unwrap();
    drop(idle);
    until_idle(&pool);
    assert!(!pool.close(), "one thread is busy");
    ending.try_recv().expect("the idle thread was joined");
    ending.try_recv().expect_err("the busy thread goes on");
    drop(busy);
    ending.recv_timeout(LONG).expect("the busy thread ends after its job");
}

#[test]
fn a_job_without_a_thread_is_refused_and_the_next_one_runs() {
    let pool = BlockingPool::new(2);
    let (ran, running) = mpsc::channel();
    pool.fail_to_start(1);
    let refused = ran.clone();
    let run = |sender: mpsc::Sender<_>, what| {
        pool.run(QueueIndex::DEFAULT, || true, move || sender.send(what).unwrap())
    };
    assert_eq!(run(refused, "refused"), Err(Refusal::NoThread));
    assert_eq!(run(ran, "next"), Ok(()));
    assert_eq!(running.recv_timeout(LONG), Ok("next"));
    until_idle(&pool);
    assert!(pool.close());
    assert!(running.try_recv().is_err(), "the refused job is gone");
}

#[test]
fn a_job_that_is_no_longer_wanted_is_refused() {
    let pool = BlockingPool::new(1);
    assert_eq!(pool.run(QueueIndex::DEFAULT, || false, || ()), Err(Refusal::NotWanted));
    assert_eq!(pool.waiting(), 0);
    assert!(pool.close());
}

#[test]
fn no_more_wait_for_a_thread_than_the_threads_get_through_in_time() {
    let pool = BlockingPool::new(4);
    let threads = |free, behind_ns| Threads { free, behind_ns };
    assert_eq!(pool.within(0), threads(4, 0));
    assert_eq!(pool.within(3_000), threads(4, 12_000));
    pool.add_claimed(3, 3 * 1_000);
    // the one after the next waits for a thread
    assert_eq!(pool.within(3_000), threads(1, 11_000));
    pool.add_claimed(1, 1_000);
    assert_eq!(pool.within(3_000), threads(0, 11_000));
    pool.add_claimed(10, 10 * 1_000);
    assert_eq!(pool.within(3_000), threads(0, 1_000));
    pool.add_claimed(1, 1_000);
    assert_eq!(pool.within(3_000), threads(0, 0));
    pool.remove_claimed(1, 1_000);
    assert!(pool.within(3_000).any());
    // nothing is to wait behind what nobody knows
    pool.add_claimed(1, u64::MAX);
    assert!(!pool.within(3_000).any());
}

#[test]
fn threads_that_are_all_held_for_long_let_nothing_wait_for_them() {
    let pool = BlockingPool::new(4);
    pool.add_claimed(4, 4 * 1_000_000);
    assert!(!pool.within(3_000).any());
    pool.remove_claimed(1, 1_000_000);
    assert_eq!(pool.within(3_000), Threads { free: 1, behind_ns: 0 });
}

#[test]
fn shares_of_threads_leave_none_out_and_take_hardly_more_than_there_is() {
    for (free, behind_ns, among) in [(0, 0, 3), (1, 1, 8), (5, 7, 2), (16, 1_000, 3), (2, 9, 0)] {
        let all = Threads { free, behind_ns };
        let share = all.share(among);
        assert_eq!(share.any(), all.any());
        let parts = among.max(1);
        assert!((free..free + parts).contains(&(share.free * parts)));
        assert!((behind_ns..behind_ns + parts as u64).contains(&(share.behind_ns * parts as u64)));
    }
}
