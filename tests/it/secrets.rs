//! Payload bytes appear in no log, no error and no Debug output.
//!
//! In a process of its own: events of the queue's threads reach a global subscriber only.

#![expect(clippy::print_stdout, reason = "the parent reads what the child prints")]

use std::process::Command;

use message_queue_sqlite::prelude::*;

use crate::world::{Captured, Received, World, end, in_time, start, until_status};

/// What must be seen nowhere, and as bincode and JSON write it.
const CANARY: &str = "CANARY-7c1f";

mod own {
    use message_queue_sqlite::prelude::*;

    pub(super) const PATH: &str = module_path!();

    #[derive(Debug, Serialize, Deserialize)]
    pub(super) struct Secret {
        pub(super) word: String,
    }

    #[task(name = "own.echo", timeout = "10m")]
    pub(super) async fn echo(secret: Secret) -> Result<Secret, TaskError> {
        Ok(secret)
    }

    #[task(name = "own.echo.json", codec = "json")]
    pub(super) async fn echo_json(secret: Secret) -> Result<Secret, TaskError> {
        Ok(secret)
    }

    #[task(name = "own.fails", max_attempts = 1, blocking)]
    pub(super) fn fails(secret: Secret) -> Result<(), TaskError> {
        drop(secret);
        panic!("for a reason of its own")
    }

    #[task(name = "own.keeps", use_cache)]
    pub(super) async fn keeps(secret: Cached<String>) -> Result<String, TaskError> {
        Ok((*secret).clone())
    }

    #[task(name = "own.number")]
    pub(super) async fn number(number: u64) -> Result<u64, TaskError> {
        Ok(number)
    }

    #[callback(name = "own.told")]
    pub(super) async fn told(_: TaskResult) {}
}

const CHILD: &str = "MQS_TEST_SECRETS_CHILD";

#[test]
fn payload_bytes_appear_in_no_log_error_or_debug_output() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "secrets::everything_that_can_be_shown_is_shown", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let shown = [child.stdout, child.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    let shown = shown.concat();
    assert!(child.status.success(), "{shown}");
    // it did log, at the finest level, from the queue's own threads
    for expected in ["recovered", "shut down", "SHOWN", "own.echo"] {
        assert!(shown.contains(expected), "no {expected:?} in:\n{shown}");
    }
    let bytes = format!("{:?}", CANARY.as_bytes());
    for secret in [CANARY, bytes.trim_matches(['[', ']'])] {
        let line = shown.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

/// Runs in the child only.
#[test]
fn everything_that_can_be_shown_is_shown() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .init();
    actix::System::new().block_on(show_everything());
    println!("{}", captured.text());
}

fn show(what: &dyn std::fmt::Debug) {
    println!("SHOWN {what:?} {what:#?}");
}

fn show_error(error: &Error) {
    show(error);
    println!("SHOWN {error}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        println!("SHOWN {cause} {cause:?}");
        source = cause.source();
    }
}

fn secret() -> own::Secret {
    own::Secret { word: CANARY.into() }
}

async fn show_everything() {
    let world = World::new();
    let mut settings = world.settings();
    settings.limits.payload = 200;
    let mut mailbox = Received::new();
    let builder = world
        .builder_with(settings)
        .discover(own::PATH)
        .subscriber("own.subscriber", Received::new().recipient());
    show(&builder);
    let queue = start(builder).await;
    let guard = in_time(queue.subscribe_all(mailbox.recipient())).await.unwrap();
    show(&queue);
    let mut ids = Vec::new();
    let echo = own::echo::task(secret()).priority(3).then(own::told::callback());
    show(&echo);
    let submit = Submit::new(own::echo_json::task(secret()));
    show(&submit);
    let handle = in_time(queue.submit(echo)).await.unwrap();
    show(&handle);
    ids.push(handle.id());
    ids.push(in_time(queue.submit_raw(submit)).await.unwrap());
    let cached = own::keeps::task(CANARY.to_string());
    show(&cached);
    ids.push(in_time(queue.submit(cached)).await.unwrap().id());
    let failing = in_time(queue.submit(own::fails::task(secret()))).await.unwrap();
    ids.push(failing.id());
    show_error(&in_time(failing).await.unwrap_err());
    show_errors(&queue, &mut ids).await;
    for result in mailbox.take(ids.len()).await {
        show(&result);
        show(&result.output());
        show(&result.failure());
    }
    for id in ids {
        show(&until_status(&queue, id, TaskStatus::Callbacked).await);
    }
    show(&in_time(queue.list(ListTasks::default())).await.unwrap());
    drop(guard);
    end(queue).await;
}

/// Every error that has to do with bytes.
async fn show_errors(queue: &Queue, ids: &mut Vec<TaskId>) {
    for (name, codec, bytes) in [
        ("own.number", Codec::Json, format!("\"{CANARY}\"")),
        ("own.number", Codec::Json, format!("{{\"{CANARY}\": 1}}")),
        ("own.number", Codec::Json, CANARY.to_string()),
        ("own.number", Codec::Bincode, CANARY.to_string()),
        ("own.echo", Codec::Json, format!("{{\"{CANARY}\": \"{CANARY}\"}}")),
        ("own.echo", Codec::Bincode, CANARY.to_string()),
    ] {
        let submit = Submit::raw(name, codec, bytes.into_bytes());
        show(&submit);
        let id = in_time(queue.submit_raw(submit)).await.unwrap();
        ids.push(id);
        let ended = in_time(queue.handle::<own::number::Task>(id).result()).await.unwrap();
        show_error(&ended.decode::<u64>().unwrap_err());
    }
    let large = own::echo::task(own::Secret { word: CANARY.repeat(100) });
    show_error(&in_time(queue.submit(large)).await.unwrap_err());
    // a result that isn't what is asked for
    show_error(&in_time(queue.handle::<own::number::Task>(ids[1])).await.unwrap_err());
    let other = in_time(queue.handle::<own::echo::Task>(ids[1]).result()).await.unwrap();
    let wrong = other.decode::<u64>().unwrap_err();
    assert!(matches!(wrong, Error::Decode { .. }), "{wrong:?}");
    show_error(&wrong);
}
