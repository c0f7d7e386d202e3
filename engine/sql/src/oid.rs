//! PostgreSQL's numbers of built-in types, which clients know by heart.

use chronos_proto::Type;

/// The number that a column of this type is described with.
pub const fn of(ty: Type) -> u32 {
    match ty {
        Type::Bool => 16,
        Type::Bytes => 17,
        Type::Int => 20,
        Type::Text => 25,
        Type::Float => 701,
        Type::Date => 1082,
        Type::Timestamp => 1184,
        Type::Interval => 1186,
        Type::Uuid => 2950,
        Type::Json => 3802,
    }
}

/// Our type for a number that a client declared; none for 0, `unknown` and types that we do not have.
pub const fn to_type(oid: u32) -> Option<Type> {
    Some(match oid {
        16 => Type::Bool,
        17 => Type::Bytes,
        20 | 21 | 23 | 26 => Type::Int,
        18 | 19 | 25 | 1042 | 1043 => Type::Text,
        700 | 701 | 1700 => Type::Float,
        1082 => Type::Date,
        1114 | 1184 => Type::Timestamp,
        1186 => Type::Interval,
        2950 => Type::Uuid,
        114 | 3802 => Type::Json,
        _ => return None,
    })
}

/// `pg_type.typlen` of a type: bytes, or -1 if it varies.
pub const fn length(ty: Type) -> i16 {
    match ty {
        Type::Bool => 1,
        Type::Int | Type::Float | Type::Timestamp => 8,
        Type::Date => 4,
        Type::Interval | Type::Uuid => 16,
        Type::Text | Type::Bytes | Type::Json => -1,
    }
}
