//! The `#[task]` and `#[callback]` attributes of `message_queue_sqlite`.
//!
//! Use them through that crate, which re-exports them.

mod duration;
mod expand;
mod options;
mod signature;

use proc_macro::TokenStream;

use options::Kind;

/// Makes a function a task that the queue can run.
///
/// The function stays as it is written: it can be called and tested without a queue. Beside it
/// comes a module of the same name and visibility, with
///
/// - `Task`, the definition, for `Subscribe::to::<send_mail::Task>(…)` and
///   `register::<send_mail::Task>()`,
/// - `task(…)`, which takes the function's arguments and returns a `Submission`.
///
/// The queue's builder finds the task by `discover(module_path!())` or `discover_all()`.
///
/// ```text
/// #[task(name = "mail.send", max_attempts = 5, timeout = "30s", backoff = "1s..10m", priority = 3)]
/// async fn send_mail(email: Email, smtp: Data<Smtp>, ctx: TaskContext) -> Result<Receipt, MailError> { … }
///
/// #[task(blocking)]
/// fn thumbnail(path: PathBuf, width: u32) -> Result<Png, ImageError> { … }
///
/// #[task(use_cache)]
/// async fn pump(socket: Cached<TcpStream>) -> Result<u64, io::Error> { … }
///
/// queue.submit(send_mail::task(email).priority(9)).await?;
/// ```
///
/// # Options
///
/// | option | value | default |
/// |---|---|---|
/// | `name` | what is stored with each submission, so keep it when the function is renamed; matches `^[a-z0-9_][a-z0-9_.-]{0,62}$` | the function's name |
/// | `queue` | the named queue of its tasks; the form of `name` | `"default"` |
/// | `priority` | an integer from -32768 to 32767; higher goes first | 0 |
/// | `max_attempts` | how many failures end the task, from 1 to 1000 | the setting `tasks.max_attempts` |
/// | `timeout` | how long one attempt may take, a duration from `"1ms"` to `"365d"` | the settings' |
/// | `backoff` | the first and the longest pause before a retry, two durations up to `"365d"` as in `"1s..10m"`; the pause is random up to a bound that doubles with each failure | the settings' |
/// | `codec` | how the arguments and the result are encoded, `"bincode"` or `"json"` | `"bincode"` |
/// | `use_cache` | a flag: the arguments stay in memory | off |
/// | `blocking` | a flag: the function isn't `async` and runs on a thread that may block | off |
///
/// A duration is a whole number with a unit, `ms`, `s`, `m`, `h` or `d`, or several, as in
/// `"1h30m"`.
///
/// # Parameters
///
/// - `Data<T>`: the value of type `T` that the builder was given. Without one the queue doesn't
///   start. In any place, any number.
/// - `TaskContext`: the attempt itself. In any place.
/// - Everything else is an argument: owned, `Serialize` and `DeserializeOwned`, at most 16. One is
///   encoded bare, several as a tuple; in JSON that is an array.
///
/// The first two are told from arguments by the name of their type, so don't rename them.
///
/// With `use_cache` the arguments are kept in memory instead of the file and need no serde. One of
/// type `Cached<T>` is shared between the attempts; of any other each attempt gets a clone. After a
/// restart of the process the task ends in `LostArguments`.
///
/// # Return type
///
/// `Result<T, E>`, where `T` is `Serialize` and `DeserializeOwned` and `E` is any
/// `std::error::Error` or `TaskError`; or nothing. An error is retried; `TaskError` can say
/// otherwise.
///
/// # Limits
///
/// The function is at the level of a module: not a method, not inside another function, and not
/// generic. Its module can't have another module of the function's name. A crate that nothing in
/// the program refers to isn't linked and so has no tasks: `use dep as _;` helps.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Kind::Task, options.into(), item.into()).into()
}

/// Makes a function a durable callback: a task that takes another task's result.
///
/// It runs at least once for each task that names it by `.then(on_sent::callback())`, also after a
/// restart, with retries of its own. The function stays as it is written; beside it comes a module
/// of the same name and visibility, with `Callback`, the definition, and `callback()`, for `then`.
///
/// ```text
/// #[callback(name = "mail.sent")]
/// async fn on_sent(result: TaskResult, db: Data<Db>) -> Result<(), DbError> { … }
///
/// queue.submit(send_mail::task(email).then(on_sent::callback())).await?;
/// ```
///
/// # Options
///
/// | option | value | default |
/// |---|---|---|
/// | `name` | what is stored with each submission; matches `^[a-z0-9_][a-z0-9_.-]{0,62}$` | the function's name |
/// | `queue` | the named queue of its tasks; the form of `name` | `"default"` |
/// | `max_attempts` | how many failures end the callback, from 1 to 1000 | the settings' |
/// | `timeout` | how long one attempt may take, a duration from `"1ms"` to `"365d"` | the settings' |
/// | `backoff` | the first and the longest pause before a retry, two durations up to `"365d"` as in `"1s..10m"` | the settings' |
/// | `blocking` | a flag: the function isn't `async` and runs on a thread that may block | off |
///
/// A duration is a whole number with a unit, `ms`, `s`, `m`, `h` or `d`, or several, as in
/// `"1h30m"`.
///
/// # Parameters
///
/// Exactly one `TaskResult`, and any `Data<T>` and `TaskContext`, in any order.
///
/// # Return type
///
/// `Result<(), E>`, where `E` is any `std::error::Error` or `TaskError`; or nothing.
#[proc_macro_attribute]
pub fn callback(options: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(Kind::Callback, options.into(), item.into()).into()
}
