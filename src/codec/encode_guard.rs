//! A serializer around another one that refuses what the [guard](super::guard) of decoding would.
//!
//! What is accepted must be readable later, so nesting and empty elements have the same limits in
//! both directions. And a value that nests without end, because it contains itself, say, must not
//! overflow the stack of the thread that encodes it: that would end the process.

use std::cell::Cell;
use std::fmt;

use serde::ser::{
    Error, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use super::guard::{DEPTH_MAX, EMPTY_ELEMENTS_MAX, Trip};

/// How many arrays and objects the JSON reader lets be open at a time.
const BRACKETS_MAX: u32 = 127;

/// What is left of one encoding's budget, and what it has announced.
pub(super) struct Room {
    levels: Cell<u32>,
    brackets: Cell<u32>,
    /// Elements of all sequences and maps so far.
    announced: Cell<usize>,
    /// Elements written since more were announced than fit.
    surplus: Cell<usize>,
    /// More elements than this don't fit into the bytes that the value may take.
    elements_max: usize,
    trip: Cell<Option<Trip>>,
}

impl Room {
    /// The room for a value of at most this many bytes, in a format that announces lengths.
    pub(super) fn for_bytes(limit: usize) -> Self {
        let elements_max = limit.saturating_add(EMPTY_ELEMENTS_MAX);
        Room { elements_max, brackets: Cell::new(u32::MAX), ..Room::for_text() }
    }

    /// The room in a text format: each element takes characters, so only depth is limited.
    pub(super) fn for_text() -> Self {
        Room {
            levels: Cell::new(DEPTH_MAX),
            brackets: Cell::new(BRACKETS_MAX),
            announced: Cell::new(0),
            surplus: Cell::new(0),
            elements_max: usize::MAX,
            trip: Cell::new(None),
        }
    }

    /// The limit that was hit, if one was; it stays, also when a type swallows the error.
    pub(super) fn trip(&self) -> Option<Trip> {
        self.trip.get()
    }

    /// How many elements the value has, as its reader will count them.
    pub(super) fn announced(&self) -> usize {
        self.announced.get()
    }

    /// How many elements there may be at most while the value isn't complete.
    pub(super) fn elements_max(&self) -> usize {
        self.elements_max
    }

    /// One level deeper, which takes this many brackets in JSON.
    #[inline]
    fn enter<E: Error>(&self, brackets: u32) -> Result<(), E> {
        let levels = self.levels.get().checked_sub(1);
        let left = self.brackets.get().checked_sub(brackets);
        let (Some(levels), Some(left)) = (levels, left) else {
            return Err(self.stop(Trip::TooDeep));
        };
        self.levels.set(levels);
        self.brackets.set(left);
        Ok(())
    }

    #[inline]
    fn leave(&self, brackets: u32) {
        self.levels.set(self.levels.get() + 1);
        self.brackets.set(self.brackets.get() + brackets);
    }

    /// Counts a sequence's or map's elements; returns whether each must be counted as well: only
    /// what it writes shows whether there are too many elements or too many bytes.
    #[inline]
    fn announce(&self, length: Option<usize>) -> bool {
        let announced = self.announced.get().saturating_add(length.unwrap_or(0));
        self.announced.set(announced);
        announced > self.elements_max
    }

    /// One more of the elements that don't fit. Each that isn't empty takes a byte, so the limit of
    /// the bytes stops all others before this does.
    #[inline]
    fn one_more<E: Error>(&self) -> Result<(), E> {
        if self.surplus.get() >= self.elements_max {
            return Err(self.stop(Trip::TooManyElements));
        }
        self.surplus.set(self.surplus.get() + 1);
        Ok(())
    }

    #[cold]
    fn stop<E: Error>(&self, trip: Trip) -> E {
        self.trip.set(Some(trip));
        E::custom("")
    }
}

/// A serializer, or a value on its way to one, with the room that it draws on.
pub(super) struct Guarded<'r, T> {
    inner: T,
    room: &'r Room,
}

impl<'r, T> Guarded<'r, T> {
    pub(super) fn new(inner: T, room: &'r Room) -> Self {
        Guarded { inner, room }
    }
}

impl<T: Serialize + ?Sized> Serialize for Guarded<'_, &T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(Guarded::new(serializer, self.room))
    }
}

/// A value that has parts, half written.
pub(super) struct Parts<'r, C> {
    inner: C,
    room: &'r Room,
    counted: bool,
}

/// Forwards the methods whose values have no parts.
macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(
            #[inline]
            fn $method(self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
                self.inner.$method($($argument),*)
            }
        )*
    };
}

/// Forwards the methods that begin a value with parts, one level deeper.
macro_rules! forward_parts {
    ($($method:ident($($argument:ident: $type:ty),*) -> $parts:ident, $brackets:literal;)*) => {
        $(
            #[inline]
            fn $method(self, $($argument: $type),*) -> Result<Self::$parts, S::Error> {
                self.room.enter($brackets)?;
                let inner = self.inner.$method($($argument),*)?;
                Ok(Parts { inner, room: self.room, counted: false })
            }
        )*
    };
}

impl<'r, S: Serializer> Serializer for Guarded<'r, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Parts<'r, S::SerializeSeq>;
    type SerializeTuple = Parts<'r, S::SerializeTuple>;
    type SerializeTupleStruct = Parts<'r, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Parts<'r, S::SerializeTupleVariant>;
    type SerializeMap = Parts<'r, S::SerializeMap>;
    type SerializeStruct = Parts<'r, S::SerializeStruct>;
    type SerializeStructVariant = Parts<'r, S::SerializeStructVariant>;

    forward! {
        serialize_bool(value: bool)
        serialize_i8(value: i8) serialize_i16(value: i16) serialize_i32(value: i32)
        serialize_i64(value: i64) serialize_i128(value: i128)
        serialize_u8(value: u8) serialize_u16(value: u16) serialize_u32(value: u32)
        serialize_u64(value: u64) serialize_u128(value: u128)
        serialize_f32(value: f32) serialize_f64(value: f64) serialize_char(value: char)
        serialize_str(value: &str) serialize_bytes(value: &[u8])
        serialize_unit() serialize_unit_struct(name: &'static str)
    }

    forward_parts! {
        serialize_tuple(length: usize) -> SerializeTuple, 1;
        serialize_tuple_struct(name: &'static str, length: usize) -> SerializeTupleStruct, 1;
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, length: usize
        ) -> SerializeTupleVariant, 2;
        serialize_struct(name: &'static str, length: usize) -> SerializeStruct, 1;
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, length: usize
        ) -> SerializeStructVariant, 2;
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.room.enter(1)?;
        let counted = self.room.announce(length);
        Ok(Parts { inner: self.inner.serialize_seq(length)?, room: self.room, counted })
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.room.enter(1)?;
        let counted = self.room.announce(length);
        Ok(Parts { inner: self.inner.serialize_map(length)?, room: self.room, counted })
    }

    /// Its reader goes a level deeper before it knows that there is nothing.
    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.room.enter(0)?;
        self.room.leave(0);
        self.inner.serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.room.enter(0)?;
        let written = self.inner.serialize_some(&Guarded::new(value, self.room));
        self.room.leave(0);
        written
    }

    /// As [`Guarded::serialize_none`].
    #[inline]
    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.room.enter(0)?;
        self.room.leave(0);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.room.enter(0)?;
        let written = self.inner.serialize_newtype_struct(name, &Guarded::new(value, self.room));
        self.room.leave(0);
        written
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.room.enter(1)?;
        let value = Guarded::new(value, self.room);
        let written = self.inner.serialize_newtype_variant(name, index, variant, &value);
        self.room.leave(1);
        written
    }

    /// The inner one may write the text as it comes, without a copy.
    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Ends a value with parts, one level up.
macro_rules! end {
    ($brackets:literal) => {
        #[inline]
        fn end(self) -> Result<C::Ok, C::Error> {
            self.room.leave($brackets);
            self.inner.end()
        }
    };
}

impl<C: SerializeSeq> SerializeSeq for Parts<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        if self.counted {
            self.room.one_more()?;
        }
        self.inner.serialize_element(&Guarded::new(value, self.room))
    }

    end!(1);
}

impl<C: SerializeMap> SerializeMap for Parts<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        if self.counted {
            self.room.one_more()?;
        }
        self.inner.serialize_key(&Guarded::new(key, self.room))
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        self.inner.serialize_value(&Guarded::new(value, self.room))
    }

    end!(1);
}

/// Guards the parts of tuples, which have no names.
macro_rules! forward_elements {
    ($($trait:ident::$method:ident, $brackets:literal;)*) => {
        $(
            impl<C: $trait> $trait for Parts<'_, C> {
                type Ok = C::Ok;
                type Error = C::Error;

                #[inline]
                fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                    self.inner.$method(&Guarded::new(value, self.room))
                }

                end!($brackets);
            }
        )*
    };
}

forward_elements! {
    SerializeTuple::serialize_element, 1;
    SerializeTupleStruct::serialize_field, 1;
    SerializeTupleVariant::serialize_field, 2;
}

/// Guards the fields of structs.
macro_rules! forward_fields {
    ($($trait:ident, $brackets:literal;)*) => {
        $(
            impl<C: $trait> $trait for Parts<'_, C> {
                type Ok = C::Ok;
                type Error = C::Error;

                #[inline]
                fn serialize_field<T: Serialize + ?Sized>(
                    &mut self,
                    name: &'static str,
                    value: &T,
                ) -> Result<(), C::Error> {
                    self.inner.serialize_field(name, &Guarded::new(value, self.room))
                }

                #[inline]
                fn skip_field(&mut self, name: &'static str) -> Result<(), C::Error> {
                    self.inner.skip_field(name)
                }

                end!($brackets);
            }
        )*
    };
}

forward_fields! {
    SerializeStruct, 1;
    SerializeStructVariant, 2;
}
