//! A deserializer around another one that bounds what hostile bytes can cost.
//!
//! Bytes of a format without type tags can ask for two things that the format's own reader grants:
//! nesting without end, which overflows the stack and so ends the process, and sequences of 2^33
//! elements that take no bytes each, which never end. The guard counts levels of nesting on the way
//! down, and the elements that sequences and maps announce before it hands out the first.
//!
//! Only lengths that come from the data count. Every element that isn't empty takes a byte of its
//! own: a tag, a length or a value. So `bytes + EMPTY_ELEMENTS_MAX` elements never refuses data
//! without empty elements, and bounds the work for all data.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// How deep a value may be nested; the JSON reader has the same limit.
pub(super) const DEPTH_MAX: u32 = 128;

/// How many elements that take no bytes, such as `()`, a value may have at least.
pub(super) const EMPTY_ELEMENTS_MAX: usize = 1024;

/// Why the guard stopped the decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trip {
    TooDeep,
    TooManyElements,
}

/// What is left of one decoding's budget.
pub(super) struct Budget {
    depth: Cell<u32>,
    elements: Cell<usize>,
    trip: Cell<Option<Trip>>,
    /// Whether sequences and maps announce their lengths.
    announced: bool,
}

impl Budget {
    /// The budget for an input of this many bytes, in a format that announces lengths.
    pub(super) fn for_input(bytes: usize) -> Self {
        let elements = Cell::new(bytes.saturating_add(EMPTY_ELEMENTS_MAX));
        Budget { elements, announced: true, ..Budget::for_text() }
    }

    /// The budget for a text format: each element takes characters, so only depth is limited.
    pub(super) fn for_text() -> Self {
        Budget {
            depth: Cell::new(DEPTH_MAX),
            elements: Cell::new(0),
            trip: Cell::new(None),
            announced: false,
        }
    }

    /// The limit that was hit, if one was; it stays, also when a type swallows the error.
    pub(super) fn trip(&self) -> Option<Trip> {
        self.trip.get()
    }

    /// Runs `decode` one level deeper.
    #[inline]
    fn nested<T, E: serde::de::Error>(
        &self,
        decode: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(depth) = self.depth.get().checked_sub(1) else {
            return Err(self.stop(Trip::TooDeep));
        };
        self.depth.set(depth);
        let decoded = decode();
        self.depth.set(depth + 1);
        decoded
    }

    /// Takes the announced length of a sequence or map. A format that announces none is refused.
    #[inline]
    fn take_elements<E: serde::de::Error>(&self, announced: Option<usize>) -> Result<(), E> {
        if !self.announced {
            return Ok(());
        }
        match announced.and_then(|length| self.elements.get().checked_sub(length)) {
            Some(left) => {
                self.elements.set(left);
                Ok(())
            }
            None => Err(self.stop(Trip::TooManyElements)),
        }
    }

    #[cold]
    fn stop<E: serde::de::Error>(&self, trip: Trip) -> E {
        self.trip.set(Some(trip));
        E::custom("")
    }
}

/// Anything of serde's that passes values on, with the budget that it draws on.
pub(super) struct Guarded<'b, T> {
    inner: T,
    budget: &'b Budget,
}

impl<'b, T> Guarded<'b, T> {
    pub(super) fn new(inner: T, budget: &'b Budget) -> Self {
        Guarded { inner, budget }
    }

    #[inline]
    fn wrap<U>(&self, inner: U) -> Guarded<'b, U> {
        Guarded { inner, budget: self.budget }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Guarded::new(deserializer, self.budget))
    }
}

/// Forwards the methods whose values can't nest.
macro_rules! forward {
    ($($method:ident)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.inner.$method(visitor)
            }
        )*
    };
}

/// Forwards the methods whose values can nest, one level deeper and with a guarded visitor.
macro_rules! forward_nested {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(
                self,
                $($argument: $type,)*
                visitor: V,
            ) -> Result<V::Value, D::Error> {
                let visitor = self.wrap(visitor);
                self.budget.nested(|| self.inner.$method($($argument,)* visitor))
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    forward! {
        deserialize_any deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_bytes
        deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    forward_nested! {
        deserialize_option()
        deserialize_newtype_struct(name: &'static str)
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    /// Reads a slice of the input and copies it: the reader's own method allocates the length that
    /// the data claims before it looks whether there are as many bytes.
    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Copied(visitor))
    }

    /// As [`Guarded::deserialize_string`].
    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        if !self.budget.announced {
            return self.inner.deserialize_byte_buf(visitor);
        }
        self.inner.deserialize_bytes(Copied(visitor))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Announced(self.wrap(visitor));
        self.budget.nested(|| self.inner.deserialize_seq(visitor))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = Announced(self.wrap(visitor));
        self.budget.nested(|| self.inner.deserialize_map(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Guards what a nested value hands out.
impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    #[inline]
    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Guarded::new(deserializer, self.budget))
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Guarded::new(inner, self.budget))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_seq(Guarded::new(access, self.budget))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Guarded::new(access, self.budget))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(Guarded::new(access, self.budget))
    }
}

/// The visitor of a sequence or map whose length comes from the data.
struct Announced<'b, V>(Guarded<'b, V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for Announced<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.budget.take_elements(access.size_hint())?;
        self.0.visit_seq(access)
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.budget.take_elements(access.size_hint())?;
        self.0.visit_map(access)
    }
}

/// Hands out an owned copy of a slice of the input, as its visitor asked for.
struct Copied<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Copied<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    #[inline]
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<V::Value, E> {
        self.0.visit_string(text.to_owned())
    }

    #[inline]
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<V::Value, E> {
        self.0.visit_byte_buf(bytes.to_owned())
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error>
    where
        S: DeserializeSeed<'de>,
    {
        let seed = self.wrap(seed);
        self.inner.next_element_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error>
    where
        S: DeserializeSeed<'de>,
    {
        let seed = self.wrap(seed);
        self.inner.next_key_seed(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.next_value_seed(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'b, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'b, A> {
    type Error = A::Error;
    type Variant = Guarded<'b, A::Variant>;

    #[inline]
    fn variant_seed<S>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error>
    where
        S: DeserializeSeed<'de>,
    {
        let (tag, variant) = self.inner.variant_seed(seed)?;
        Ok((tag, Guarded::new(variant, self.budget)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.wrap(seed);
        self.inner.newtype_variant_seed(seed)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.wrap(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
