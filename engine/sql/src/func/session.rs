//! What a statement may ask about its session and server.

use super::{functions, str, text};
use crate::exec::vector::ValueRef;
use chronos_proto::Value;

/// The version of PostgreSQL whose language this is.
pub(crate) const SERVER_VERSION: &str = "15.0";

functions! { TABLE:
    "version" () -> Text Stable Row |_, _| {
        text(format!("PostgreSQL {SERVER_VERSION} (ChronosDB {})", env!("CARGO_PKG_VERSION")))
    };
    "current_user" () -> Text Stable Row |_, cx| text(cx.session.user.clone());
    "session_user" () -> Text Stable Row |_, cx| text(cx.session.user.clone());
    "user" () -> Text Stable Row |_, cx| text(cx.session.user.clone());
    "current_role" () -> Text Stable Row |_, cx| text(cx.session.user.clone());
    "current_database" () -> Text Stable Row |_, cx| text(cx.session.database.clone());
    "current_catalog" () -> Text Stable Row |_, cx| text(cx.session.database.clone());
    "current_schema" () -> Text Stable Row |_, _| text("public");
    "pg_backend_pid" () -> Integer Stable Row |_, cx| Ok(Value::Int(i64::from(cx.session.backend_pid)));
    "current_setting" (Text) -> Text Stable Row |a, cx| {
        cx.session.settings.get(str(a[0])).map(Value::Text).ok_or_else(|| crate::settings::unknown(str(a[0])))
    };
    "pg_is_in_recovery" () -> Bool Stable Row |_, _| Ok(Value::Bool(false));
    "pg_table_is_visible" (Int) -> Bool Stable Row |_, _| Ok(Value::Bool(true));
    "pg_get_userbyid" (Int) -> Text Stable Row |_, _| text("chronos");
    "pg_encoding_to_char" (Int) -> Text Stable Row |_, _| text("UTF8");
    "format_type" (Int, Int) -> Text Stable RowNulls |a, _| match a[0] {
        ValueRef::Int(oid) => match u32::try_from(oid).ok().and_then(crate::oid::to_type) {
            Some(ty) => text(ty.to_string()),
            None => text("???"),
        },
        _ => Ok(Value::Null),
    };
    "obj_description" (Int, Text) -> Text Stable Row |_, _| Ok(Value::Null);
    "col_description" (Int, Int) -> Text Stable Row |_, _| Ok(Value::Null);
    "pg_get_expr" (Text, Int) -> Text Stable Row |a, _| text(str(a[0]));
    "has_table_privilege" (Int, Text) -> Bool Stable Row |_, _| Ok(Value::Bool(true));
    "has_schema_privilege" (Text, Text) -> Bool Stable Row |_, _| Ok(Value::Bool(true));
    "pg_sleep" (Float) -> Text Volatile Row |_, _| {
        Err(crate::error::SqlError::unsupported("pg_sleep").hint("a statement has no clock of its own"))
    };
}
