use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use actix::{Actor, Context};
use message_queue_sqlite_macros::{callback, task};

use super::*;
use crate::attempt::tests::attempt;
use crate::attempt::{Attempt, AttemptEnd, Input};
use crate::cached::{Cached, CachedArguments, CachedInput};
use crate::clock::Timestamp;
use crate::codec;
use crate::record::{Counters, Encoded, FailureKind, Outcome, ShardId, TaskId, TaskStatus};
use crate::registry::{Definition, Place};
use crate::result::{ResultParts, TaskResult};

const LIMIT: usize = 1 << 20;

const PLACE: Place = Place { module_path: "", file: "tests.rs", line: 1 };

#[derive(Debug, thiserror::Error)]
#[error("cannot send")]
struct SendError(#[source] std::num::ParseIntError);

fn no_number() -> std::num::ParseIntError {
    "x".parse::<u8>().unwrap_err()
}

#[derive(Debug, thiserror::Error)]
#[error("cannot greet")]
struct GreetError(#[from] SendError);

#[task]
async fn divide(left: u32, ctx: TaskContext, right: u32) -> Result<u32, TaskError> {
    match right {
        0 => Err(TaskError::snooze(Duration::from_secs(9))),
        1 => Err(TaskError::retry_in(Duration::from_secs(3), "no")),
        2 => Err(TaskError::fatal(ctx.claim_no())),
        3 => Err(GreetError::from(SendError(no_number())).into()),
        _ => Ok(left / right),
    }
}

#[task(blocking, codec = "json")]
fn repeat(times: usize) -> Result<String, SendError> {
    Ok("x".repeat(times))
}

#[task(use_cache, codec = "json")]
async fn pump(socket: Cached<Vec<u8>>, take: bool) -> Result<usize, TaskError> {
    let length = socket.len();
    if take {
        drop(socket.take());
    }
    Ok(length)
}

#[task]
async fn counted(step: u32, total: Data<AtomicU32>) -> Result<u32, TaskError> {
    Ok(total.fetch_add(step, Ordering::Relaxed) + step)
}

#[task]
async fn unfit() -> Result<std::collections::BTreeMap<(u8, u8), u8>, TaskError> {
    Ok([((1, 2), 3)].into())
}

#[callback]
async fn on_end(result: TaskResult, seen: Data<AtomicU32>) -> Result<(), TaskError> {
    seen.store(result.decode()?, Ordering::Relaxed);
    Ok(())
}

fn of<T: Task>(input: Input) -> Arc<Attempt> {
    Arc::new(attempt(Definition::of_task::<T>(PLACE), input))
}

fn encoded<A: Serialize>(codec: Codec, args: A) -> Input {
    let bytes = codec::encode(codec, &args, LIMIT).unwrap();
    Input::Encoded(Encoded { codec, bytes }.into())
}

fn result_of(output: u32) -> TaskResult {
    let bytes = codec::encode(Codec::Bincode, &output, LIMIT).unwrap();
    TaskResult::new(ResultParts {
        id: TaskId::new(ShardId(2), 6),
        name: "parent".into(),
        definition: None,
        status: TaskStatus::Callbacking,
        outcome: Outcome::Finished,
        output: Some(Encoded { codec: Codec::Bincode, bytes }),
        failure: None,
        counters: Counters::default(),
        priority: 0,
        submitted_at: Timestamp::from_micros(1),
        started_at: None,
        ended_at: Timestamp::from_micros(3),
    })
}

fn start(attempt: &Arc<Attempt>, data: DataMap, limit: usize) -> Run {
    attempt.definition.start(Arc::clone(attempt), Arc::new(data), limit)
}

fn run_with(attempt: &Arc<Attempt>, data: DataMap, limit: usize) -> AttemptEnd {
    match start(attempt, data, limit) {
        Run::Ended(end) => end,
        Run::Future(future) => actix::System::new().block_on(future),
        Run::Blocking(function) => function(),
    }
}

fn run(attempt: &Arc<Attempt>) -> AttemptEnd {
    run_with(attempt, DataMap::default(), LIMIT)
}

fn failure(end: AttemptEnd) -> (FailureKind, String, Option<Duration>) {
    match end {
        AttemptEnd::Failed { failure, retry_in } => (failure.kind, failure.message, retry_in),
        other => panic!("it should have failed: {other:?}"),
    }
}

fn output(end: AttemptEnd) -> Encoded {
    match end {
        AttemptEnd::Finished(output) => output,
        other => panic!("it should have finished: {other:?}"),
    }
}

#[test]
fn the_output_is_encoded_as_the_arguments_were() {
    for codec in [Codec::Bincode, Codec::Json] {
        let attempt = of::<divide::Task>(encoded(codec, (40u32, 4u32)));
        let output = output(run(&attempt));
        assert_eq!(output.codec, codec);
        assert_eq!(codec::decode::<u32>(codec, &output.bytes).unwrap(), 10);
        assert_eq!(attempt.definition.output_json(&output), Some(10.into()));
    }
}

#[test]
fn an_error_is_kept_with_its_sources_and_retried() {
    let (kind, message, retry_in) =
        failure(run(&of::<divide::Task>(encoded(Codec::Bincode, (1u32, 3u32)))));
    assert_eq!(kind, FailureKind::Error);
    assert_eq!(message, "cannot greet: cannot send: invalid digit found in string");
    assert_eq!(retry_in, None);
}

#[test]
fn a_source_that_the_error_repeats_is_told_once() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot send: {0}")]
    struct Repeats(#[source] std::num::ParseIntError);

    let error = TaskError::from(Repeats(no_number()));
    assert_eq!(error.to_string(), "cannot send: invalid digit found in string");
}

#[test]
fn a_task_can_say_how_it_is_to_be_tried_again() {
    let end = |right: u32| run(&of::<divide::Task>(encoded(Codec::Bincode, (1u32, right))));
    assert_eq!(end(0), AttemptEnd::Snoozed(Duration::from_secs(9)));
    let pause = Some(Duration::from_secs(3));
    assert_eq!(failure(end(1)), (FailureKind::Error, "no".into(), pause));
    assert_eq!(failure(end(2)), (FailureKind::Fatal, "4".into(), None));
    let capped = TaskError::snooze(Duration::MAX).into_end();
    assert_eq!(capped, AttemptEnd::Snoozed(LONGEST));
}

#[test]
fn bytes_that_do_not_decode_fail_before_the_function_is_called() {
    let bytes = b"\xff"[..].into();
    let attempt = of::<divide::Task>(Input::Encoded(Encoded { codec: Codec::Json, bytes }.into()));
    let Run::Ended(end) = start(&attempt, DataMap::default(), LIMIT) else {
        panic!("it was started");
    };
    assert_eq!(failure(end).0, FailureKind::Decode);
}

#[test]
fn a_blocking_function_decodes_on_its_own_thread() {
    let bytes = b"\xff"[..].into();
    let attempt = of::<repeat::Task>(Input::Encoded(Encoded { codec: Codec::Json, bytes }.into()));
    let Run::Blocking(function) = start(&attempt, DataMap::default(), LIMIT) else {
        panic!("it isn't blocking");
    };
    let end = std::thread::spawn(function).join().unwrap();
    assert_eq!(failure(end).0, FailureKind::Decode);
}

#[test]
fn a_result_over_the_limit_fails_and_one_at_it_does_not() {
    let attempt = || of::<repeat::Task>(encoded(Codec::Json, 98));
    assert_eq!(output(run_with(&attempt(), DataMap::default(), 100)).bytes.len(), 100);
    let (kind, message, _) = failure(run_with(&attempt(), DataMap::default(), 99));
    assert_eq!(kind, FailureKind::ResultTooLarge);
    assert!(message.contains("99"), "{message}");
}

#[test]
fn a_result_that_does_not_encode_fails() {
    let (kind, ..) = failure(run(&of::<unfit::Task>(encoded(Codec::Json, ()))));
    assert_eq!(kind, FailureKind::Encode);
    output(run(&of::<unfit::Task>(encoded(Codec::Bincode, ()))));
}

fn cached_pump(take: bool) -> Arc<dyn CachedInput> {
    let socket = Cached::new(vec![0u8; 3]).keep();
    CachedArguments::new(move || Some((socket.share()?, take))).into()
}

#[test]
fn cached_arguments_last_until_they_are_taken() {
    for (take, next) in [(false, None), (true, Some(FailureKind::LostArguments))] {
        let attempt = of::<pump::Task>(Input::Cached(Some(cached_pump(take))));
        assert_eq!(output(run(&attempt)).codec, Codec::Json, "the definition's");
        match (run(&attempt), next) {
            (AttemptEnd::Finished(_), None) => {}
            (end, next) => assert_eq!(Some(failure(end).0), next),
        }
    }
}

#[test]
fn a_task_never_runs_with_arguments_that_are_not_its_own() {
    let kind = |attempt: &Arc<Attempt>| failure(run(attempt)).0;
    assert_eq!(kind(&of::<pump::Task>(Input::Cached(None))), FailureKind::LostArguments);
    let stored = encoded(Codec::Bincode, (vec![0u8; 3], false));
    assert_eq!(kind(&of::<pump::Task>(stored)), FailureKind::Decode);
    let others: Arc<dyn CachedInput> = CachedArguments::new(|| Some(1u8)).into();
    assert_eq!(kind(&of::<pump::Task>(Input::Cached(Some(others)))), FailureKind::Decode);
    assert_eq!(kind(&of::<divide::Task>(Input::Cached(None))), FailureKind::LostArguments);
    let callback = Definition::of_callback::<on_end::Callback>(PLACE);
    assert_eq!(kind(&Arc::new(attempt(callback, encoded(Codec::Json, ())))), FailureKind::Decode);
}

#[test]
fn data_is_one_value_for_all_attempts() {
    let mut data = DataMap::default();
    data.insert(AtomicU32::new(5));
    let attempt = || of::<counted::Task>(encoded(Codec::Json, 2));
    output(run_with(&attempt(), data.clone(), LIMIT));
    assert_eq!(&*output(run_with(&attempt(), data, LIMIT)).bytes, b"9");
}

#[test]
fn missing_data_is_a_fatal_failure_and_not_a_panic() {
    let (kind, message, _) = failure(run(&of::<counted::Task>(encoded(Codec::Json, 2))));
    assert_eq!(kind, FailureKind::Fatal);
    assert!(message.contains("AtomicU32"), "{message}");
}

#[test]
fn a_callback_gets_the_result_of_its_parent() {
    let seen = Data::new(AtomicU32::new(0));
    let mut data = DataMap::default();
    data.insert_shared(seen.clone());
    let definition = Definition::of_callback::<on_end::Callback>(PLACE);
    let attempt = Arc::new(attempt(definition, Input::Parent(result_of(8))));
    output(run_with(&attempt, data, LIMIT));
    assert_eq!(seen.load(Ordering::Relaxed), 8);
}

struct Inbox(Vec<TaskId>);

impl Actor for Inbox {
    type Context = Context<Self>;
}

impl actix::Handler<TaskResult> for Inbox {
    type Result = ();

    fn handle(&mut self, result: TaskResult, _: &mut Context<Self>) {
        self.0.push(result.id());
    }
}

#[derive(actix::Message)]
#[rtype(result = "Vec<TaskId>")]
struct Close;

impl actix::Handler<Close> for Inbox {
    type Result = actix::MessageResult<Close>;

    fn handle(&mut self, _: Close, ctx: &mut Context<Self>) -> Self::Result {
        actix::ActorContext::stop(ctx);
        actix::MessageResult(self.0.clone())
    }
}

#[actix::test]
async fn a_subscriber_is_sent_the_result_and_retried_when_its_mailbox_is_closed() {
    let inbox = Inbox(Vec::new()).start();
    let definition = Definition::subscriber("inbox", inbox.clone().recipient());
    let attempt = Arc::new(attempt(definition, Input::Parent(result_of(8))));
    let deliver = || match start(&attempt, DataMap::default(), LIMIT) {
        Run::Future(future) => future,
        other => panic!("a delivery waits: {other:?}"),
    };
    output(deliver().await);
    assert_eq!(inbox.send(Close).await.unwrap(), [TaskId::new(ShardId(2), 6)]);
    let (kind, message, _) = failure(deliver().await);
    assert_eq!(kind, FailureKind::Error);
    assert!(message.contains("closed"), "{message}");
}

#[test]
fn a_context_tells_about_its_attempt() {
    let attempt = of::<divide::Task>(encoded(Codec::Json, ("CANARY", 1)));
    let ctx = TaskContext::new(Arc::clone(&attempt), Arc::default());
    assert_eq!((ctx.id(), ctx.name(), ctx.priority()), (attempt.id, "divide", -5));
    assert_eq!((ctx.failures(), ctx.crashes(), ctx.claim_no()), (2, 1, 4));
    assert_eq!((ctx.submitted_at(), ctx.parent()), (Timestamp::from_micros(1), None));
    assert!(ctx.remaining().unwrap() <= Duration::from_secs(60));
    assert!(ctx.remaining().unwrap() > Duration::from_secs(1));
    assert!(ctx.data::<u8>().is_none());
    assert!(!ctx.is_cancelled());
    attempt.cancel.cancel();
    assert!(ctx.is_cancelled());
    let shown = format!("{ctx:?}");
    assert!(shown.contains("2-7") && !shown.contains("CANARY"), "{shown}");
}

#[test]
fn a_later_value_replaces_one_of_the_same_type() {
    let mut data = DataMap::default();
    data.insert(1u8);
    data.insert(2u8);
    data.insert("text");
    assert_eq!(*data.get::<u8>().unwrap(), 2);
    assert!(data.get::<u16>().is_none());
    assert!(data.contains(&Requirement::of::<u8>()) && !data.contains(&Requirement::of::<i8>()));
    assert_eq!(format!("{data:?}"), r#"{"&str", "u8"}"#);
}
