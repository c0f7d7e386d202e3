//! Changes of the catalogue: seen at once by the transaction that makes them, by others when it commits.

use super::write::Writes;
use crate::action::{Dropped, SchemaChange};
use crate::error::{SqlError, SqlState};
use chronos_engine::Catalog;
use chronos_engine::keys;
use chronos_proto::Op;
use chronos_proto::id::{ColumnId, IndexId};
use chronos_proto::schema::{IndexState, Relation, RelationKind, SecondaryIndex};
use std::sync::Arc;

/// Runs a change. Gives the command's tag; what was skipped is told in `notices`.
pub(crate) fn run(
    change: &SchemaChange,
    writes: &mut Writes,
    notices: &mut Vec<String>,
) -> Result<&'static str, SqlError> {
    writes.reads.add(keys::catalog_all());
    match change {
        SchemaChange::Create { relation, if_not_exists, tag } => {
            if taken(&writes.view.catalog, &relation.name) {
                let message = format!("relation \"{}\" already exists", relation.name);
                if !if_not_exists {
                    return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
                }
                notices.push(format!("{message}, skipping"));
                return Ok(tag);
            }
            let id = writes.view.catalog.next_id();
            put(writes, Relation { id, group: writes.view.group, ..relation.clone() })?;
            Ok(tag)
        }
        SchemaChange::CreateIndex { table, name, columns, if_not_exists } => {
            create_index(writes, table, name.as_deref(), columns, *if_not_exists, notices)?;
            Ok("CREATE INDEX")
        }
        SchemaChange::Drop { names, if_exists, what } => {
            for name in names {
                if !drop(writes, name, *what)? {
                    let (kind, code) = match what {
                        Dropped::Table => ("table", SqlState::UNDEFINED_TABLE),
                        Dropped::Topic => ("topic", SqlState::UNDEFINED_TABLE),
                        Dropped::Index => ("index", SqlState::UNDEFINED_OBJECT),
                    };
                    let message = format!("{kind} \"{name}\" does not exist");
                    if !if_exists {
                        return Err(SqlError::new(code, message));
                    }
                    notices.push(format!("{message}, skipping"));
                }
            }
            Ok(match what {
                Dropped::Table => "DROP TABLE",
                Dropped::Topic => "DROP TOPIC",
                Dropped::Index => "DROP INDEX",
            })
        }
    }
}

/// Relations and indexes share their names.
fn taken(catalog: &Catalog, name: &str) -> bool {
    catalog.by_name(name).is_some() || index_owner(catalog, name).is_some()
}

fn index_owner<'a>(catalog: &'a Catalog, index: &str) -> Option<&'a Arc<Relation>> {
    catalog.iter().find(|r| r.table().is_some_and(|t| t.indexes.iter().any(|i| i.name == index)))
}

fn put(writes: &mut Writes, relation: Relation) -> Result<(), SqlError> {
    Arc::make_mut(&mut writes.view.catalog).put(relation.clone());
    writes.push(Op::PutRelation(relation), 1024)?;
    Ok(())
}

fn create_index(
    writes: &mut Writes,
    table: &str,
    name: Option<&str>,
    columns: &[String],
    if_not_exists: bool,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    let found = writes.view.catalog.by_name(table).cloned();
    let undefined =
        || SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{table}\" does not exist"));
    let mut relation = (*found.ok_or_else(undefined)?).clone();
    let name = match name {
        Some(name) => name.to_owned(),
        None => free_name(&writes.view.catalog, &format!("{table}_{}_idx", columns.join("_"))),
    };
    if taken(&writes.view.catalog, &name) {
        let message = format!("relation \"{name}\" already exists");
        if !if_not_exists {
            return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
        }
        notices.push(format!("{message}, skipping"));
        return Ok(());
    }
    relation.version += 1;
    let RelationKind::Table(definition) = &mut relation.kind else { return Err(undefined()) };
    let ids: Option<Vec<ColumnId>> =
        columns.iter().map(|n| definition.columns.iter().find(|c| c.name == *n).map(|c| c.id)).collect();
    let columns = ids.ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_COLUMN, format!("a column of index \"{name}\" does not exist"))
    })?;
    let id = IndexId(definition.next_index);
    definition.next_index += 1;
    definition.indexes.push(SecondaryIndex { id, name, columns, state: IndexState::WriteOnly });
    put(writes, relation)
}

fn free_name(catalog: &Catalog, base: &str) -> String {
    let mut base = base.to_owned();
    let most = chronos_proto::limits::NAME_MAX_BYTES - 4;
    if base.len() > most {
        let cut = (0..=most).rev().find(|i| base.is_char_boundary(*i)).unwrap_or(0);
        base.truncate(cut);
    }
    (0u32..)
        .map(|n| if n == 0 { base.clone() } else { format!("{base}{n}") })
        .find(|n| !taken(catalog, n))
        .unwrap_or(base)
}

/// False if there is none.
fn drop(writes: &mut Writes, name: &str, what: Dropped) -> Result<bool, SqlError> {
    if what == Dropped::Index {
        let Some(owner) = index_owner(&writes.view.catalog, name).cloned() else { return Ok(false) };
        let mut relation = (*owner).clone();
        relation.version += 1;
        if let RelationKind::Table(table) = &mut relation.kind {
            table.indexes.retain(|i| i.name != name);
        }
        put(writes, relation)?;
        return Ok(true);
    }
    let Some(relation) = writes.view.catalog.by_name(name).cloned() else { return Ok(false) };
    let wrong = match (what, &relation.kind) {
        (Dropped::Table, RelationKind::Topic(_)) => Some(("table", "DROP TOPIC")),
        (Dropped::Topic, RelationKind::Table(_)) => Some(("topic", "DROP TABLE")),
        _ => None,
    };
    if let Some((kind, use_instead)) = wrong {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a {kind}"))
            .hint(format!("Use {use_instead} to remove it.")));
    }
    Arc::make_mut(&mut writes.view.catalog).remove(relation.id);
    writes.push(Op::DropRelation(relation.id), 64)?;
    Ok(true)
}
