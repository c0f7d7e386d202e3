//! Names of things and of types.

use super::Binder;
use crate::error::{SqlError, SqlState};
use chronos_proto::schema::Relation;
use chronos_proto::value::Element;
use chronos_proto::{Type, limits};
use sqlparser::ast::{self, DataType, Ident, ObjectName, TimezoneInfo};
use sqlparser::tokenizer::Location;
use std::sync::Arc;

/// As PostgreSQL folds it: lower case unless quoted, cut to 63 bytes.
pub(crate) fn folded(ident: &Ident) -> String {
    let mut name = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    if name.len() > limits::NAME_MAX_BYTES {
        let cut = (0..=limits::NAME_MAX_BYTES).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        name.truncate(cut);
    }
    name
}

/// Schema and name, where the schema is given. A database before it is dropped.
pub(crate) fn qualified(name: &ObjectName) -> Result<(Option<String>, String), SqlError> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        match part {
            ast::ObjectNamePart::Identifier(ident) => parts.push(folded(ident)),
            ast::ObjectNamePart::Function(_) => return Err(SqlError::unsupported("a function in a name")),
        }
    }
    match (parts.pop(), parts.pop(), parts.len()) {
        (Some(name), schema, 0 | 1) => Ok((schema, name)),
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("improper qualified name (too many dotted names): {name}"),
        )),
    }
}

pub(crate) fn location(name: &ObjectName) -> Location {
    match name.0.first() {
        Some(ast::ObjectNamePart::Identifier(ident)) => ident.span.start,
        _ => Location { line: 0, column: 0 },
    }
}

/// A name in the schema that users' relations live in.
pub(crate) fn user_name(name: &ObjectName) -> Result<String, SqlError> {
    match qualified(name)? {
        (None, name) => Ok(name),
        (Some(schema), name) if schema == "public" => Ok(name),
        (Some(schema), _) if matches!(schema.as_str(), "pg_catalog" | "information_schema" | "chronos") => {
            Err(SqlError::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!("permission denied: \"{schema}\" is a system schema"),
            ))
        }
        (Some(schema), _) => {
            Err(SqlError::new(crate::SqlState(*b"3F000"), format!("schema \"{schema}\" does not exist")))
        }
    }
}

pub(crate) fn undefined_table(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist"))
}

impl Binder<'_> {
    /// A user's table or topic.
    pub fn relation(&mut self, name: &ObjectName) -> Result<Arc<Relation>, SqlError> {
        let folded = user_name(name)?;
        let found = self.catalog.by_name(&folded).cloned();
        let relation = found.ok_or_else(|| self.at(undefined_table(&folded), location(name)))?;
        self.relations.insert(relation.id);
        Ok(relation)
    }
}

/// A length in characters.
fn length(length: &Option<ast::CharacterLength>) -> Result<Option<u32>, SqlError> {
    match length {
        None => Ok(None),
        Some(ast::CharacterLength::IntegerLength { length, .. }) => match u32::try_from(*length) {
            Ok(0) => {
                Err(SqlError::new(SqlState::INVALID_PARAMETER, "length for type varchar must be at least 1"))
            }
            Ok(n) if n <= CHARACTERS_MAX => Ok(Some(n)),
            _ => Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("length for type varchar cannot exceed {CHARACTERS_MAX}"),
            )),
        },
        Some(ast::CharacterLength::Max) => Err(SqlError::unsupported("a length of MAX")),
    }
}

/// The greatest length that VARCHAR(n) takes.
const CHARACTERS_MAX: u32 = 10_485_760;

fn numeric(info: &ast::ExactNumberInfo) -> Result<Type, SqlError> {
    let (precision, scale) = match info {
        ast::ExactNumberInfo::None => return Ok(Type::Numeric),
        ast::ExactNumberInfo::Precision(precision) => (*precision, 0),
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let bad = |what: &str, value: i64, range: &str| {
        SqlError::new(SqlState::INVALID_PARAMETER, format!("NUMERIC {what} {value} must be between {range}"))
    };
    if !(1..=1000).contains(&precision) {
        return Err(bad("precision", precision as i64, "1 and 1000"));
    }
    if !(-1000..=1000).contains(&scale) {
        return Err(bad("scale", scale, "-1000 and 1000"));
    }
    Ok(Type::Decimal { precision: precision as u16, scale: scale as i16 })
}

/// Our type for a name of SQL.
pub(crate) fn data_type(ty: &DataType) -> Result<Type, SqlError> {
    use DataType as D;
    Ok(match ty {
        D::Bool | D::Boolean => Type::Bool,
        D::SmallInt(None) | D::Int2(None) | D::TinyInt(None) => Type::SmallInt,
        D::Int(None) | D::Integer(None) | D::Int4(None) | D::Int32 => Type::Integer,
        D::BigInt(None) | D::Int8(None) | D::Int64 => Type::Int,
        D::Real | D::Float4 | D::Float32 => Type::Real,
        D::Float(ast::ExactNumberInfo::Precision(1..=24)) => Type::Real,
        D::Float8 | D::DoublePrecision | D::Float64 | D::Float(_) | D::Double(_) => Type::Float,
        D::Text | D::String(None) => Type::Text,
        D::Varchar(n) | D::CharacterVarying(n) | D::CharVarying(n) => Type::Varchar(length(n)?.unwrap_or(0)),
        D::Char(n) | D::Character(n) => Type::Char(length(n)?.unwrap_or(1)),
        D::Bytea | D::Blob(None) | D::Bytes(None) => Type::Bytes,
        D::Timestamp(precision, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            whole_precision(*precision)?;
            Type::Timestamp
        }
        D::Timestamp(precision, _) => {
            whole_precision(*precision)?;
            Type::LocalTimestamp
        }
        D::TimestampNtz(_) | D::Datetime(_) => Type::LocalTimestamp,
        D::Date => Type::Date,
        D::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            whole_precision(*precision)?;
            Type::Time
        }
        D::Interval { fields: None, precision } => {
            whole_precision(*precision)?;
            Type::Interval
        }
        D::JSON => Type::PlainJson,
        D::JSONB => Type::Json,
        D::Uuid => Type::Uuid,
        D::Numeric(info) | D::Decimal(info) | D::Dec(info) => numeric(info)?,
        D::Array(
            ast::ArrayElemTypeDef::SquareBracket(inner, _) | ast::ArrayElemTypeDef::AngleBracket(inner),
        ) => {
            match data_type(inner)? {
                // Any number of dimensions is one type.
                array @ Type::Array(_) => array,
                ty if ty != ty.base() && ty != Type::Char(1) => {
                    return Err(SqlError::unsupported(format!("type {ty}[]"))
                        .hint("leave the length, or the precision, out"));
                }
                ty => {
                    Type::Array(Element::of(ty).ok_or_else(|| SqlError::unsupported(format!("type {ty}[]")))?)
                }
            }
        }
        D::Regclass => Type::Int,
        D::Custom(name, modifiers) => {
            let (_, folded) = qualified(name)?;
            let modifier = modifiers.first().and_then(|m| m.parse::<u64>().ok());
            let length = modifier.map(|length| ast::CharacterLength::IntegerLength { length, unit: None });
            match folded.as_str() {
                "bpchar" => Type::Char(self::length(&length)?.unwrap_or(0)),
                "varchar" => Type::Varchar(self::length(&length)?.unwrap_or(0)),
                "datetime" => Type::Timestamp,
                "string" | "name" | "citext" | "regtype" | "regproc" => Type::Text,
                "int" | "integer" => Type::Integer,
                "smallint" => Type::SmallInt,
                "int64" | "bigint" | "oid" | "xid" | "regclass" | "regnamespace" | "regrole" => Type::Int,
                "double" => Type::Float,
                "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" => {
                    return Err(SqlError::unsupported(format!("type {folded}")).hint(
                        "leave out the primary key for a hidden one, or use UUID DEFAULT gen_random_uuid()",
                    ));
                }
                short => match crate::oid::named(short) {
                    Some(ty) => ty,
                    None => {
                        return Err(SqlError::new(
                            SqlState::UNDEFINED_OBJECT,
                            format!("type \"{folded}\" does not exist"),
                        ));
                    }
                },
            }
        }
        other => return Err(SqlError::unsupported(format!("type {other}"))),
    })
}

/// Times are kept to the microsecond; a coarser one is refused rather than not rounded.
fn whole_precision(precision: Option<u64>) -> Result<(), SqlError> {
    match precision {
        None | Some(6..) => Ok(()),
        Some(digits) => Err(SqlError::unsupported(format!("a precision of {digits} digits of a second"))),
    }
}
