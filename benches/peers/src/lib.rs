//! What the peers share: the order that a program is given, the work, and the report it prints.

mod meter;
mod order;
mod peer;
mod report;
mod runs;
mod work;

pub use meter::{Meter, Spent};
pub use order::{Durability, Order, Scenario};
pub use peer::{Peer, answer, spread};
pub use report::{Latency, Report, median, percentile};
pub use runs::{PAYLOAD, Runs, index, payload};
pub use work::{LATENCY_MAX, work};

/// Any error, with the text that says what could not be done.
pub type AnyError = Box<dyn std::error::Error + Send + Sync>;
