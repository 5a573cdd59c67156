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
            pool.run(job).unwrap();
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
    assert_eq!(pool.run(move || refused.send("refused").unwrap()), Err(NoThread));
    assert_eq!(pool.run(move || ran.send("next").unwrap()), Ok(()));
    assert_eq!(running.recv_timeout(LONG), Ok("next"));
    until_idle(&pool);
    assert!(pool.close());
    assert!(running.try_recv().is_err(), "the refused job is gone");
}

#[test]
fn no_more_wait_for_a_thread_than_the_threads_get_through_in_time() {
    let pool = BlockingPool::new(4);
    assert!(pool.has_thread_within(0));
    pool.add_claimed(4, 4 * 1_000);
    assert!(pool.has_thread_within(0));
    // each thread gets through three in that time
    pool.add_claimed(12, 12 * 1_000);
    assert!(pool.has_thread_within(3_000) && !pool.has_thread_within(2_999));
    pool.add_claimed(1, 1_000);
    assert!(!pool.has_thread_within(3_000));
    pool.remove_claimed(1, 1_000);
    assert!(pool.has_thread_within(3_000));
    // nothing is to wait behind what nobody knows
    pool.add_claimed(1, u64::MAX);
    assert!(!pool.has_thread_within(3_000));
}
