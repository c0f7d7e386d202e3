//! COPY: the query whose rows go out, or the INSERT that rows which come in are for.

use super::names::folded;
use super::{Binder, Typed};
use crate::action::{Action, Insert, OnConflict, Rows};
use crate::copy::{Copy, Format, Header, Options};
use crate::error::{SqlError, SqlState};
use crate::expr::Expr;
use crate::parse::copy::{self, Given, Source};
use crate::parse::{Ast, parse};
use crate::prepared::{ColumnDesc, Kind};
use crate::rel::SourceKind;
use crate::settings::boolean;
use crate::{plan, types};
use sqlparser::ast::{self, Ident};

impl Binder<'_> {
    pub(super) fn bind_copy(&mut self, copy: &copy::Copy) -> Result<(Action, Kind), SqlError> {
        if copy.elsewhere {
            return Err(SqlError::unsupported("COPY with a file or a program of the server")
                .hint("COPY … FROM STDIN and TO STDOUT, or psql's \\copy, use the client's files"));
        }
        if copy.filtered {
            return Err(SqlError::unsupported("COPY … WHERE"));
        }
        match (&copy.source, copy.from) {
            (Source::Table(name, columns), true) => self.copy_in(name, columns, &copy.options),
            (Source::Query(_), true) => {
                Err(SqlError::new(SqlState::SYNTAX_ERROR, "COPY FROM takes a table, not a query"))
            }
            (Source::Query(query), false) => self.copy_out(query, String::new(), &copy.options),
            (Source::Table(name, columns), false) => {
                let (kind, table, _) = self.named_source(name)?;
                if let SourceKind::Query(_) = kind {
                    return Err(SqlError::new(
                        SqlState::WRONG_OBJECT_TYPE,
                        format!("cannot copy from view \"{table}\""),
                    )
                    .hint("Try the COPY (SELECT ...) TO variant."));
                }
                let names: Vec<String> = columns.iter().map(Ident::to_string).collect();
                let columns = if names.is_empty() { "*".to_owned() } else { names.join(", ") };
                let statement = parse(&format!("SELECT {columns} FROM {name}"))?.pop();
                match statement.as_ref().map(|s| s.ast()) {
                    Some(Ast::Sql(select)) => match &**select {
                        ast::Statement::Query(query) => self.copy_out(query, table, &copy.options),
                        _ => Err(SqlError::unsupported("COPY of this")),
                    },
                    _ => Err(SqlError::unsupported("COPY of this")),
                }
            }
        }
    }

    fn copy_out(
        &mut self,
        query: &ast::Query,
        table: String,
        given: &[(String, Given)],
    ) -> Result<(Action, Kind), SqlError> {
        let query = self.bind_query(query)?;
        let plan = plan::plan(query.rel)?;
        let options = options(given, &query.columns, false)?;
        let copy = Copy { from: false, table, columns: query.columns.into(), options };
        Ok((Action::CopyOut { plan, copy }, Kind::Query))
    }

    fn copy_in(
        &mut self,
        name: &ast::ObjectName,
        columns: &[Ident],
        given: &[(String, Given)],
    ) -> Result<(Action, Kind), SqlError> {
        let w = self.writable(name)?;
        let names: Vec<ast::ObjectName> = columns.iter().cloned().map(ast::ObjectName::from).collect();
        let places = self.insert_columns(&w, &names)?;
        let mut out: Vec<Option<Expr>> = (0..w.columns.len()).map(|_| None).collect();
        let mut columns = Vec::with_capacity(places.len());
        for (slot, place) in places.into_iter().enumerate() {
            let (name, ty, _) = &w.columns[place];
            let desc = ColumnDesc { name: name.clone(), ty: types::plain(*ty), origin: None };
            let value = Typed::known(Expr::slot(desc.ty, slot));
            out[place] = Some(self.assign(value, &w, place)?);
            columns.push(desc);
        }
        let options = options(given, &columns, true)?;
        let rows = Rows::Copied(self.fill_defaults(&w, out)?);
        let checks = self.checks(&w)?;
        let copy = Copy { from: true, table: w.name, columns: columns.into(), options };
        let insert = Insert { target: w.target, rows, conflict: OnConflict::Fail, checks, returning: None };
        Ok((Action::CopyIn { insert, copy }, Kind::Write))
    }
}

fn options(given: &[(String, Given)], columns: &[ColumnDesc], from: bool) -> Result<Options, SqlError> {
    let syntax = |message: String| SqlError::new(SqlState::SYNTAX_ERROR, message);
    let mut seen: Vec<&str> = Vec::new();
    for (name, _) in given {
        if seen.contains(&name.as_str()) {
            return Err(syntax("conflicting or redundant options".into()));
        }
        seen.push(name);
    }
    let text = |name: &str| given.iter().find(|(n, _)| n == name).map(|(_, given)| given);
    let format = match text("format") {
        None => Format::Text,
        Some(Given::Text(name)) if name.eq_ignore_ascii_case("text") => Format::Text,
        Some(Given::Text(name)) if name.eq_ignore_ascii_case("csv") => Format::Csv,
        Some(Given::Text(name)) if name.eq_ignore_ascii_case("binary") => Format::Binary,
        Some(Given::Text(name)) => {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                format!("COPY format \"{name}\" not recognized"),
            ));
        }
        Some(_) => return Err(syntax("format requires a parameter".into())),
    };
    let csv = format == Format::Csv;
    let mut options = Options {
        format,
        delimiter: if csv { b',' } else { b'\t' },
        null: if csv { String::new() } else { "\\N".into() },
        header: Header::None,
        quote: b'"',
        escape: b'"',
        force_quote: vec![false; columns.len()],
        force_not_null: vec![false; columns.len()],
        force_null: vec![false; columns.len()],
    };
    let mut escape = None;
    for (name, value) in given {
        let refused =
            |form: &str| SqlError::unsupported(format!("COPY {name} available only in {form} mode"));
        match (name.as_str(), value) {
            ("format" | "freeze", _) => {}
            ("delimiter" | "null" | "header", _) if format == Format::Binary => {
                return Err(syntax(format!("cannot specify {} in BINARY mode", name.to_uppercase())));
            }
            ("quote" | "escape" | "force_quote" | "force_not_null" | "force_null", _) if !csv => {
                return Err(refused("CSV"));
            }
            ("delimiter", Given::Text(text)) => {
                options.delimiter = one_byte("delimiter", text)?;
                let letters = b"\\.abcdefghijklmnopqrstuvwxyz0123456789";
                if options.delimiter == b'\n' || options.delimiter == b'\r' {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER,
                        "COPY delimiter cannot be newline or carriage return",
                    ));
                }
                if !csv && letters.contains(&options.delimiter) {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER,
                        format!("COPY delimiter cannot be \"{text}\""),
                    ));
                }
            }
            ("null", Given::Text(text)) => {
                if text.contains(['\n', '\r']) {
                    return Err(SqlError::new(
                        SqlState::INVALID_PARAMETER,
                        "COPY null representation cannot use newline or carriage return",
                    ));
                }
                options.null = text.clone();
            }
            ("header", Given::Nothing) => options.header = Header::Line,
            ("header", Given::Text(word)) if word.eq_ignore_ascii_case("match") => {
                if !from {
                    return Err(syntax("cannot use \"match\" with HEADER in COPY TO".into()));
                }
                options.header = Header::Match;
            }
            ("header", Given::Text(word)) => match boolean(word) {
                Some(true) => options.header = Header::Line,
                Some(false) => {}
                None => return Err(syntax("header requires a Boolean value or \"match\"".into())),
            },
            ("quote", Given::Text(text)) => options.quote = one_byte("quote", text)?,
            ("escape", Given::Text(text)) => escape = Some(one_byte("escape", text)?),
            ("force_quote", given) if !from => options.force_quote = which(given, columns, name)?,
            ("force_not_null", given) if from => options.force_not_null = which(given, columns, name)?,
            ("force_null", given) if from => options.force_null = which(given, columns, name)?,
            ("force_quote", _) => return Err(refused("COPY TO")),
            ("force_not_null" | "force_null", _) => return Err(refused("COPY FROM")),
            ("encoding", Given::Text(name))
                if matches!(&*name.to_lowercase(), "utf8" | "utf-8" | "unicode") => {}
            ("encoding", Given::Text(name)) => {
                return Err(SqlError::unsupported(format!("the encoding {name}")).hint("send UTF8"));
            }
            ("delimiter" | "null" | "header" | "quote" | "escape" | "encoding", _) => {
                return Err(syntax(format!("{name} requires a parameter")));
            }
            _ => return Err(syntax(format!("option \"{name}\" not recognized"))),
        }
    }
    options.escape = escape.unwrap_or(options.quote);
    if csv && options.delimiter == options.quote {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, "COPY delimiter and quote must be different"));
    }
    if options.format != Format::Binary && options.null.as_bytes().contains(&options.delimiter) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            "COPY delimiter must not appear in the NULL specification",
        ));
    }
    Ok(options)
}

fn one_byte(what: &str, text: &str) -> Result<u8, SqlError> {
    match text.as_bytes() {
        [byte] => Ok(*byte),
        _ => Err(SqlError::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY {what} must be a single one-byte character"),
        )),
    }
}

fn which(given: &Given, columns: &[ColumnDesc], option: &str) -> Result<Vec<bool>, SqlError> {
    match given {
        Given::All => Ok(vec![true; columns.len()]),
        Given::Columns(names) => {
            let mut out = vec![false; columns.len()];
            for name in names {
                let name = folded(name);
                let place = columns.iter().position(|c| c.name == name).ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_COLUMN_REFERENCE,
                        format!("{option} column \"{name}\" not referenced by COPY"),
                    )
                })?;
                out[place] = true;
            }
            Ok(out)
        }
        _ => Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("argument to option \"{option}\" must be a list of column names"),
        )),
    }
}
