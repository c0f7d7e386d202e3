//! What a statement may ask about its session and server.

use super::{functions, int, str, text};
use crate::exec::eval::EvalCx;
use crate::exec::vector::ValueRef;
use crate::system::catalog;
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
        let value = cx.session.settings.get(str(a[0])).ok_or_else(|| crate::settings::unknown(str(a[0])))?;
        Ok(Value::Text(value.to_owned()))
    };
    "pg_is_in_recovery" () -> Bool Stable Row |_, _| Ok(Value::Bool(false));
    "pg_table_is_visible" (Int) -> Bool Stable Row |a, _| Ok(Value::Bool(int(a[0]) != catalog::TIMERS_OID));
    "pg_get_userbyid" (Int) -> Text Stable Row |_, _| text("chronos");
    "pg_encoding_to_char" (Int) -> Text Stable Row |_, _| text("UTF8");
    "format_type" (Int, Int) -> Text Stable RowNulls |a, _| match a[0] {
        ValueRef::Int(oid) => {
            let modifier = match a[1] {
                ValueRef::Int(modifier) => i32::try_from(modifier).unwrap_or(-1),
                _ => -1,
            };
            match u32::try_from(oid).ok().and_then(crate::oid::to_type) {
                Some(ty) => text(crate::oid::with_modifier(ty, modifier).to_string()),
                None => text("???"),
            }
        }
        _ => Ok(Value::Null),
    };
    "pg_get_expr" (Text, Int, Bool) -> Text Stable Row |a, _| text(str(a[0]));
    "pg_get_indexdef" (Int) -> Text Stable Row |a, cx| Ok(index(cx, int(a[0]), 0));
    "pg_get_indexdef" (Int, Int, Bool) -> Text Stable Row |a, cx| Ok(index(cx, int(a[0]), int(a[1])));
    "pg_get_constraintdef" (Int) -> Text Stable Row |a, cx| Ok(constraint(cx, int(a[0])));
    "pg_get_constraintdef" (Int, Bool) -> Text Stable Row |a, cx| Ok(constraint(cx, int(a[0])));
    "pg_function_is_visible" (Int) -> Bool Stable Row |_, _| Ok(Value::Bool(true));
    "pg_type_is_visible" (Int) -> Bool Stable Row |_, _| Ok(Value::Bool(true));
    "pg_relation_is_publishable" (Int) -> Bool Stable Row |_, _| Ok(Value::Bool(false));
    "pg_get_function_result" (Int) -> Text Stable Row |_, _| Ok(Value::Null);
    "pg_get_function_arguments" (Int) -> Text Stable Row |_, _| Ok(Value::Null);
    "pg_get_statisticsobjdef_columns" (Int) -> Text Stable Row |_, _| Ok(Value::Null);
    "pg_table_size" (Int) -> Int Stable Row |_, _| Ok(Value::Null);
    "pg_relation_size" (Int) -> Int Stable Row |_, _| Ok(Value::Null);
    "pg_total_relation_size" (Int) -> Int Stable Row |_, _| Ok(Value::Null);
    "pg_database_size" (Int) -> Int Stable Row |_, _| Ok(Value::Null);
    "pg_size_pretty" (Int) -> Text Immutable Row |a, _| {
        let mut size = int(a[0]);
        for unit in ["bytes", "kB", "MB", "GB", "TB"] {
            if size.abs() < 10_240 || unit == "TB" {
                return text(format!("{size} {unit}"));
            }
            size = (size + 512) >> 10;
        }
        Ok(Value::Null)
    };
    "current_schemas" (Bool) -> [Text] Stable Row |a, _| {
        let all = [Value::Text("pg_catalog".into()), Value::Text("public".into())];
        let implicit = a[0].to_value() == Value::Bool(true);
        Ok(crate::array::flat(chronos_proto::value::Element::TEXT, if implicit { &all } else { &all[1..] }))
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

fn index(cx: &EvalCx<'_>, oid: i64, column: i64) -> Value {
    let found = cx.run.and_then(|run| catalog::index_definition(&run.view.catalog, oid, column));
    found.map_or(Value::Null, Value::Text)
}

fn constraint(cx: &EvalCx<'_>, oid: i64) -> Value {
    let found = cx.run.and_then(|run| catalog::constraint_definition(&run.view.catalog, oid));
    found.map_or(Value::Null, Value::Text)
}
