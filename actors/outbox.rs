//! Messages that survive the death of their receiver.
//!
//! An actor that panics takes its mailbox with it. So the sender keeps what it sent here until the
//! receiver confirms it, and a rebuilt receiver asks for what is still open.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was sent and isn't confirmed yet.
pub(crate) struct Outbox<T> {
    open: Mutex<Open<T>>,
}

struct Open<T> {
    next: u64,
    parcels: BTreeMap<u64, Arc<T>>,
}

/// One message of an outbox, on its way.
pub(crate) struct Parcel<T> {
    number: u64,
    body: Arc<T>,
}

impl<T> Parcel<T> {
    pub(crate) fn body(&self) -> &T {
        &self.body
    }
}

impl<T> fmt::Debug for Parcel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({})", self.number)
    }
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        Outbox { open: Mutex::new(Open { next: 0, parcels: BTreeMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Open<T>> {
        // nothing is left half-done under this lock
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a message until it is confirmed.
    pub(crate) fn post(&self, body: T) -> Parcel<T> {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        let body = Arc::new(body);
        open.parcels.insert(number, body.clone());
        Parcel { number, body }
    }

    /// The receiver has taken over: nothing is kept any longer.
    pub(crate) fn confirm(&self, parcel: &Parcel<T>) {
        self.lock().parcels.remove(&parcel.number);
    }

    /// What a rebuilt receiver hasn't confirmed, in order of sending.
    pub(crate) fn open(&self) -> Vec<Parcel<T>> {
        let open = self.lock();
        let parcels = open.parcels.iter();
        parcels.map(|(number, body)| Parcel { number: *number, body: body.clone() }).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().parcels.is_empty()
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox({} open)", self.lock().parcels.len())
    }
}

/// A body that its receiver takes out, once.
#[derive(Debug)]
pub(crate) struct Once<T>(Mutex<Option<T>>);

impl<T> Once<T> {
    pub(crate) fn new(value: T) -> Self {
        Once(Mutex::new(Some(value)))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.lock().take()
    }

    /// It wasn't used up: another receiver may take it.
    pub(crate) fn put_back(&self, value: T) {
        *self.lock() = Some(value);
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parcel_stays_open_until_it_is_confirmed() {
        let outbox = Outbox::new();
        let first = outbox.post("first");
        let second = outbox.post("second");
        outbox.confirm(&first);
        let open: Vec<_> = outbox.open().iter().map(|parcel| *parcel.body()).collect();
        assert_eq!(open, ["second"]);
        outbox.confirm(&second);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_body_is_taken_once() {
        let once = Once::new(7);
        assert_eq!((once.take(), once.take()), (Some(7), None));
    }
}
