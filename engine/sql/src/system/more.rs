//! The rest of `pg_catalog` that psql's `\d` family and other shells ask: most of it is empty here.

use super::SystemTable;
use super::catalog::{Constraint, columns_of, constraints_of, oid_of};
use crate::exec::eval::EvalCx;
use chronos_engine::Catalog;
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};

const TEXTS: Type = Type::Array(Element::TEXT);
const NUMBERS: Type = Type::Array(Element::INT);
/// The one access method of tables, and the one of indexes.
pub(super) const HEAP: i64 = 2;
pub(super) const BTREE: i64 = 403;

fn none(_: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    Vec::new()
}

const fn empty(name: &'static str, columns: &'static [(&'static str, Type)]) -> SystemTable {
    SystemTable { schema: "pg_catalog", name, columns, rows: none }
}

pub(super) static TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "pg_catalog",
        name: "pg_am",
        columns: &[("oid", Type::Int), ("amname", Type::Text), ("amtype", Type::Text)],
        rows: |_, _| {
            let row = |(oid, name, kind): (i64, &str, &str)| {
                vec![Value::Int(oid), Value::Text(name.into()), Value::Text(kind.into())]
            };
            [(HEAP, "heap", "t"), (BTREE, "btree", "i")].map(row).to_vec()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attrdef",
        columns: &[("oid", Type::Int), ("adrelid", Type::Int), ("adnum", Type::Int), ("adbin", Type::Text)],
        rows: defaults,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_constraint",
        columns: &[
            ("oid", Type::Int),
            ("conname", Type::Text),
            ("connamespace", Type::Int),
            ("contype", Type::Text),
            ("condeferrable", Type::Bool),
            ("condeferred", Type::Bool),
            ("convalidated", Type::Bool),
            ("conrelid", Type::Int),
            ("contypid", Type::Int),
            ("conindid", Type::Int),
            ("conparentid", Type::Int),
            ("confrelid", Type::Int),
            ("confupdtype", Type::Text),
            ("confdeltype", Type::Text),
            ("conkey", NUMBERS),
            ("confkey", NUMBERS),
        ],
        rows: constraints,
    },
    empty("pg_auth_members", &[("roleid", Type::Int), ("member", Type::Int), ("admin_option", Type::Bool)]),
    empty("pg_collation", &[("oid", Type::Int), ("collname", Type::Text), ("collnamespace", Type::Int)]),
    empty(
        "pg_description",
        &[
            ("objoid", Type::Int),
            ("classoid", Type::Int),
            ("objsubid", Type::Int),
            ("description", Type::Text),
        ],
    ),
    empty("pg_enum", &[("oid", Type::Int), ("enumtypid", Type::Int), ("enumlabel", Type::Text)]),
    empty("pg_extension", &[("oid", Type::Int), ("extname", Type::Text), ("extversion", Type::Text)]),
    empty(
        "pg_inherits",
        &[
            ("inhrelid", Type::Int),
            ("inhparent", Type::Int),
            ("inhseqno", Type::Int),
            ("inhdetachpending", Type::Bool),
        ],
    ),
    empty("pg_partitioned_table", &[("partrelid", Type::Int), ("partstrat", Type::Text)]),
    empty(
        "pg_policy",
        &[
            ("oid", Type::Int),
            ("polname", Type::Text),
            ("polrelid", Type::Int),
            ("polcmd", Type::Text),
            ("polpermissive", Type::Bool),
            ("polroles", NUMBERS),
            ("polqual", Type::Text),
            ("polwithcheck", Type::Text),
        ],
    ),
    empty(
        "pg_proc",
        &[
            ("oid", Type::Int),
            ("proname", Type::Text),
            ("pronamespace", Type::Int),
            ("proowner", Type::Int),
            ("prokind", Type::Text),
            ("prorettype", Type::Int),
        ],
    ),
    empty("pg_publication", &[("oid", Type::Int), ("pubname", Type::Text), ("puballtables", Type::Bool)]),
    empty("pg_publication_namespace", &[("pnpubid", Type::Int), ("pnnspid", Type::Int)]),
    empty(
        "pg_publication_rel",
        &[("prpubid", Type::Int), ("prrelid", Type::Int), ("prqual", Type::Text), ("prattrs", NUMBERS)],
    ),
    empty(
        "pg_statistic_ext",
        &[
            ("oid", Type::Int),
            ("stxrelid", Type::Int),
            ("stxname", Type::Text),
            ("stxnamespace", Type::Int),
            ("stxstattarget", Type::Int),
            ("stxkind", TEXTS),
        ],
    ),
    empty("pg_tablespace", &[("oid", Type::Int), ("spcname", Type::Text)]),
    empty(
        "pg_trigger",
        &[("oid", Type::Int), ("tgrelid", Type::Int), ("tgname", Type::Text), ("tgisinternal", Type::Bool)],
    ),
];

fn defaults(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        for (i, (_, _, _, default)) in columns_of(relation).into_iter().enumerate() {
            let Some(default) = default else { continue };
            let (table, number) = (oid_of(relation), i as i64 + 1);
            rows.push(vec![
                Value::Int(table + 3_000 + number),
                Value::Int(table),
                Value::Int(number),
                Value::Text(default),
            ]);
        }
    }
    rows
}

fn constraints(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        for Constraint { oid, name, kind, index, columns, .. } in constraints_of(relation) {
            let columns: Vec<Value> = columns.iter().map(|c| Value::Int(*c as i64 + 1)).collect();
            rows.push(vec![
                Value::Int(oid),
                Value::Text(name),
                Value::Int(super::catalog::NAMESPACE_PUBLIC),
                Value::Text(kind.into()),
                Value::Bool(false),
                Value::Bool(false),
                Value::Bool(true),
                Value::Int(oid_of(relation)),
                Value::Int(0),
                Value::Int(index.unwrap_or(0)),
                Value::Int(0),
                Value::Int(0),
                Value::Text(" ".into()),
                Value::Text(" ".into()),
                crate::array::flat(Element::INT, &columns),
                Value::Null,
            ]);
        }
    }
    rows
}
