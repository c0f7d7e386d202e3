//! Names of things and of types.

use super::Binder;
use crate::error::{SqlError, SqlState};
use chronos_proto::schema::Relation;
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

/// Our type for a name of SQL.
pub(crate) fn data_type(ty: &DataType) -> Result<Type, SqlError> {
    use DataType as D;
    Ok(match ty {
        D::Bool | D::Boolean => Type::Bool,
        D::TinyInt(None)
        | D::SmallInt(None)
        | D::Int(None)
        | D::Integer(None)
        | D::BigInt(None)
        | D::Int2(None)
        | D::Int4(None)
        | D::Int8(None)
        | D::Int64
        | D::Int32 => Type::Int,
        D::Real | D::Float4 | D::Float8 | D::DoublePrecision | D::Float64 | D::Float32 => Type::Float,
        D::Float(_) | D::Double(_) => Type::Float,
        D::Text | D::String(None) => Type::Text,
        D::Varchar(None) | D::CharacterVarying(None) | D::CharVarying(None) => Type::Text,
        D::Varchar(Some(_)) | D::CharacterVarying(Some(_)) | D::CharVarying(Some(_)) => Type::Text,
        D::Char(_) | D::Character(_) => {
            return Err(SqlError::unsupported("type character(n)").hint("use TEXT or VARCHAR"));
        }
        D::Bytea | D::Blob(None) | D::Bytes(None) => Type::Bytes,
        D::Timestamp(_, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => Type::Timestamp,
        // All times are instants: a TIMESTAMP is read and shown as one in UTC.
        D::Timestamp(_, _) | D::TimestampNtz(_) | D::Datetime(_) => Type::Timestamp,
        D::Date => Type::Date,
        D::Interval { .. } => Type::Interval,
        D::JSON | D::JSONB => Type::Json,
        D::Uuid => Type::Uuid,
        D::Numeric(_) | D::Decimal(_) | D::Dec(_) => {
            return Err(SqlError::unsupported("type numeric").hint("use FLOAT, or INT in the smallest unit"));
        }
        D::Regclass => Type::Int,
        D::Custom(name, _) => {
            let (_, folded) = qualified(name)?;
            match folded.as_str() {
                "timestamptz" | "datetime" => Type::Timestamp,
                "string" | "name" | "citext" | "bpchar" | "regtype" | "regproc" => Type::Text,
                "int" | "int2" | "int4" | "int8" | "int64" | "bigint" | "oid" | "xid" => Type::Int,
                "float8" | "float4" | "double" => Type::Float,
                "bool" => Type::Bool,
                "json" | "jsonb" => Type::Json,
                "serial" | "bigserial" | "smallserial" | "serial4" | "serial8" => {
                    return Err(SqlError::unsupported(format!("type {folded}")).hint(
                        "leave out the primary key for a hidden one, or use UUID DEFAULT gen_random_uuid()",
                    ));
                }
                _ => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("type \"{folded}\" does not exist"),
                    ));
                }
            }
        }
        other => return Err(SqlError::unsupported(format!("type {other}"))),
    })
}
