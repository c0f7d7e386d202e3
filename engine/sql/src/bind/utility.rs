//! Transactions and settings.

use super::aggregate::Aggregates;
use super::expr::string;
use super::names::{data_type, folded, qualified};
use super::{Binder, Scope};
use crate::action::Action;
use crate::cursor;
use crate::error::{SqlError, SqlState};
use crate::parse::fetch::Fetch;
use crate::prepared::{ColumnDesc, Kind};
use crate::settings::Settings;
use crate::types::CastContext;
use chronos_proto::Type;
use sqlparser::ast::{self, Set, Statement, TransactionAccessMode, TransactionMode};

type Utility = (Action, Kind, Vec<ColumnDesc>);

impl Binder<'_> {
    pub(super) fn bind_utility(&mut self, statement: &Statement) -> Result<Utility, SqlError> {
        let transaction = |action| Ok((action, Kind::Transaction, Vec::new()));
        let setting = |action| Ok((action, Kind::Setting, Vec::new()));
        match statement {
            Statement::StartTransaction { modes, statements, exception, modifier, .. } => {
                if !statements.is_empty() || exception.is_some() || modifier.is_some() {
                    return Err(SqlError::unsupported("this form of BEGIN"));
                }
                transaction(Action::Begin { read_only: read_only(modes) })
            }
            Statement::Commit { chain: false, .. } => transaction(Action::Commit),
            Statement::Rollback { chain: false, savepoint: None } => transaction(Action::Rollback),
            Statement::Commit { .. } | Statement::Rollback { chain: true, .. } => {
                Err(SqlError::unsupported("AND CHAIN"))
            }
            Statement::Rollback { savepoint: Some(name), .. } => {
                transaction(Action::RollbackTo(folded(name)))
            }
            Statement::Savepoint { name } => transaction(Action::Savepoint(folded(name))),
            Statement::ReleaseSavepoint { name } => transaction(Action::Release(folded(name))),
            Statement::Set(set) => setting(self.set(set)?),
            Statement::Reset(reset) => setting(match &reset.reset {
                ast::Reset::ALL => Action::ResetAll,
                ast::Reset::SessionAuthorization => Action::Nothing("RESET"),
                ast::Reset::ConfigurationParameter(name) => {
                    Action::Set { name: setting_name(name)?, value: None }
                }
            }),
            Statement::ShowVariable { variable } => show(variable),
            Statement::Discard { object_type: ast::DiscardObject::ALL } => setting(Action::Discard),
            Statement::Discard { .. } => setting(Action::Nothing("DISCARD")),
            Statement::Deallocate { name, .. } => {
                let all = name.quote_style.is_none() && name.value.eq_ignore_ascii_case("all");
                setting(Action::Deallocate((!all).then(|| folded(name))))
            }
            Statement::Declare { stmts } => self.declare(stmts),
            Statement::Close { cursor } => setting(Action::CloseCursor(match cursor {
                ast::CloseCursor::All => None,
                ast::CloseCursor::Specific { name } => Some(folded(name)),
            })),
            Statement::Analyze(_) => setting(Action::Nothing("ANALYZE")),
            other => Err(unsupported_statement(other)),
        }
    }

    pub(super) fn bind_fetch(&mut self, fetch: &Fetch) -> Result<Utility, SqlError> {
        let name = folded(&fetch.name);
        let cursor = self.session.cursors.get(&name).ok_or_else(|| cursor::undefined(&name))?;
        let columns = if fetch.shown { cursor.columns.to_vec() } else { Vec::new() };
        let action = Action::Fetch { name, direction: fetch.direction, shown: fetch.shown };
        Ok((action, Kind::Setting, columns))
    }

    fn declare(&mut self, declared: &[ast::Declare]) -> Result<Utility, SqlError> {
        let [
            ast::Declare {
                names, declare_type: Some(ast::DeclareType::Cursor), for_query, hold, binary, ..
            },
        ] = declared
        else {
            return Err(SqlError::unsupported("this form of DECLARE"));
        };
        let ([name], Some(query)) = (names.as_slice(), for_query) else {
            return Err(SqlError::unsupported("this form of DECLARE"));
        };
        if *binary == Some(true) {
            return Err(SqlError::unsupported("a BINARY cursor"));
        }
        let parsed = crate::parse::parse(&query.to_string())?;
        let [statement] = parsed.as_slice() else {
            return Err(SqlError::unsupported("this form of DECLARE"));
        };
        let prepared = crate::session::prepare(statement, &[], self.catalog, false, self.session)?;
        if prepared.kind != Kind::Query {
            return Err(SqlError::unsupported("a cursor over a statement that writes"));
        }
        let (name, hold) = (folded(name), *hold == Some(true));
        let prepared = std::sync::Arc::new(prepared);
        Ok((Action::Declare { name, prepared, hold }, Kind::Query, Vec::new()))
    }

    /// PREPARE: the statement is bound at once.
    pub(super) fn bind_prepare(
        &mut self,
        name: &ast::Ident,
        types: &[ast::DataType],
        statement: &Statement,
    ) -> Result<Utility, SqlError> {
        let mut declared = Vec::with_capacity(types.len());
        for ty in types {
            declared.push(Some(data_type(ty)?));
        }
        let parsed = crate::parse::parse(&statement.to_string())?;
        let [statement] = parsed.as_slice() else {
            return Err(SqlError::unsupported("PREPARE of several statements"));
        };
        let prepared = crate::session::prepare(statement, &declared, self.catalog, false, self.session)?;
        if !matches!(prepared.kind, Kind::Query | Kind::Write) {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "PREPARE takes a query or a statement that writes",
            ));
        }
        let prepared = std::sync::Arc::new(prepared);
        Ok((Action::Prepare { name: folded(name), prepared }, Kind::Setting, Vec::new()))
    }

    pub(super) fn bind_execute(
        &mut self,
        name: &ast::ObjectName,
        args: &[ast::Expr],
    ) -> Result<Utility, SqlError> {
        let (_, name) = qualified(name)?;
        let prepared = self.session.prepared.get(&name).cloned().ok_or_else(|| {
            SqlError::new(SqlState(*b"26000"), format!("prepared statement \"{name}\" does not exist"))
        })?;
        if args.len() != prepared.params.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters for prepared statement \"{name}\""),
            )
            .detail(format!(
                "Expected {} parameters but got {}.",
                prepared.params.len(),
                args.len()
            )));
        }
        let mut exprs = Vec::with_capacity(args.len());
        for (e, ty) in args.iter().zip(&prepared.params) {
            self.aggregates = Aggregates::Forbidden("EXECUTE parameters");
            let typed = self.expr(e, &Scope::default())?;
            exprs.push(self.coerce(typed, *ty, CastContext::Assignment)?);
        }
        let (kind, columns) = (prepared.kind, prepared.columns.to_vec());
        Ok((Action::Execute { prepared, args: exprs }, kind, columns))
    }

    fn set(&mut self, set: &Set) -> Result<Action, SqlError> {
        match set {
            Set::SingleAssignment { variable, values, .. } => {
                let name = setting_name(variable)?;
                let words: Vec<String> = values.iter().map(setting_value).collect::<Result<_, _>>()?;
                let value = words.join(", ");
                let default = values.len() == 1 && value.eq_ignore_ascii_case("default");
                Ok(Action::Set { name, value: (!default).then_some(value) })
            }
            Set::SetTimeZone { value, .. } => {
                let value = setting_value(value)?;
                let default = value.eq_ignore_ascii_case("default") || value.eq_ignore_ascii_case("local");
                Ok(Action::Set { name: "TimeZone".into(), value: (!default).then_some(value) })
            }
            Set::SetNames { charset_name, .. } => {
                Ok(Action::Set { name: "client_encoding".into(), value: Some(charset_name.value.clone()) })
            }
            Set::SetNamesDefault {} => Ok(Action::Set { name: "client_encoding".into(), value: None }),
            Set::SetTransaction { modes, snapshot: None, session } => {
                let read_only = read_only(modes);
                if *session {
                    let value = read_only.map(|r| if r { "on" } else { "off" }.to_owned());
                    return Ok(match value {
                        Some(_) => Action::Set { name: "default_transaction_read_only".into(), value },
                        None => Action::Nothing("SET"),
                    });
                }
                Ok(Action::SetTransaction { read_only })
            }
            _ => Err(SqlError::unsupported("this form of SET")),
        }
    }
}

/// Every isolation level is given as the strictest, which promises all that the others do.
fn read_only(modes: &[TransactionMode]) -> Option<bool> {
    modes.iter().rev().find_map(|mode| match mode {
        TransactionMode::AccessMode(TransactionAccessMode::ReadOnly) => Some(true),
        TransactionMode::AccessMode(TransactionAccessMode::ReadWrite) => Some(false),
        TransactionMode::IsolationLevel(_) => None,
    })
}

fn setting_name(name: &ast::ObjectName) -> Result<String, SqlError> {
    let (namespace, name) = qualified(name)?;
    Ok(match namespace {
        Some(namespace) => format!("{namespace}.{name}"),
        None => name,
    })
}

fn setting_value(e: &ast::Expr) -> Result<String, SqlError> {
    match e {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, _) => Ok(digits.clone()),
            ast::Value::Boolean(b) => Ok(if *b { "on" } else { "off" }.into()),
            other => string(other).ok_or_else(|| SqlError::unsupported("this value of SET")),
        },
        ast::Expr::Identifier(ident) => Ok(ident.value.clone()),
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            Ok(format!("-{}", setting_value(expr)?))
        }
        ast::Expr::Interval(interval) => setting_value(&interval.value),
        _ => Err(SqlError::new(SqlState::SYNTAX_ERROR, "SET takes a constant")),
    }
}

fn show(variable: &[ast::Ident]) -> Result<Utility, SqlError> {
    let words: Vec<String> = variable.iter().map(|i| i.value.to_lowercase()).collect();
    let name = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["all"] => {
            let column = |name: &str| ColumnDesc { name: name.into(), ty: Type::Text, origin: None };
            return Ok((Action::ShowAll, Kind::Query, vec![column("name"), column("setting")]));
        }
        ["time", "zone"] => "timezone".to_owned(),
        ["transaction", "isolation", "level"] => "transaction_isolation".to_owned(),
        ["session", "authorization"] => "session_authorization".to_owned(),
        words => words.join("."),
    };
    let shown = match name.as_str() {
        "datestyle" => "DateStyle".to_owned(),
        "timezone" => "TimeZone".to_owned(),
        "intervalstyle" => "IntervalStyle".to_owned(),
        other => Settings::name_of(other),
    };
    let column = ColumnDesc { name: shown, ty: Type::Text, origin: None };
    Ok((Action::Show(name), Kind::Query, vec![column]))
}

fn unsupported_statement(statement: &Statement) -> SqlError {
    let name = match statement {
        Statement::Copy { .. } => "COPY",
        Statement::Execute { .. } => "EXECUTE",
        Statement::Grant(_) | Statement::Revoke(_) => "GRANT and REVOKE",
        Statement::CreateRole(_) => "CREATE ROLE",
        Statement::CreateSchema { .. } => "CREATE SCHEMA",
        Statement::CreateDatabase { .. } => "CREATE DATABASE",
        Statement::CreateFunction(_) => "CREATE FUNCTION",
        Statement::CreateExtension(_) => "CREATE EXTENSION",
        Statement::Merge { .. } => "MERGE",
        _ => "this statement",
    };
    SqlError::unsupported(name)
}
