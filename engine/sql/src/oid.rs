//! PostgreSQL's numbers of built-in types, which clients know by heart.

use chronos_proto::Type;
use chronos_proto::value::Element;

/// Types, their numbers, the numbers of arrays of them, and their short names.
const TYPES: &[(Type, u32, u32, &str)] = &[
    (Type::Bool, 16, 1000, "bool"),
    (Type::Bytes, 17, 1001, "bytea"),
    (Type::Int, 20, 1016, "int8"),
    (Type::SmallInt, 21, 1005, "int2"),
    (Type::Integer, 23, 1007, "int4"),
    (Type::Text, 25, 1009, "text"),
    (Type::PlainJson, 114, 199, "json"),
    (Type::Real, 700, 1021, "float4"),
    (Type::Float, 701, 1022, "float8"),
    (Type::Char(0), 1042, 1014, "bpchar"),
    (Type::Varchar(0), 1043, 1015, "varchar"),
    (Type::Date, 1082, 1182, "date"),
    (Type::Time, 1083, 1183, "time"),
    (Type::LocalTimestamp, 1114, 1115, "timestamp"),
    (Type::Timestamp, 1184, 1185, "timestamptz"),
    (Type::Interval, 1186, 1187, "interval"),
    (Type::Numeric, 1700, 1231, "numeric"),
    (Type::Uuid, 2950, 2951, "uuid"),
    (Type::Json, 3802, 3807, "jsonb"),
];

/// The number that a column of this type is described with.
pub fn of(ty: Type) -> u32 {
    let number = |ty: Type| TYPES.iter().find(|(t, ..)| *t == ty.base());
    match ty {
        Type::Array(element) => number(element.ty()).map_or(1009, |t| t.2),
        ty => number(ty).map_or(25, |t| t.1),
    }
}

/// Our type for a number that a client declared; none for 0, `unknown` and types that we do not have.
pub fn to_type(oid: u32) -> Option<Type> {
    match oid {
        26 => return Some(Type::Int),
        18 | 19 => return Some(Type::Text),
        _ => {}
    }
    TYPES.iter().find_map(|(ty, number, array, _)| match oid {
        oid if oid == *number => Some(*ty),
        oid if oid == *array => Element::of(*ty).map(Type::Array),
        _ => None,
    })
}

/// `pg_type.typname`: the short name that columns of casts are called by too.
pub fn name(ty: Type) -> String {
    let short = |ty: Type| TYPES.iter().find(|(t, ..)| *t == ty.base()).map_or("text", |t| t.3);
    match ty {
        Type::Array(element) => format!("_{}", short(element.ty())),
        ty => short(ty).to_owned(),
    }
}

/// The type of a short name.
pub fn named(name: &str) -> Option<Type> {
    TYPES.iter().find(|t| t.3 == name).map(|t| t.0)
}

/// The type that an [`modifier`] makes of one without.
pub fn with_modifier(ty: Type, modifier: i32) -> Type {
    match (ty, modifier.checked_sub(4)) {
        (Type::Varchar(0), Some(n @ 1..)) => Type::Varchar(n as u32),
        (Type::Char(0), Some(n @ 1..)) => Type::Char(n as u32),
        (Type::Numeric, Some(n @ 0..)) => {
            // Eleven bits with a sign.
            let scale = ((n & 0x7FF) ^ 0x400) - 0x400;
            Type::Decimal { precision: (n >> 16) as u16, scale: scale as i16 }
        }
        (ty, _) => ty,
    }
}

/// Types that are no arrays.
pub fn all() -> impl Iterator<Item = Type> {
    TYPES.iter().map(|t| t.0)
}

/// `pg_type.typlen` of a type: bytes, or -1 if it varies.
pub const fn length(ty: Type) -> i16 {
    match ty {
        Type::Bool => 1,
        Type::SmallInt => 2,
        Type::Date | Type::Integer | Type::Real => 4,
        Type::Int | Type::Float | Type::Timestamp | Type::LocalTimestamp | Type::Time => 8,
        Type::Interval | Type::Uuid => 16,
        _ => -1,
    }
}

/// `pg_attribute.atttypmod`: the length, or the precision and scale, or -1.
pub const fn modifier(ty: Type) -> i32 {
    match ty {
        Type::Varchar(n) | Type::Char(n) if n > 0 => n as i32 + 4,
        Type::Decimal { precision, scale } => ((precision as i32) << 16 | (scale as i32 & 0x7FF)) + 4,
        _ => -1,
    }
}
