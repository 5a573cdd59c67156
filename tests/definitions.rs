//! The macros, used as another crate uses them.

#![forbid(unsafe_code)]
#![deny(warnings)]

use std::fmt;
use std::io;
use std::path::PathBuf;

use message_queue_sqlite::prelude::*;
use message_queue_sqlite::{CallbackTask, Requirement, Submission, TaskOptions};

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

struct Rate(u32);

#[task(name = "sum", priority = -3, max_attempts = 5, timeout = "30s", backoff = "1s..10m")]
async fn add(left: u32, rate: Data<Rate>, mut right: u32) -> Result<u32, Refused> {
    right *= rate.0;
    left.checked_add(right).ok_or(Refused)
}

#[task(blocking, codec = "json")]
fn size(path: PathBuf) -> io::Result<usize> {
    Ok(path.as_os_str().len())
}

/// Documented, with an attribute.
#[task(use_cache, name = "pump")]
#[inline]
pub(crate) async fn pump(socket: Cached<Vec<u8>>, times: usize) -> Result<usize, TaskError> {
    Ok(socket.len() * times)
}

#[task]
async fn nothing() {}

#[task]
async fn r#move(_ctx: TaskContext, args: u8, ctx: u8) -> Result<u8, TaskError> {
    Ok(args + ctx)
}

#[callback(name = "on.sum", max_attempts = 2)]
async fn on_sum(_rate: Data<Rate>, result: TaskResult, _: TaskContext) -> Result<(), Refused> {
    result.decode::<u32>().map(drop).map_err(|_| Refused)
}

#[task]
#[cfg(any())]
async fn not_compiled(missing: NoSuchType) {}

mod mail {
    //! Names that the generated code uses too mean the user's here.

    use message_queue_sqlite::{callback, task};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Task(pub(super) String);

    #[derive(Debug)]
    pub(super) struct Never;

    #[expect(dead_code, reason = "it hides the prelude's")]
    type Result = Never;

    #[task(blocking)]
    pub(super) fn send(
        mail: self::Task,
        again: super::mail::Task,
    ) -> std::result::Result<Task, std::fmt::Error> {
        Ok(Task(mail.0 + &again.0))
    }

    pub(super) mod inner {
        use message_queue_sqlite::task;

        #[task(name = "mail.inner")]
        pub(in crate::mail) async fn deep(value: u8) -> std::result::Result<u8, std::fmt::Error> {
            Ok(value)
        }

        #[task(name = "mail.inner.self")]
        pub(super) async fn shallow() {}

        #[task(name = "mail.inner.far")]
        pub(in super::super) async fn far() {}
    }

    pub(super) fn is_visible() -> impl Sized {
        (inner::deep::task(1), inner::shallow::task())
    }

    #[callback(blocking)]
    pub(super) fn sent(_: message_queue_sqlite::TaskResult) {}
}

#[actix::test]
async fn a_task_is_called_like_the_function_that_it_is() {
    assert_eq!(add(1, Data::new(Rate(10)), 4).await.unwrap(), 41);
    assert!(add(u32::MAX, Data::new(Rate(1)), 1).await.is_err());
    assert_eq!(size("abc".into()).unwrap(), 3);
    assert_eq!(pump(Cached::new(vec![0; 4]), 3).await.unwrap(), 12);
    nothing().await;
    assert_eq!(mail::send(mail::Task("a".into()), mail::Task("b".into())).unwrap().0, "ab");
}

#[test]
fn the_name_is_the_functions_unless_another_is_given() {
    assert_eq!(add::Task::NAME, "sum");
    assert_eq!(size::Task::NAME, "size");
    assert_eq!(r#move::Task::NAME, "move");
    assert_eq!(on_sum::Callback::NAME, "on.sum");
    assert_eq!(on_sum::callback().name(), "on.sum");
    assert_eq!(mail::sent::callback().name(), "sent");
}

#[test]
fn the_options_are_the_definitions() {
    let options = TaskOptions::new()
        .priority(-3)
        .max_attempts(5)
        .timeout(Duration::from_secs(30))
        .backoff(Duration::from_secs(1), Duration::from_secs(600));
    assert_eq!(add::Task::options(), options);
    assert_eq!(size::Task::options(), TaskOptions::new().codec(Codec::Json));
    assert_eq!(nothing::Task::options(), TaskOptions::default());
    assert_eq!(on_sum::Callback::options(), TaskOptions::new().max_attempts(2));
}

#[test]
fn data_is_required_and_not_an_argument() {
    let required = |requires: Vec<Requirement>| format!("{requires:?}");
    assert_eq!(required(add::Task::requires()), "[Data<definitions::Rate>]");
    assert_eq!(required(on_sum::Callback::requires()), "[Data<definitions::Rate>]");
    assert_eq!(required(r#move::Task::requires()), "[]");
    let _: fn(u32, u32) -> Submission<add::Task> = add::task;
}

#[test]
fn several_arguments_are_a_tuple_one_is_bare_and_none_is_the_unit() {
    fn args<T: Task<Args = A>, A>() {}
    args::<add::Task, (u32, u32)>();
    args::<size::Task, PathBuf>();
    args::<nothing::Task, ()>();
    args::<pump::Task, (Cached<Vec<u8>>, usize)>();
    args::<mail::send::Task, (mail::Task, mail::Task)>();
}

#[test]
fn a_submission_shows_options_and_no_arguments() {
    let submission = size::task("CANARY".into()).priority(9).then(on_sum::callback());
    let shown = format!("{submission:?}");
    assert!(shown.contains("size") && shown.contains("on.sum"), "{shown}");
    assert!(!shown.contains("CANARY"), "{shown}");
    let cached = format!("{:?}", pump::task(b"CANARY".to_vec(), 2));
    assert!(cached.contains("cached") && !cached.contains("CANARY"), "{cached}");
}

#[test]
fn a_cached_argument_is_given_as_it_is_or_wrapped() {
    let shared = Cached::new(vec![1u8]);
    drop((pump::task(shared.clone(), 1), pump::task(vec![1u8], 1)));
    assert_eq!(shared.take().unwrap(), [1]);
}

#[test]
fn what_is_generated_is_as_visible_as_the_function() {
    drop((mail::is_visible(), mail::inner::far::task()));
    drop(mail::send::task(mail::Task(String::new()), mail::Task(String::new())));
}
