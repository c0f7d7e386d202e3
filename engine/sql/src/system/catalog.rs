//! `information_schema` and `pg_catalog`: enough of them for a shell to list and describe tables.

use super::{SystemTable, more};
use crate::exec::checked::primary_name;
use crate::exec::eval::EvalCx;
use crate::oid;
use crate::types::{Category, category};
use chronos_engine::Catalog;
use chronos_proto::schema::{DefaultValue, Extra, IndexState, Partitioned, Relation, RelationKind};
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};

const NAMESPACE_CATALOG: i64 = 11;
pub(super) const NAMESPACE_PUBLIC: i64 = 2200;
const NAMESPACE_INFORMATION: i64 = 13_000;
const NAMESPACE_CHRONOS: i64 = 13_001;
const OWNER: i64 = 10;
/// Numbers of user relations begin above PostgreSQL's own.
const FIRST_OID: i64 = 16_384;
/// `chronos.timers`, which goes by no shorter name.
pub(crate) const TIMERS_OID: i64 = FIRST_OID;

pub(super) static TABLES: &[SystemTable] = &[
    SystemTable {
        schema: "information_schema",
        name: "tables",
        columns: &[
            ("table_catalog", Type::Text),
            ("table_schema", Type::Text),
            ("table_name", Type::Text),
            ("table_type", Type::Text),
            ("is_insertable_into", Type::Text),
        ],
        rows: tables,
    },
    SystemTable {
        schema: "information_schema",
        name: "columns",
        columns: &[
            ("table_catalog", Type::Text),
            ("table_schema", Type::Text),
            ("table_name", Type::Text),
            ("column_name", Type::Text),
            ("ordinal_position", Type::Int),
            ("column_default", Type::Text),
            ("is_nullable", Type::Text),
            ("data_type", Type::Text),
            ("udt_name", Type::Text),
        ],
        rows: columns,
    },
    SystemTable {
        schema: "information_schema",
        name: "schemata",
        columns: &[("catalog_name", Type::Text), ("schema_name", Type::Text), ("schema_owner", Type::Text)],
        rows: |_, cx| {
            let row = |n: &str| vec![text(&cx.session.database), text(n), text("chronos")];
            ["public", "chronos", "pg_catalog", "information_schema"].map(row).to_vec()
        },
    },
    SystemTable {
        schema: "information_schema",
        name: "key_column_usage",
        columns: &[
            ("constraint_name", Type::Text),
            ("table_schema", Type::Text),
            ("table_name", Type::Text),
            ("column_name", Type::Text),
            ("ordinal_position", Type::Int),
        ],
        rows: key_columns,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_namespace",
        columns: &[("oid", Type::Int), ("nspname", Type::Text), ("nspowner", Type::Int)],
        rows: |_, _| {
            let row = |(oid, name): (i64, &str)| vec![Value::Int(oid), text(name), Value::Int(OWNER)];
            [
                (NAMESPACE_CATALOG, "pg_catalog"),
                (NAMESPACE_PUBLIC, "public"),
                (NAMESPACE_INFORMATION, "information_schema"),
                (NAMESPACE_CHRONOS, "chronos"),
            ]
            .map(row)
            .to_vec()
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_class",
        columns: &[
            ("oid", Type::Int),
            ("relname", Type::Text),
            ("relnamespace", Type::Int),
            ("reltype", Type::Int),
            ("relowner", Type::Int),
            ("relkind", Type::Text),
            ("relpersistence", Type::Text),
            ("relnatts", Type::Int),
            ("relhasindex", Type::Bool),
            ("reltuples", Type::Float),
            ("relispartition", Type::Bool),
            ("relam", Type::Int),
            ("reltablespace", Type::Int),
            ("reloftype", Type::Int),
            ("reltoastrelid", Type::Int),
            ("relpages", Type::Int),
            ("relchecks", Type::Int),
            ("relhasrules", Type::Bool),
            ("relhastriggers", Type::Bool),
            ("relhassubclass", Type::Bool),
            ("relrowsecurity", Type::Bool),
            ("relforcerowsecurity", Type::Bool),
            ("relreplident", Type::Text),
            ("relpartbound", Type::Text),
            ("relacl", Type::Array(Element::TEXT)),
            ("reloptions", Type::Array(Element::TEXT)),
        ],
        rows: classes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_attribute",
        columns: &[
            ("attrelid", Type::Int),
            ("attname", Type::Text),
            ("atttypid", Type::Int),
            ("attlen", Type::Int),
            ("attnum", Type::Int),
            ("atttypmod", Type::Int),
            ("attnotnull", Type::Bool),
            ("atthasdef", Type::Bool),
            ("attidentity", Type::Text),
            ("attgenerated", Type::Text),
            ("attisdropped", Type::Bool),
            ("attcollation", Type::Int),
            ("attndims", Type::Int),
            ("attacl", Type::Array(Element::TEXT)),
        ],
        rows: attributes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_type",
        columns: &[
            ("oid", Type::Int),
            ("typname", Type::Text),
            ("typnamespace", Type::Int),
            ("typlen", Type::Int),
            ("typtype", Type::Text),
            ("typcategory", Type::Text),
            ("typrelid", Type::Int),
            ("typelem", Type::Int),
            ("typbasetype", Type::Int),
            ("typarray", Type::Int),
            ("typcollation", Type::Int),
            ("typtypmod", Type::Int),
            ("typnotnull", Type::Bool),
            ("typdelim", Type::Text),
        ],
        rows: types,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_index",
        columns: &[
            ("indexrelid", Type::Int),
            ("indrelid", Type::Int),
            ("indnatts", Type::Int),
            ("indisunique", Type::Bool),
            ("indisprimary", Type::Bool),
            ("indisvalid", Type::Bool),
            ("indkey", Type::Text),
            ("indisclustered", Type::Bool),
            ("indisreplident", Type::Bool),
            ("indnkeyatts", Type::Int),
            ("indoption", Type::Text),
            ("indexprs", Type::Text),
            ("indpred", Type::Text),
        ],
        rows: indexes,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_indexes",
        columns: &[
            ("schemaname", Type::Text),
            ("tablename", Type::Text),
            ("indexname", Type::Text),
            ("indexdef", Type::Text),
        ],
        rows: index_definitions,
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_database",
        columns: &[
            ("oid", Type::Int),
            ("datname", Type::Text),
            ("datdba", Type::Int),
            ("encoding", Type::Int),
            ("datcollate", Type::Text),
            ("datctype", Type::Text),
            ("daticulocale", Type::Text),
            ("datlocprovider", Type::Text),
            ("datacl", Type::Array(Element::TEXT)),
            ("datistemplate", Type::Bool),
            ("datallowconn", Type::Bool),
            ("datconnlimit", Type::Int),
            ("dattablespace", Type::Int),
        ],
        rows: |_, cx| {
            vec![vec![
                Value::Int(1),
                text(&cx.session.database),
                Value::Int(OWNER),
                Value::Int(6),
                text("C"),
                text("C"),
                Value::Null,
                text("c"),
                Value::Null,
                Value::Bool(false),
                Value::Bool(true),
                Value::Int(-1),
                Value::Int(0),
            ]]
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_roles",
        columns: &[
            ("oid", Type::Int),
            ("rolname", Type::Text),
            ("rolsuper", Type::Bool),
            ("rolcanlogin", Type::Bool),
            ("rolinherit", Type::Bool),
            ("rolcreaterole", Type::Bool),
            ("rolcreatedb", Type::Bool),
            ("rolreplication", Type::Bool),
            ("rolbypassrls", Type::Bool),
            ("rolconnlimit", Type::Int),
            ("rolvaliduntil", Type::Timestamp),
        ],
        rows: |_, cx| {
            let mut row = vec![Value::Int(OWNER), text(&cx.session.user)];
            // Of the seven, the last but one and the one before it are not so here.
            row.extend([true, true, true, false, false, false, false].map(Value::Bool));
            row.extend([Value::Int(-1), Value::Null]);
            vec![row]
        },
    },
    SystemTable {
        schema: "pg_catalog",
        name: "pg_settings",
        columns: &[("name", Type::Text), ("setting", Type::Text)],
        rows: |_, cx| cx.session.settings.all().into_iter().map(|(n, v)| vec![text(&n), text(&v)]).collect(),
    },
];

fn text(s: &str) -> Value {
    Value::Text(s.to_owned())
}

fn int(i: usize) -> Value {
    Value::Int(i64::try_from(i).unwrap_or(i64::MAX))
}

pub(super) fn oid_of(relation: &Relation) -> i64 {
    FIRST_OID + i64::from(relation.id.0) * 4_096
}

/// The columns of a relation, tables and topics alike: name, type, not null, default.
pub(super) fn columns_of(relation: &Relation) -> Vec<(String, Type, bool, Option<String>)> {
    match &relation.kind {
        RelationKind::Table(table) => table
            .columns
            .iter()
            .filter(|c| !table.is_hidden(c.id))
            .map(|c| {
                let default = c.default.as_ref().map(|d| match d {
                    DefaultValue::Constant(v) => match v {
                        Value::Text(s) | Value::Json(s) => format!("'{}'", s.replace('\'', "''")),
                        other => crate::text::format(other.into()),
                    },
                    DefaultValue::Expression(sql) => sql.clone(),
                });
                (c.name.clone(), c.ty, c.not_null, default)
            })
            .collect(),
        RelationKind::Topic(topic) | RelationKind::Partitioned(Partitioned { topic, .. }) => {
            let columns = super::topic_columns(topic.payload);
            columns.into_iter().map(|(name, ty)| (name.to_owned(), ty, false, None)).collect()
        }
        RelationKind::View(view) => {
            view.columns.iter().map(|c| (c.name.clone(), c.ty, false, None)).collect()
        }
        RelationKind::Sequence(_) => ["last_value", "log_cnt"]
            .map(|name| (name.to_owned(), Type::Int, true, None))
            .into_iter()
            .chain([("is_called".to_owned(), Type::Bool, true, None)])
            .collect(),
        RelationKind::Schedule(_) => Vec::new(),
    }
}

fn tables(catalog: &Catalog, cx: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let row = |schema: &str, name: &str, kind: &str, insertable: bool| {
        let insertable = text(if insertable { "YES" } else { "NO" });
        vec![text(&cx.session.database), text(schema), text(name), text(kind), insertable]
    };
    let mut rows: Vec<Vec<Value>> = catalog
        .iter()
        .filter(|r| r.sequence().is_none() && r.schedule().is_none())
        .map(|r| match r.kind {
            RelationKind::Topic(_) | RelationKind::Partitioned(_) => row("public", &r.name, "TOPIC", true),
            RelationKind::View(_) => row("public", &r.name, "VIEW", false),
            _ => row("public", &r.name, "BASE TABLE", true),
        })
        .collect();
    rows.push(row("chronos", "timers", "SYSTEM VIEW", false));
    rows.extend(super::state_tables().map(|t| row("chronos", t.name, "SYSTEM VIEW", false)));
    rows.extend(TABLES.iter().map(|t| row(t.schema, t.name, "VIEW", false)));
    rows
}

fn columns(catalog: &Catalog, cx: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let row = |schema: &str,
               table: &str,
               i: usize,
               (name, ty, not_null, default): (String, Type, bool, Option<String>)| {
        vec![
            text(&cx.session.database),
            text(schema),
            text(table),
            Value::Text(name),
            int(i + 1),
            default.map_or(Value::Null, Value::Text),
            text(if not_null { "NO" } else { "YES" }),
            match ty {
                Type::Array(_) => text("ARRAY"),
                ty => text(&ty.base().to_string()),
            },
            Value::Text(oid::name(ty)),
        ]
    };
    let mut rows = Vec::new();
    for relation in catalog.iter().filter(|r| r.sequence().is_none()) {
        let columns = columns_of(relation).into_iter().enumerate();
        rows.extend(columns.map(|(i, c)| row("public", &relation.name, i, c)));
    }
    let timers = super::TIMER_COLUMNS.iter().enumerate();
    rows.extend(
        timers.map(|(i, (name, ty))| row("chronos", "timers", i, ((*name).to_owned(), *ty, false, None))),
    );
    for table in super::state_tables() {
        let columns = table.columns.iter().enumerate();
        rows.extend(
            columns.map(|(i, (n, ty))| row("chronos", table.name, i, ((*n).to_owned(), *ty, false, None))),
        );
    }
    for table in super::tables() {
        let columns = table.columns.iter().enumerate();
        rows.extend(
            columns.map(|(i, (n, ty))| row(table.schema, table.name, i, ((*n).to_owned(), *ty, false, None))),
        );
    }
    rows
}

fn key_columns(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        let Some(table) = relation.table() else { continue };
        for (i, id) in table.key_columns().iter().enumerate() {
            let Some(column) = table.column(*id) else { continue };
            rows.push(vec![
                Value::Text(primary_name(relation, table)),
                text("public"),
                text(&relation.name),
                text(&column.name),
                int(i + 1),
            ]);
        }
    }
    rows
}

fn classes(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let row =
        |oid: i64, name: &str, namespace: i64, kind: &str, columns: usize, indexed: bool, checks: usize| {
            let method = match kind {
                "r" => more::HEAP,
                "i" => more::BTREE,
                _ => 0,
            };
            vec![
                Value::Int(oid),
                text(name),
                Value::Int(namespace),
                Value::Int(0),
                Value::Int(OWNER),
                text(kind),
                text("p"),
                int(columns),
                Value::Bool(indexed),
                Value::Float(-1.0),
                Value::Bool(false),
                Value::Int(method),
                Value::Int(0),
                Value::Int(0),
                Value::Int(0),
                Value::Int(0),
                int(checks),
                Value::Bool(false),
                Value::Bool(false),
                Value::Bool(false),
                Value::Bool(false),
                Value::Bool(false),
                text("d"),
                Value::Null,
                Value::Null,
                Value::Null,
            ]
        };
    let mut rows = Vec::new();
    // A schedule is nothing that can be read.
    for relation in catalog.iter().filter(|r| r.schedule().is_none()) {
        let columns = columns_of(relation).len();
        let indexed = relation.table().is_some_and(|t| !t.primary_key.is_empty() || !t.indexes.is_empty());
        let kind = match relation.kind {
            RelationKind::View(_) => "v",
            RelationKind::Sequence(_) => "S",
            _ => "r",
        };
        let checks = constraints_of(relation).iter().filter(|c| c.kind == "c").count();
        rows.push(row(oid_of(relation), &relation.name, NAMESPACE_PUBLIC, kind, columns, indexed, checks));
        for (i, (name, columns, _)) in indexes_of(relation).into_iter().enumerate() {
            let oid = oid_of(relation) + 1 + i as i64;
            rows.push(row(oid, &name, NAMESPACE_PUBLIC, "i", columns.len(), false, 0));
        }
    }
    rows.push(row(TIMERS_OID, "timers", NAMESPACE_CHRONOS, "v", super::TIMER_COLUMNS.len(), false, 0));
    for (i, table) in super::tables().enumerate() {
        let namespace = if table.schema == "pg_catalog" { NAMESPACE_CATALOG } else { NAMESPACE_INFORMATION };
        rows.push(row(12_000 + i as i64, table.name, namespace, "v", table.columns.len(), false, 0));
    }
    rows
}

/// A constraint of a table.
pub(crate) struct Constraint {
    pub oid: i64,
    pub name: String,
    /// `p`, `u` or `c`.
    pub kind: &'static str,
    /// The number of its index.
    pub index: Option<i64>,
    /// The places of its columns.
    pub columns: Vec<usize>,
    /// As ALTER TABLE … ADD takes it.
    pub definition: String,
}

pub(crate) fn constraints_of(relation: &Relation) -> Vec<Constraint> {
    let Some(table) = relation.table() else { return Vec::new() };
    let named = |columns: &[usize]| {
        columns.iter().map(|c| table.columns[*c].name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut out = Vec::new();
    for (i, (name, columns, primary)) in indexes_of(relation).into_iter().enumerate() {
        let own = table.indexes.iter().find(|index| index.name == name).map(|index| index.id);
        let is_constraint =
            |e: &Extra| matches!(e, Extra::Unique { index, constraint: true } if Some(*index) == own);
        let (kind, word) = match primary {
            true => ("p", "PRIMARY KEY"),
            false if table.extras.iter().any(is_constraint) => ("u", "UNIQUE"),
            false => continue,
        };
        let definition = format!("{word} ({})", named(&columns));
        let index = Some(oid_of(relation) + 1 + i as i64);
        out.push(Constraint { oid: 0, name, kind, index, columns, definition });
    }
    for extra in &table.extras {
        if let Extra::Check { name, condition } = extra {
            let (name, definition) = (name.clone(), format!("CHECK ({condition})"));
            out.push(Constraint { oid: 0, name, kind: "c", index: None, columns: Vec::new(), definition });
        }
    }
    for (i, constraint) in out.iter_mut().enumerate() {
        constraint.oid = oid_of(relation) + 2_048 + i as i64;
    }
    out
}

/// What `pg_get_constraintdef` says.
pub(crate) fn constraint_definition(catalog: &Catalog, oid: i64) -> Option<String> {
    let mut all = catalog.iter().flat_map(|r| constraints_of(r));
    all.find(|c| c.oid == oid).map(|c| c.definition)
}

/// What `pg_get_indexdef` says: of the whole index, or of one of its columns (from 1).
pub(crate) fn index_definition(catalog: &Catalog, oid: i64, column: i64) -> Option<String> {
    let relation = catalog.iter().find(|r| (1..2_048).contains(&(oid - oid_of(r))))?;
    let at = usize::try_from(oid - oid_of(relation) - 1).ok()?;
    let (name, columns, primary) = indexes_of(relation).into_iter().nth(at)?;
    match usize::try_from(column).ok().and_then(|c| c.checked_sub(1)) {
        None => Some(definition(relation, &name, &columns, primary)),
        Some(place) => columns_of(relation).get(*columns.get(place)?).map(|c| c.0.clone()),
    }
}

fn is_unique(relation: &Relation, name: &str, primary: bool) -> bool {
    let unique =
        |t: &chronos_proto::schema::Table| t.indexes.iter().any(|i| i.name == name && t.is_unique(i.id));
    primary || relation.table().is_some_and(unique)
}

fn definition(relation: &Relation, name: &str, columns: &[usize], primary: bool) -> String {
    let names = columns_of(relation);
    let unique = if is_unique(relation, name, primary) { "UNIQUE " } else { "" };
    let list = columns.iter().map(|c| names[*c].0.as_str()).collect::<Vec<_>>().join(", ");
    format!("CREATE {unique}INDEX {name} ON public.{} USING btree ({list})", relation.name)
}

/// Name, places of the columns, whether it is the primary key.
fn indexes_of(relation: &Relation) -> Vec<(String, Vec<usize>, bool)> {
    let Some(table) = relation.table() else { return Vec::new() };
    let places = |ids: &[chronos_proto::ColumnId]| -> Vec<usize> {
        ids.iter().filter_map(|id| table.columns.iter().position(|c| c.id == *id)).collect()
    };
    let mut out = Vec::new();
    if !table.primary_key.is_empty() {
        out.push((primary_name(relation, table), places(&table.primary_key), true));
    }
    let primary =
        |id| table.extras.iter().any(|e| matches!(e, Extra::PrimaryIndex { index } if *index == id));
    out.extend(table.indexes.iter().map(|i| (i.name.clone(), places(&i.columns), primary(i.id))));
    out
}

fn attributes(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        for (i, (name, ty, not_null, default)) in columns_of(relation).into_iter().enumerate() {
            rows.push(vec![
                Value::Int(oid_of(relation)),
                Value::Text(name),
                Value::Int(i64::from(oid::of(ty))),
                Value::Int(i64::from(oid::length(ty))),
                int(i + 1),
                Value::Int(i64::from(oid::modifier(ty))),
                Value::Bool(not_null),
                Value::Bool(default.is_some()),
                text(identity(relation, i)),
                text(""),
                Value::Bool(false),
                Value::Int(0),
                Value::Int(i64::from(matches!(ty, Type::Array(_)))),
                Value::Null,
            ]);
        }
    }
    rows
}

/// GENERATED ALWAYS or BY DEFAULT AS IDENTITY, in a letter.
fn identity(relation: &Relation, place: usize) -> &'static str {
    let Some(table) = relation.table() else { return "" };
    let id = table.columns.get(place).map(|c| c.id);
    let found = table.extras.iter().find_map(|e| match e {
        Extra::Identity { column, always, .. } if Some(*column) == id => *always,
        _ => None,
    });
    match found {
        Some(true) => "a",
        Some(false) => "d",
        None => "",
    }
}

fn types(_: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let row = |ty: Type| {
        let category = match category(ty) {
            Category::Boolean => "B",
            Category::Number => "N",
            Category::Text => "S",
            Category::Time => "D",
            Category::Interval => "T",
            Category::Other => "U",
            Category::Array => "A",
        };
        vec![
            Value::Int(i64::from(oid::of(ty))),
            Value::Text(oid::name(ty)),
            Value::Int(NAMESPACE_CATALOG),
            Value::Int(i64::from(oid::length(ty))),
            text("b"),
            text(category),
            Value::Int(0),
            Value::Int(match ty {
                Type::Array(element) => i64::from(oid::of(element.ty())),
                _ => 0,
            }),
            Value::Int(0),
            Value::Int(Element::of(ty).map_or(0, |element| i64::from(oid::of(Type::Array(element))))),
            Value::Int(0),
            Value::Int(-1),
            Value::Bool(false),
            text(","),
        ]
    };
    let arrays = || oid::all().filter_map(Element::of).map(Type::Array);
    oid::all().chain(arrays()).map(row).collect()
}

fn indexes(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        let states = relation.table().map(|t| t.indexes.as_slice()).unwrap_or_default();
        for (i, (name, columns, primary)) in indexes_of(relation).into_iter().enumerate() {
            let valid = primary || states.iter().any(|s| s.name == name && s.state == IndexState::Public);
            let keys = columns.iter().map(|c| (c + 1).to_string()).collect::<Vec<_>>().join(" ");
            rows.push(vec![
                Value::Int(oid_of(relation) + 1 + i as i64),
                Value::Int(oid_of(relation)),
                int(columns.len()),
                Value::Bool(is_unique(relation, &name, primary)),
                Value::Bool(primary),
                Value::Bool(valid),
                Value::Text(keys),
                Value::Bool(false),
                Value::Bool(false),
                int(columns.len()),
                Value::Text(vec!["0"; columns.len()].join(" ")),
                Value::Null,
                Value::Null,
            ]);
        }
    }
    rows
}

fn index_definitions(catalog: &Catalog, _: &EvalCx<'_>) -> Vec<Vec<Value>> {
    let mut rows = Vec::new();
    for relation in catalog.iter() {
        for (name, columns, primary) in indexes_of(relation) {
            let definition = definition(relation, &name, &columns, primary);
            rows.push(vec![text("public"), text(&relation.name), Value::Text(name), Value::Text(definition)]);
        }
    }
    rows
}
