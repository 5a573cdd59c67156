//! What moves: actors, their messages, and what watches over them.
//!
//! ```text
//! caller ─Submit→ Dispatcher ─Insert[…]→ ShardActor  buffer; one flush per mailbox drain
//! caller ←TaskId─────────────────────────────┘       (only after COMMIT, straight to the caller)
//!                             ShardActor ─Run[…]→ Worker          against credits
//!                             ShardActor ←Finish[…]─ Worker       kept until the shard confirms
//!                             ShardActor ─Deliver[…]→ CallbackActor → mailboxes, closures
//!                             ShardActor ←Delivered[…]─ CallbackActor
//! ```
//!
//! Callers need the [`Dispatcher`] and the messages that it takes; the rest is private. Each actor
//! but the Dispatcher runs under `supervision.rs`: a panic ends the actor value, and a factory
//! makes a new one. What must outlive an actor is in `ledger.rs`.

pub(crate) mod blocking;
pub(crate) mod callback;
pub(crate) mod closures;
pub(crate) mod dispatcher;
pub(crate) mod ending;
pub(crate) mod feeder;
pub(crate) mod incoming;
pub(crate) mod ledger;
pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod scaler;
pub(crate) mod shard;
pub(crate) mod slots;
pub(crate) mod slots_of_keys;
pub(crate) mod subscriptions;
pub(crate) mod supervision;
pub(crate) mod system;
pub(crate) mod worker;

pub use dispatcher::{Dispatcher, DispatcherContext};
pub use messages::{
    Cancel, CountTasks, GetTask, ListTasks, Redrive, Submit, SubmitAll, Subscribe, Unsubscribe,
};
pub use subscriptions::SubscriptionId;

#[cfg(test)]
mod tests;
