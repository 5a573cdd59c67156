//! The whole queue through its public interface: what a program that embeds it can rely on.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod probe;
mod tasks;
mod world;

mod ageing;
mod backpressure;
mod cached;
mod cancelling;
mod durable;
mod held;
mod lifecycle;
mod named_queues;
mod ordering_keys;
mod python_package;
mod refusals;
mod restart;
mod results;
mod scaling;
mod secrets;
mod settings_and_start;
mod shutdown;
mod slow_mailboxes;
mod submission;
mod timeouts;
