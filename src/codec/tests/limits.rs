//! Encoding refuses what wouldn't decode.

use super::hostile::{Branch, Keyed};
use super::*;

/// Written as the same kind of value inside itself, this many times.
struct Nest {
    kind: Kind,
    levels: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Some,
    Newtype,
    Tuple,
    TupleStruct,
    Struct,
    Seq,
    Map,
    NewtypeVariant,
    TupleVariant,
    StructVariant,
}

const KINDS: [Kind; 10] = [
    Kind::Some,
    Kind::Newtype,
    Kind::Tuple,
    Kind::TupleStruct,
    Kind::Struct,
    Kind::Seq,
    Kind::Map,
    Kind::NewtypeVariant,
    Kind::TupleVariant,
    Kind::StructVariant,
];

impl Serialize for Nest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::*;
        let Some(levels) = self.levels.checked_sub(1) else { return serializer.serialize_u8(0) };
        let inner = &Nest { kind: self.kind, levels };
        match self.kind {
            Kind::Some => serializer.serialize_some(inner),
            Kind::Newtype => serializer.serialize_newtype_struct("Nest", inner),
            Kind::NewtypeVariant => serializer.serialize_newtype_variant("Nest", 0, "V", inner),
            Kind::Tuple => {
                let mut parts = serializer.serialize_tuple(1)?;
                parts.serialize_element(inner)?;
                parts.end()
            }
            Kind::TupleStruct => {
                let mut parts = serializer.serialize_tuple_struct("Nest", 1)?;
                parts.serialize_field(inner)?;
                parts.end()
            }
            Kind::Struct => {
                let mut parts = serializer.serialize_struct("Nest", 1)?;
                parts.serialize_field("inner", inner)?;
                parts.end()
            }
            Kind::Seq => {
                let mut parts = serializer.serialize_seq(Some(1))?;
                parts.serialize_element(inner)?;
                parts.end()
            }
            Kind::Map => {
                let mut parts = serializer.serialize_map(Some(1))?;
                parts.serialize_entry("key", inner)?;
                parts.end()
            }
            Kind::TupleVariant => {
                let mut parts = serializer.serialize_tuple_variant("Nest", 0, "V", 1)?;
                parts.serialize_field(inner)?;
                parts.end()
            }
            Kind::StructVariant => {
                let mut parts = serializer.serialize_struct_variant("Nest", 0, "V", 1)?;
                parts.serialize_field("inner", inner)?;
                parts.end()
            }
        }
    }
}

#[test]
fn values_that_nest_without_end_are_refused_and_the_process_lives() {
    for (codec, kind) in CODECS.into_iter().flat_map(|codec| KINDS.map(|kind| (codec, kind))) {
        let endless = Nest { kind, levels: u32::MAX };
        let error = encode(codec, &endless, LIMIT).unwrap_err();
        assert_eq!(error, CodecError::TooDeep { limit: 128 }, "{codec} {kind:?}");
    }
}

/// The deepest value that is accepted must decode, and one level more must not be accepted.
fn is_exact<T: Serialize + DeserializeOwned>(codec: Codec, of: impl Fn(u32) -> T) {
    let accepted = (1..200).take_while(|levels| encode(codec, &of(*levels), LIMIT).is_ok()).count();
    let accepted = u32::try_from(accepted).unwrap();
    assert!(accepted > 60, "{codec}: {accepted}");
    drop(round_trip(codec, &of(accepted)));
    // what an unguarded writer makes of one more
    let deeper = match codec {
        Codec::Bincode => bincode::serde::encode_to_vec(of(accepted + 1), LAYOUT).unwrap(),
        Codec::Json => serde_json::to_vec(&of(accepted + 1)).unwrap(),
    };
    assert_eq!(fails::<T>(codec, &deeper), CodecError::TooDeep { limit: 128 });
}

#[test]
fn the_depth_that_is_accepted_is_the_depth_that_decodes() {
    #[derive(Serialize, Deserialize)]
    struct Optional(Option<Box<Optional>>);
    #[derive(Serialize, Deserialize)]
    struct Tree {
        children: Vec<Tree>,
    }
    #[derive(Serialize, Deserialize)]
    enum Chain {
        Next(Box<Chain>),
        Pair(Box<Chain>, u8),
        Named { next: Box<Chain> },
        End,
    }
    fn nest<T>(levels: u32, last: T, wrap: impl Fn(T) -> T) -> T {
        (1..levels).fold(last, |next, _| wrap(next))
    }
    for codec in CODECS {
        let tree = |next| Tree { children: vec![next] };
        is_exact(codec, |levels| nest(levels, Tree { children: Vec::new() }, tree));
        let keyed = |next| Keyed(BTreeMap::from([(1, next)]));
        is_exact(codec, |levels| nest(levels, Keyed(BTreeMap::new()), keyed));
        is_exact(codec, |levels| nest(levels, Chain::End, |next| Chain::Next(next.into())));
        let both = |next: Branch| Branch::Both(Branch::Leaf.into(), next.into());
        is_exact(codec, |levels| nest(levels, Branch::Leaf, both));
    }
    // `None` is a level too; JSON can't tell the levels of this one apart
    let some = |next: Optional| Optional(Some(next.into()));
    is_exact(Codec::Bincode, |levels| nest(levels, Optional(None), some));
    // in JSON these two take two pairs of brackets for each level
    let most = |wrap: fn(Chain) -> Chain| {
        let of = |levels| nest(levels, Chain::End, wrap);
        (1..200).take_while(|levels| encode(Codec::Json, &of(*levels), LIMIT).is_ok()).count()
    };
    assert_eq!(most(|next| Chain::Pair(next.into(), 0)), 64);
    assert_eq!(most(|next| Chain::Named { next: next.into() }), 64);
    let named = nest(64, Chain::End, |next| Chain::Named { next: next.into() });
    drop(round_trip(Codec::Json, &named));
    let value = |levels| nest(levels, serde_json::json!([]), |next| serde_json::json!([next]));
    is_exact(Codec::Json, value);
}

#[test]
fn siblings_do_not_add_to_the_depth_of_a_value() {
    let shapes = vec![everything().shapes; 1_000];
    for codec in CODECS {
        assert_eq!(round_trip(codec, &shapes), shapes, "{codec}");
    }
}

#[test]
fn more_empty_elements_than_decode_are_refused() {
    let most = 2 + 1 + EMPTY_ELEMENTS_MAX;
    assert!(encode(Codec::Bincode, &vec![(); most], LIMIT).is_ok());
    let error = encode(Codec::Bincode, &vec![(); most + 1], LIMIT).unwrap_err();
    assert_eq!(error, CodecError::TooManyElements { limit: most });
    // JSON writes each of them
    assert_eq!(round_trip(Codec::Json, &vec![(); 2 * most]).len(), 2 * most);
    // several lengths share one budget, as they do when they are read
    let hundreds = vec![vec![(); 500]; 3];
    let error = encode(Codec::Bincode, &hundreds, LIMIT).unwrap_err();
    assert!(matches!(error, CodecError::TooManyElements { .. }), "{error}");
}

#[test]
fn empty_elements_without_end_are_refused_and_full_ones_are_too_large() {
    let limit = 1000;
    let too_many = CodecError::TooManyElements { limit: limit + EMPTY_ELEMENTS_MAX };
    let units: &[()] = &[(); usize::MAX];
    assert_eq!(encode(Codec::Bincode, units, limit), Err(too_many));
    let full = vec![0u8; limit + EMPTY_ELEMENTS_MAX + 1];
    let error = encode(Codec::Bincode, &full, limit).unwrap_err();
    assert_eq!(error, CodecError::TooLarge { limit, actual: limit + 1 });
}

#[test]
fn a_refusal_that_a_type_swallows_is_still_one() {
    struct Lenient;
    impl Serialize for Lenient {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple;
            let mut parts = serializer.serialize_tuple(1)?;
            parts.serialize_element(&Nest { kind: Kind::Newtype, levels: 1_000 }).ok();
            parts.end()
        }
    }
    for codec in CODECS {
        let error = encode(codec, &Lenient, LIMIT).unwrap_err();
        assert_eq!(error, CodecError::TooDeep { limit: 128 }, "{codec}");
    }
}
