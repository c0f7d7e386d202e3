//! WITH: queries under names, recursive ones too.
//!
//! A query that is named once stands where it is named, so that conditions go down into it; one that is named several
//! times, or MATERIALIZED, is run once and its rows are kept for all.

use super::Binder;
use super::from::NamedColumn;
use super::names::folded;
use crate::error::{SqlError, SqlState};
use crate::plan::{self, Plan};
use crate::rel::{Query, Recursive, Rel, Source, SourceKind};
use crate::types::{self, CastContext};
use chronos_proto::Type;
use sqlparser::ast::{self, CteAsMaterialized, SetExpr, SetOperator, SetQuantifier};
use std::sync::Arc;

/// A query that WITH has named.
pub(super) struct Cte {
    name: String,
    columns: Vec<NamedColumn>,
    /// How many queries around it could be seen from it.
    frames: usize,
    body: CteBody,
}

enum CteBody {
    /// To be put where it is named first.
    Once(Option<Rel>, Arc<ast::Cte>, bool),
    Shared(usize, Arc<Plan>),
    Working(usize),
}

/// What a name of WITH stands for in FROM.
pub(super) struct CteSource {
    pub kind: SourceKind,
    pub columns: Vec<NamedColumn>,
}

impl Binder<'_> {
    /// Takes the names of WITH. They are given up by the query they belong to.
    pub(super) fn with(&mut self, with: &ast::With, query: &ast::Query) -> Result<(), SqlError> {
        for (i, cte) in with.cte_tables.iter().enumerate() {
            let name = folded(&cte.alias.name);
            if with.cte_tables[..i].iter().any(|other| folded(&other.alias.name) == name) {
                return Err(SqlError::new(
                    SqlState::DUPLICATE_ALIAS,
                    format!("WITH query name \"{name}\" specified more than once"),
                ));
            }
            let captured = std::mem::replace(&mut self.captured, false);
            let bound = self.cte_query(cte, &name, with.recursive);
            let captures = std::mem::replace(&mut self.captured, captured) && !self.frames.is_empty();
            self.captured |= captures;
            let (query_rel, columns) = bound?;
            // Named in the queries behind it and in the one that it belongs to.
            let later =
                with.cte_tables[i + 1..].iter().map(|other| mentions(&other.query.to_string(), &name));
            let mut body = query.clone();
            body.with = None;
            let named = later.sum::<usize>() + mentions(&body.to_string(), &name);
            let materialized = matches!(cte.materialized, Some(CteAsMaterialized::Materialized));
            let shared = (named > 1 || materialized) && !captures;
            let body = if shared {
                CteBody::Shared(self.next_id(), Arc::new(plan::plan(query_rel)?))
            } else {
                CteBody::Once(Some(query_rel), Arc::new(cte.clone()), with.recursive)
            };
            self.ctes.push(Cte { name, columns, frames: self.frames.len(), body });
        }
        Ok(())
    }

    fn cte_query(
        &mut self,
        cte: &ast::Cte,
        name: &str,
        recursive: bool,
    ) -> Result<(Rel, Vec<NamedColumn>), SqlError> {
        let recursive = recursive && mentions(&cte.query.to_string(), name) > 0;
        let query = match &*cte.query.body {
            SetExpr::SetOperation { op: SetOperator::Union, left, right, set_quantifier } if recursive => {
                return self.recursive(cte, name, left, right, set_quantifier);
            }
            _ if recursive => {
                return Err(SqlError::new(
                    SqlState(*b"42P19"),
                    format!(
                        "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] \
                         recursive-term"
                    ),
                ));
            }
            _ => self.bind_query(&cte.query)?,
        };
        let columns = self.cte_columns(&query, name, &cte.alias)?;
        Ok((query.rel, columns))
    }

    fn cte_columns(
        &self,
        query: &Query,
        name: &str,
        alias: &ast::TableAlias,
    ) -> Result<Vec<NamedColumn>, SqlError> {
        let mut columns: Vec<NamedColumn> =
            query.columns.iter().map(|c| (c.name.clone(), c.ty, c.origin)).collect();
        if alias.columns.len() > columns.len() {
            return Err(SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                format!(
                    "WITH query \"{name}\" has {} columns available but {} columns specified",
                    columns.len(),
                    alias.columns.len()
                ),
            ));
        }
        self.renamed(&mut columns, name, &alias.columns)?;
        Ok(columns)
    }

    fn recursive(
        &mut self,
        cte: &ast::Cte,
        name: &str,
        left: &SetExpr,
        right: &SetExpr,
        quantifier: &SetQuantifier,
    ) -> Result<(Rel, Vec<NamedColumn>), SqlError> {
        let query = &cte.query;
        let plain = query.order_by.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        if !plain || query.with.is_some() {
            return Err(SqlError::unsupported("WITH, ORDER BY and LIMIT of a recursive query as a whole"));
        }
        if mentions(&left.to_string(), name) > 0 {
            return Err(SqlError::new(
                SqlState(*b"42P19"),
                format!(
                    "recursive reference to query \"{name}\" must not appear within its non-recursive term"
                ),
            ));
        }
        let part = |body: &SetExpr| ast::Query { body: Box::new(body.clone()), ..(**query).clone() };
        let base = self.bind_query(&part(left))?;
        let columns = self.cte_columns(&base, name, &cte.alias)?;
        let id = self.next_id();
        self.ctes.push(Cte {
            name: name.to_owned(),
            columns: columns.clone(),
            frames: self.frames.len(),
            body: CteBody::Working(id),
        });
        let step = self.bind_query(&part(right));
        self.ctes.pop();
        let step = step?;
        if step.columns.len() != columns.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "each UNION query must have the same number of columns",
            ));
        }
        let wanted: Vec<Type> = columns.iter().map(|c| c.1).collect();
        for (i, (given, column)) in step.columns.iter().zip(&columns).enumerate() {
            if !step.open[i] && !types::castable(given.ty, column.1, CastContext::Implicit) {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "recursive query \"{name}\" column {} has type {} in non-recursive term but type {} \
                         overall",
                        i + 1,
                        column.1,
                        given.ty
                    ),
                )
                .hint("Cast the output of the non-recursive term to the correct type."));
            }
        }
        let step = self.cast_columns(step, &wanted)?;
        let distinct = match quantifier {
            SetQuantifier::All => false,
            SetQuantifier::Distinct | SetQuantifier::None => true,
            _ => return Err(SqlError::unsupported("BY NAME")),
        };
        let kind = SourceKind::Recursive(Box::new(Recursive { id, base: base.rel, step, distinct }));
        Ok((Rel::Source(Source { kind, base: 0, types: wanted }), columns))
    }

    /// A name of WITH in FROM, if it is one.
    pub(super) fn cte(&mut self, name: &str) -> Result<Option<CteSource>, SqlError> {
        let frames = self.frames.len();
        let Some(at) = self.ctes.iter().rposition(|c| c.name == name) else { return Ok(None) };
        let cte = &mut self.ctes[at];
        let columns = cte.columns.clone();
        let kind = match &mut cte.body {
            CteBody::Shared(id, plan) => SourceKind::Shared(*id, plan.clone()),
            CteBody::Working(id) => SourceKind::Working(*id),
            CteBody::Once(rel, ast, recursive) => {
                // What it takes from the queries around it has its place only where these are the nearest.
                let rel = if cte.frames == frames { rel.take() } else { None };
                let (ast, recursive, visible) = (ast.clone(), *recursive, cte.frames);
                let rel = match rel {
                    Some(rel) => rel,
                    None => {
                        let hidden = self.ctes.split_off(at);
                        let seen = self.seen.replace(visible);
                        let bound = self.cte_query(&ast, name, recursive);
                        self.seen = seen;
                        self.ctes.extend(hidden);
                        bound?.0
                    }
                };
                SourceKind::Query(Box::new(rel))
            }
        };
        Ok(Some(CteSource { kind, columns }))
    }

    /// A number for something that is kept while the statement runs.
    pub(super) fn next_id(&mut self) -> usize {
        self.ids += 1;
        self.ids
    }
}

/// How often a query's text names a table so: behind FROM, JOIN or a comma, and not before a dot. Rather too often
/// than too seldom.
fn mentions(text: &str, name: &str) -> usize {
    let mut count = 0;
    let mut before = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
        rest = &rest[start..];
        let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '"';
        let end = rest.find(|c: char| !is_word(c)).filter(|end| *end > 0);
        let end = end.unwrap_or(match rest.starts_with(is_word) {
            true => rest.len(),
            false => rest.chars().next().map_or(1, char::len_utf8),
        });
        let (word, after) = rest.split_at(end);
        let plain = word.trim_matches('"').to_lowercase();
        let leads = matches!(before.as_str(), "from" | "join" | "," | "(" | "lateral" | "table" | "using");
        if leads && plain == name.to_lowercase() && !after.starts_with('.') {
            count += 1;
        }
        before = plain;
        rest = after;
    }
    count
}
