//! Expressions.

use super::names::{data_type, folded};
use super::subquery::comparison;
use super::{Binder, Scope, Typed, fold};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind, SubqueryKind};
use crate::func;
use crate::types::{self, CastContext};
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, BinaryOperator, UnaryOperator};

impl Binder<'_> {
    /// An expression that is a condition.
    pub fn condition(&mut self, e: &ast::Expr, scope: &Scope, clause: &str) -> Result<Expr, SqlError> {
        let typed = self.expr(e, scope)?;
        self.boolean(typed, clause)
    }

    fn boolean(&mut self, typed: Typed, clause: &str) -> Result<Expr, SqlError> {
        match typed.ty() {
            None | Some(Type::Bool) => self.coerce(typed, Type::Bool, CastContext::Implicit),
            Some(other) => Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of {clause} must be type boolean, not type {other}"),
            )),
        }
    }

    /// An expression whose type may be open.
    pub fn expr(&mut self, e: &ast::Expr, scope: &Scope) -> Result<Typed, SqlError> {
        let typed = self.expr_unfolded(e, scope)?;
        Ok(if typed.known { Typed::known(fold(typed.expr, self.session)) } else { typed })
    }

    /// An expression of a settled type.
    pub fn settled(&mut self, e: &ast::Expr, scope: &Scope) -> Result<Expr, SqlError> {
        let typed = self.expr(e, scope)?;
        self.settle(typed)
    }

    fn expr_unfolded(&mut self, e: &ast::Expr, scope: &Scope) -> Result<Typed, SqlError> {
        use ast::Expr as E;
        match e {
            E::Identifier(ident) => self.column(None, ident, scope),
            E::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] => self.column(Some(&folded(table)), column, scope),
                _ => Err(SqlError::unsupported("this name")),
            },
            E::Nested(inner) => self.expr(inner, scope),
            E::Value(value) => {
                let at = value.span.start;
                self.literal(&value.value).map_err(|e| self.at(e, at))
            }
            E::TypedString(typed) => {
                let ty = data_type(&typed.data_type)?;
                let text = string(&typed.value.value).ok_or_else(|| SqlError::unsupported("this literal"))?;
                let literal = Typed { expr: Expr::constant(Type::Text, Value::Text(text)), known: false };
                let expr = self.coerce(literal, ty, CastContext::Explicit);
                Ok(Typed::known(expr.map_err(|e| self.at(e, typed.value.span.start))?))
            }
            E::Interval(interval) => self.interval(interval, scope),
            E::BinaryOp { .. } => self.binary(e, scope),
            E::UnaryOp { op, expr } => self.unary(*op, expr, scope),
            E::IsNull(of) => self.is_null(of, false, scope),
            E::IsNotNull(of) => self.is_null(of, true, scope),
            E::IsTrue(of) => self.is_bool(of, true, false, scope),
            E::IsNotTrue(of) => self.is_bool(of, true, true, scope),
            E::IsFalse(of) => self.is_bool(of, false, false, scope),
            E::IsNotFalse(of) => self.is_bool(of, false, true, scope),
            E::IsUnknown(of) => self.is_null(of, false, scope),
            E::IsNotUnknown(of) => self.is_null(of, true, scope),
            E::IsDistinctFrom(a, b) => self.distinct(a, b, false, scope),
            E::IsNotDistinctFrom(a, b) => self.distinct(a, b, true, scope),
            E::InList { expr, list, negated } => {
                let mut items = vec![self.expr(expr, scope)?];
                for item in list {
                    items.push(self.expr(item, scope)?);
                }
                let (_, mut exprs) = self.unify(items, "IN")?;
                let of = Box::new(exprs.remove(0));
                Ok(Typed::known(Expr::boolean(ExprKind::In { of, list: exprs, negated: *negated })))
            }
            E::Between { expr, negated, low, high } => {
                let within = match symmetric(low) {
                    Some(low) => {
                        let up = self.between(expr, &low, high, scope)?;
                        let down = self.between(expr, high, &low, scope)?;
                        Expr::boolean(ExprKind::Or(vec![up, down]))
                    }
                    None => self.between(expr, low, high, scope)?,
                };
                Ok(Typed::known(match negated {
                    true => Expr::boolean(ExprKind::Not(Box::new(within))),
                    false => within,
                }))
            }
            E::Like { negated, expr, pattern, escape_char, any: false } => {
                self.like("like", *negated, expr, pattern, escape_char.as_deref(), scope)
            }
            E::ILike { negated, expr, pattern, escape_char, any: false } => {
                self.like("ilike", *negated, expr, pattern, escape_char.as_deref(), scope)
            }
            E::Cast {
                kind: ast::CastKind::Cast | ast::CastKind::DoubleColon, expr, data_type: ty, ..
            } => {
                let to = data_type(ty)?;
                if let (E::Array(array), Type::Array(element)) = (&**expr, to)
                    && array.elem.is_empty()
                {
                    return Ok(Typed::known(Expr::constant(to, crate::array::flat(element, &[]))));
                }
                let of = self.expr(expr, scope)?;
                Ok(Typed::known(self.coerce(of, to, CastContext::Explicit)?))
            }
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), scope)
            }
            E::AtTimeZone { timestamp, time_zone } => {
                let args = vec![self.expr(time_zone, scope)?, self.expr(timestamp, scope)?];
                self.call_builtin("timezone", args, false)
            }
            E::Extract { field, expr, .. } => {
                let field = Expr::constant(
                    Type::Text,
                    Value::Text(field.to_string().trim_matches('\'').to_lowercase()),
                );
                let args = vec![Typed::known(field), self.expr(expr, scope)?];
                self.call_builtin("extract", args, false)
            }
            E::Ceil { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                let args = vec![self.expr(expr, scope)?];
                self.call_builtin("ceil", args, false)
            }
            E::Floor { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                let args = vec![self.expr(expr, scope)?];
                self.call_builtin("floor", args, false)
            }
            E::Position { expr, r#in } => {
                let args = vec![self.expr(expr, scope)?, self.expr(r#in, scope)?];
                self.call_builtin("position", args, false)
            }
            E::Substring { expr, substring_from, substring_for, .. } => {
                let mut args = vec![self.expr(expr, scope)?];
                match substring_from {
                    Some(from) => args.push(self.expr(from, scope)?),
                    None => args.push(Typed::known(Expr::constant(Type::Int, Value::Int(1)))),
                }
                if let Some(count) = substring_for {
                    args.push(self.expr(count, scope)?);
                }
                self.call_builtin("substring", args, false)
            }
            E::Trim { expr, trim_where, trim_what, trim_characters } => {
                let name = match trim_where {
                    Some(ast::TrimWhereField::Leading) => "ltrim",
                    Some(ast::TrimWhereField::Trailing) => "rtrim",
                    _ => "btrim",
                };
                let mut args = vec![self.expr(expr, scope)?];
                let characters = trim_characters.as_ref().and_then(|c| c.first());
                if let Some(what) = trim_what.as_deref().or(characters) {
                    args.push(self.expr(what, scope)?);
                }
                self.call_builtin(name, args, false)
            }
            E::Collate { expr, .. } => self.expr(expr, scope),
            E::Function(function) => self.call(function, scope),
            E::Subquery(query) => self.scalar_subquery(query, scope),
            E::Exists { subquery, negated } => {
                let found = self.exists(subquery, scope)?;
                Ok(if *negated { not(found) } else { found })
            }
            E::InSubquery { expr, subquery, negated } => {
                let kind = SubqueryKind::Any(Comparison::Eq);
                let found = self.quantified(expr, kind, subquery, scope)?;
                Ok(if *negated { not(found) } else { found })
            }
            E::AnyOp { left, compare_op, right, .. } | E::AllOp { left, compare_op, right }
                if matches!(**right, E::Subquery(_)) =>
            {
                let (E::Subquery(query), Some(op)) = (&**right, comparison(compare_op)) else {
                    return Err(SqlError::unsupported("this operator with ANY and ALL"));
                };
                let kind = match e {
                    E::AnyOp { .. } => SubqueryKind::Any(op),
                    _ => SubqueryKind::All(op),
                };
                self.quantified(left, kind, query, scope)
            }
            E::SimilarTo { negated, expr, pattern, escape_char } => {
                let mut args = vec![self.expr(expr, scope)?, self.expr(pattern, scope)?];
                if let Some(escape) = escape_char {
                    args.push(self.expr(escape, scope)?);
                }
                let found = self.call_builtin("similar to", args, false)?.expr;
                Ok(Typed::known(if *negated { Expr::boolean(ExprKind::Not(Box::new(found))) } else { found }))
            }
            E::AnyOp { left, compare_op, right, .. } => {
                self.over_array(left, compare_op, right, false, scope)
            }
            E::AllOp { left, compare_op, right } => self.over_array(left, compare_op, right, true, scope),
            E::Array(array) => self.array(array, scope),
            E::CompoundFieldAccess { root, access_chain } => self.subscripts(root, access_chain, scope),
            E::Tuple(_) => Err(SqlError::unsupported("a row value")),
            _ => Err(SqlError::unsupported("this expression")),
        }
    }

    fn between(
        &mut self,
        value: &ast::Expr,
        low: &ast::Expr,
        high: &ast::Expr,
        scope: &Scope,
    ) -> Result<Expr, SqlError> {
        let (value, again) = (self.expr(value, scope)?, self.expr(value, scope)?);
        let (low, high) = (self.expr(low, scope)?, self.expr(high, scope)?);
        let from = self.compare(Comparison::Ge, value, low)?;
        let to = self.compare(Comparison::Le, again, high)?;
        Ok(Expr::boolean(ExprKind::And(vec![from, to])))
    }

    /// `left op ANY (array)`.
    fn over_array(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
        all: bool,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let op =
            comparison(op).ok_or_else(|| SqlError::unsupported(format!("operator {op} with ANY or ALL")))?;
        let (left, right) = (self.expr(left, scope)?, self.expr(right, scope)?);
        let element = match (left.ty(), right.ty()) {
            (_, Some(Type::Array(element))) => match left.ty() {
                Some(ty) => comparable(types::plain(ty), element.ty())
                    .and_then(Element::of)
                    .ok_or_else(|| func::undefined(op.symbol(), &[left.ty(), Some(element.ty())], true))?,
                None => element,
            },
            (ty, None) => Element::of(ty.unwrap_or(Type::Text)).unwrap_or(Element::TEXT),
            _ => {
                return Err(SqlError::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    "op ANY/ALL (array) requires array on right side",
                ));
            }
        };
        let of = [
            self.coerce(left, element.ty(), CastContext::Implicit)?,
            self.coerce(right, Type::Array(element), CastContext::Implicit)?,
        ];
        Ok(Typed::known(Expr::boolean(ExprKind::Quantified { op, all, of: Box::new(of) })))
    }

    fn array(&mut self, array: &ast::Array, scope: &Scope) -> Result<Typed, SqlError> {
        let mut items = Vec::with_capacity(array.elem.len());
        for item in &array.elem {
            items.push(self.expr(item, scope)?);
        }
        if items.is_empty() {
            return Err(SqlError::new(
                SqlState::INDETERMINATE_DATATYPE,
                "cannot determine type of empty array",
            )
            .hint("Explicitly cast to the desired type, for example ARRAY[]::integer[]."));
        }
        let (ty, items) = self.unify(items, "ARRAY")?;
        let ty = match ty {
            array @ Type::Array(_) => array,
            ty => Type::Array(Element::of(ty).unwrap_or(Element::TEXT)),
        };
        Ok(Typed::known(Expr { ty, kind: ExprKind::Array(items) }))
    }

    fn subscripts(
        &mut self,
        root: &ast::Expr,
        chain: &[ast::AccessExpr],
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let mut at = self.expr(root, scope)?;
        let mut chain = chain.iter();
        while let Some(access) = chain.next() {
            let ast::AccessExpr::Subscript(subscript) = access else {
                return Err(SqlError::unsupported("a field of a value"));
            };
            let ty = at.ty();
            if let (Some(Type::Json), ast::Subscript::Index { index }) = (ty, subscript) {
                let index = self.expr(index, scope)?;
                at = self.call_builtin("->", vec![at, index], true)?;
                continue;
            }
            let Some(Type::Array(element)) = ty else {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "cannot subscript type {} because it does not support subscripting",
                        ty.unwrap_or(Type::Text)
                    ),
                ));
            };
            let bound = |e: &Option<ast::Expr>, binder: &mut Self, default: i64| match e {
                Some(e) => binder.expr(e, scope),
                None => Ok(Typed::known(Expr::constant(Type::Integer, Value::Int(default)))),
            };
            let (name, args, ty) = match subscript {
                ast::Subscript::Index { index } => {
                    // One subscript for each dimension.
                    let mut args = vec![at, self.expr(index, scope)?];
                    for access in chain.by_ref() {
                        let ast::AccessExpr::Subscript(ast::Subscript::Index { index }) = access else {
                            return Err(SqlError::unsupported("a slice of one dimension of several"));
                        };
                        args.push(self.expr(index, scope)?);
                    }
                    ("array element", args, element.ty())
                }
                ast::Subscript::Slice { lower_bound, upper_bound, stride: None } => {
                    let from = bound(lower_bound, self, 1)?;
                    let to = bound(upper_bound, self, i64::from(i32::MAX))?;
                    ("array slice", vec![at, from, to], Type::Array(element))
                }
                _ => return Err(SqlError::unsupported("a slice with a step")),
            };
            at = self.call_builtin(name, args, false)?;
            at.expr.ty = ty;
        }
        Ok(at)
    }

    fn column(&mut self, table: Option<&str>, ident: &ast::Ident, scope: &Scope) -> Result<Typed, SqlError> {
        let name = folded(ident);
        let at = ident.span.start;
        match scope.column(table, &name).map_err(|e| self.at(e, at))? {
            Some(column) => {
                let mut expr = column.expr.clone();
                expr.ty = types::plain(expr.ty);
                Ok(Typed::known(expr))
            }
            None => {
                if let Some(outer) = self.outer_column(table, &name).map_err(|e| self.at(e, at))? {
                    return Ok(Typed::known(outer));
                }
                // SQL's words without parentheses that the parser takes for columns.
                if table.is_none() && ident.quote_style.is_none() && is_bare_function(&name) {
                    return self.call_builtin(&name, Vec::new(), false);
                }
                let error = match table {
                    Some(table) if scope.table(table).is_none() && !self.sees_outer_table(table) => {
                        SqlError::new(
                            SqlState::UNDEFINED_TABLE,
                            format!("missing FROM-clause entry for table \"{table}\""),
                        )
                    }
                    Some(table) => SqlError::new(
                        SqlState::UNDEFINED_COLUMN,
                        format!("column {table}.{name} does not exist"),
                    ),
                    None => {
                        SqlError::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"))
                    }
                };
                Err(self.at(error, at))
            }
        }
    }

    pub(super) fn literal(&mut self, value: &ast::Value) -> Result<Typed, SqlError> {
        let unknown = |value: Value| Typed { expr: Expr::constant(Type::Text, value), known: false };
        Ok(match value {
            ast::Value::Number(digits, _) => {
                let whole = digits.bytes().all(|b| b.is_ascii_digit() || b == b'-');
                match digits.parse::<i64>() {
                    Ok(i) if whole && i32::try_from(i).is_ok() => {
                        Typed::known(Expr::constant(Type::Integer, Value::Int(i)))
                    }
                    Ok(i) if whole => Typed::known(Expr::constant(Type::Int, Value::Int(i))),
                    _ => Typed::known(Expr::constant(
                        Type::Numeric,
                        crate::text::parse(digits, Type::Numeric)?,
                    )),
                }
            }
            ast::Value::Boolean(b) => Typed::known(Expr::constant(Type::Bool, Value::Bool(*b))),
            ast::Value::Null => unknown(Value::Null),
            ast::Value::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
                let i = number.filter(|n| (1..=65_535).contains(n)).ok_or_else(|| {
                    SqlError::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
                })? - 1;
                if self.params.len() <= i {
                    self.params.resize(i + 1, None);
                }
                let ty = self.params[i];
                Typed {
                    expr: Expr { ty: ty.unwrap_or(Type::Text), kind: ExprKind::Param(i) },
                    known: ty.is_some(),
                }
            }
            other => match string(other) {
                Some(text) => unknown(Value::Text(text)),
                None => return Err(SqlError::unsupported("this literal")),
            },
        })
    }

    fn interval(&mut self, interval: &ast::Interval, scope: &Scope) -> Result<Typed, SqlError> {
        let value = self.expr(&interval.value, scope)?;
        let ExprKind::Const(Value::Text(text)) = value.expr.kind else {
            return Err(SqlError::new(SqlState::SYNTAX_ERROR, "INTERVAL takes a string")
                .hint("write number * INTERVAL '1 second' to compute one"));
        };
        let text = match &interval.leading_field {
            Some(field) if text.trim().parse::<f64>().is_ok() => format!("{text} {field}"),
            Some(ast::DateTimeField::Minute)
                if interval.last_field == Some(ast::DateTimeField::Second)
                    && text.matches(':').count() == 1 =>
            {
                format!("00:{}", text.trim())
            }
            _ => text,
        };
        Ok(Typed::known(Expr::constant(Type::Interval, crate::text::parse(&text, Type::Interval)?)))
    }

    /// Binary operators. Chains nest to the left; they are walked in a loop.
    fn binary(&mut self, e: &ast::Expr, scope: &Scope) -> Result<Typed, SqlError> {
        let mut chain = Vec::new();
        let mut at = e;
        while let ast::Expr::BinaryOp { left, op, right } = at {
            chain.push((op, &**right));
            at = left;
        }
        let mut chain = chain.into_iter().rev();
        let mut left = match (at, chain.clone().next()) {
            (ast::Expr::Tuple(a), Some((op, ast::Expr::Tuple(b)))) => {
                chain.next();
                self.compare_rows(op, a, b, scope)?
            }
            _ => self.expr(at, scope)?,
        };
        for (op, right) in chain {
            let right = self.expr(right, scope)?;
            left = self.operator(op, left, right)?;
            if left.known {
                left.expr = fold(left.expr, self.session);
            }
        }
        Ok(left)
    }

    fn compare_rows(
        &mut self,
        op: &BinaryOperator,
        a: &[ast::Expr],
        b: &[ast::Expr],
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let op = comparison(op).ok_or_else(|| SqlError::unsupported(format!("operator {op} on rows")))?;
        if a.len() != b.len() {
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                "unequal number of entries in row expressions",
            ));
        }
        let mut pairs = Vec::with_capacity(a.len());
        for (a, b) in a.iter().zip(b) {
            let (a, b) = (self.expr(a, scope)?, self.expr(b, scope)?);
            if let ExprKind::Compare(_, pair) = self.compare(op, a, b)?.kind {
                let [a, b] = *pair;
                pairs.push((a, b));
            }
        }
        Ok(Typed::known(Expr::boolean(ExprKind::Rows { op, pairs })))
    }

    fn operator(&mut self, op: &BinaryOperator, left: Typed, right: Typed) -> Result<Typed, SqlError> {
        use BinaryOperator as B;
        let spelled_out = match op {
            B::PGCustomBinaryOperator(name) => named_operator(name),
            _ => None,
        };
        let op = spelled_out.as_ref().unwrap_or(op);
        if let Some(comparison) = comparison(op) {
            return Ok(Typed::known(self.compare(comparison, left, right)?));
        }
        let name = match op {
            B::And | B::Or => {
                let clause = if *op == B::And { "AND" } else { "OR" };
                let (a, b) = (self.boolean(left, clause)?, self.boolean(right, clause)?);
                return Ok(Typed::known(connect(*op == B::And, a, b)));
            }
            B::PGLikeMatch => "like",
            B::PGILikeMatch => "ilike",
            B::PGNotLikeMatch | B::PGNotILikeMatch => {
                let name = if *op == B::PGNotLikeMatch { "like" } else { "ilike" };
                let found = self.call_builtin(name, vec![left, right], false)?;
                return Ok(Typed::known(Expr::boolean(ExprKind::Not(Box::new(found.expr)))));
            }
            B::Plus => "+",
            B::Minus => "-",
            B::Multiply => "*",
            B::Divide => "/",
            B::Modulo => "%",
            B::StringConcat => "||",
            B::BitwiseAnd => "&",
            B::BitwiseOr => "|",
            B::PGBitwiseXor => "#",
            B::PGBitwiseShiftLeft => "<<",
            B::PGBitwiseShiftRight => ">>",
            B::PGExp | B::BitwiseXor => "^",
            B::PGStartsWith => "^@",
            B::PGRegexMatch => "~",
            B::PGRegexIMatch => "~*",
            B::PGRegexNotMatch | B::PGRegexNotIMatch => {
                let name = if *op == B::PGRegexNotMatch { "~" } else { "~*" };
                let found = self.call_builtin(name, vec![left, right], true)?;
                return Ok(Typed::known(Expr::boolean(ExprKind::Not(Box::new(found.expr)))));
            }
            B::HashArrow => "#>",
            B::HashLongArrow => "#>>",
            B::HashMinus => "#-",
            B::QuestionAnd => "?&",
            B::QuestionPipe => "?|",
            B::PGOverlap => "&&",
            B::Arrow => "->",
            B::LongArrow => "->>",
            B::AtArrow => "@>",
            B::ArrowAt => "<@",
            B::Question => "?",
            other => return Err(SqlError::unsupported(format!("operator {other}"))),
        };
        if let Some((name, (a, b))) = self.array_operator(name, &left, &right)? {
            let (left, right) = (self.with_type(left, a)?, self.with_type(right, b)?);
            let ty = if name == "array_prepend" { right.expr.ty } else { left.expr.ty };
            let mut call = self.call_builtin(name, vec![left, right], false)?;
            if name.starts_with("array_") {
                call.expr.ty = ty;
            }
            return Ok(call);
        }
        self.call_builtin(name, vec![left, right], true)
    }

    fn with_type(&mut self, typed: Typed, ty: Type) -> Result<Typed, SqlError> {
        Ok(Typed::known(self.coerce(typed, ty, CastContext::Implicit)?))
    }

    /// Operators with an array on a side: which function they are, and the types of its arguments.
    fn array_operator(
        &self,
        name: &str,
        left: &Typed,
        right: &Typed,
    ) -> Result<Option<ArrayOperator>, SqlError> {
        let element = |typed: &Typed| match typed.ty() {
            Some(Type::Array(element)) => Some(element),
            _ => None,
        };
        let undefined = || func::undefined(name, &[left.ty(), right.ty()], true);
        let (a, b) = (element(left), element(right));
        let Some(known) = a.or(b) else {
            return if matches!(name, "&&") { Err(undefined()) } else { Ok(None) };
        };
        if !matches!(name, "||" | "@>" | "<@" | "&&") || matches!(left.ty(), Some(Type::Json)) {
            return Ok(None);
        }
        let joined = |a: Type, b: Type| {
            types::common(a, b).and_then(Element::of).map(Type::Array).ok_or_else(undefined)
        };
        let array = Type::Array(known);
        Ok(Some(match (name, a, b) {
            ("||", Some(x), Some(y)) => {
                let ty = joined(x.ty(), y.ty())?;
                ("array_cat", (ty, ty))
            }
            ("||", Some(x), None) => match right.ty() {
                None => ("array_cat", (array, array)),
                Some(ty) => match joined(x.ty(), ty)? {
                    Type::Array(e) => ("array_append", (Type::Array(e), e.ty())),
                    other => ("array_append", (other, other)),
                },
            },
            ("||", ..) => match left.ty() {
                None => ("array_cat", (array, array)),
                Some(ty) => match joined(known.ty(), ty)? {
                    Type::Array(e) => ("array_prepend", (e.ty(), Type::Array(e))),
                    other => ("array_prepend", (other, other)),
                },
            },
            (_, Some(x), Some(y)) if x != y => return Err(undefined()),
            (name, ..) => {
                let name = match name {
                    "@>" => "array contains",
                    "<@" => "array within",
                    _ => "array overlaps",
                };
                (name, (array, array))
            }
        }))
    }

    /// Compares two expressions, of one type if there is one.
    pub fn compare(&mut self, op: Comparison, left: Typed, right: Typed) -> Result<Expr, SqlError> {
        let target = match (left.ty(), right.ty()) {
            (Some(a), Some(b)) => match comparable(a, b) {
                Some(ty) => ty,
                None => return Err(func::undefined(op.symbol(), &[Some(a), Some(b)], true)),
            },
            (Some(ty), None) | (None, Some(ty)) => ty,
            (None, None) => Type::Text,
        };
        // Integers of any width compare as they are, so that a key of one is found by another.
        let integers = |typed: &Typed| typed.known && types::is_integer(typed.expr.ty);
        if integers(&left) && integers(&right) {
            return Ok(Expr::boolean(ExprKind::Compare(op, Box::new([left.expr, right.expr]))));
        }
        if target == Type::PlainJson {
            return Err(func::undefined(op.symbol(), &[Some(target), Some(target)], true));
        }
        if target == Type::Char(0) {
            // As CHAR first, so that spaces at the end do not count.
            let a = Typed::known(self.coerce(left, target, CastContext::Implicit)?);
            let b = Typed::known(self.coerce(right, target, CastContext::Implicit)?);
            let a = self.coerce(a, Type::Text, CastContext::Implicit)?;
            let b = self.coerce(b, Type::Text, CastContext::Implicit)?;
            return Ok(Expr::boolean(ExprKind::Compare(op, Box::new([a, b]))));
        }
        let a = self.coerce(left, target, CastContext::Implicit)?;
        let b = self.coerce(right, target, CastContext::Implicit)?;
        Ok(Expr::boolean(ExprKind::Compare(op, Box::new([a, b]))))
    }

    fn unary(&mut self, op: UnaryOperator, of: &ast::Expr, scope: &Scope) -> Result<Typed, SqlError> {
        // A number and its sign are one literal: the least INTEGER has no positive of its own.
        if op == UnaryOperator::Minus
            && let ast::Expr::Value(value) = of
            && let ast::Value::Number(digits, _) = &value.value
        {
            return self.literal(&ast::Value::Number(format!("-{digits}"), false));
        }
        let name = match op {
            UnaryOperator::Not => {
                let inner = self.condition(of, scope, "NOT")?;
                return Ok(Typed::known(Expr::boolean(ExprKind::Not(Box::new(inner)))));
            }
            UnaryOperator::Minus => "-",
            UnaryOperator::Plus => "+",
            UnaryOperator::BitwiseNot => "~",
            UnaryOperator::PGSquareRoot => "sqrt",
            UnaryOperator::PGCubeRoot => "cbrt",
            UnaryOperator::PGAbs => "abs",
            other => return Err(SqlError::unsupported(format!("operator {other}"))),
        };
        let mut inner = self.expr(of, scope)?;
        if !inner.known {
            // PostgreSQL takes an unknown operand for double precision.
            inner = Typed::known(self.coerce(inner, Type::Float, CastContext::Implicit)?);
        }
        self.call_builtin(name, vec![inner], true)
    }

    fn is_null(&mut self, of: &ast::Expr, negated: bool, scope: &Scope) -> Result<Typed, SqlError> {
        let of = Box::new(self.settled(of, scope)?);
        Ok(Typed::known(Expr::boolean(ExprKind::IsNull { of, negated })))
    }

    fn is_bool(
        &mut self,
        of: &ast::Expr,
        value: bool,
        negated: bool,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let of = Box::new(self.condition(of, scope, if value { "IS TRUE" } else { "IS FALSE" })?);
        Ok(Typed::known(Expr::boolean(ExprKind::IsBool { of, value, negated })))
    }

    fn distinct(
        &mut self,
        a: &ast::Expr,
        b: &ast::Expr,
        negated: bool,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let (a, b) = (self.expr(a, scope)?, self.expr(b, scope)?);
        let compared = self.compare(Comparison::Eq, a, b)?;
        match compared.kind {
            ExprKind::Compare(_, of) => Ok(Typed::known(Expr::boolean(ExprKind::Distinct { of, negated }))),
            _ => Ok(Typed::known(compared)),
        }
    }

    fn like(
        &mut self,
        name: &str,
        negated: bool,
        of: &ast::Expr,
        pattern: &ast::Expr,
        escape: Option<&ast::Expr>,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let mut args = vec![self.expr(of, scope)?, self.expr(pattern, scope)?];
        if let Some(escape) = escape {
            args.push(self.expr(escape, scope)?);
        }
        let found = self.call_builtin(name, args, false)?.expr;
        Ok(Typed::known(if negated { Expr::boolean(ExprKind::Not(Box::new(found))) } else { found }))
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let mut tests = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for arm in conditions {
            tests.push(match operand {
                Some(operand) => {
                    let (value, against) = (self.expr(operand, scope)?, self.expr(&arm.condition, scope)?);
                    self.compare(Comparison::Eq, value, against)?
                }
                None => self.condition(&arm.condition, scope, "CASE/WHEN")?,
            });
            results.push(self.expr(&arm.result, scope)?);
        }
        if let Some(otherwise) = otherwise {
            results.push(self.expr(otherwise, scope)?);
        }
        let (ty, mut results) = self.unify(results, "CASE")?;
        let otherwise = if otherwise.is_some() { results.pop().map(Box::new) } else { None };
        let arms = tests.into_iter().zip(results).collect();
        Ok(Typed::known(Expr { ty, kind: ExprKind::Case { arms, otherwise } }))
    }

    /// Calls a function or operator of the tables.
    pub fn call_builtin(&mut self, name: &str, args: Vec<Typed>, operator: bool) -> Result<Typed, SqlError> {
        let given: Vec<Option<Type>> = args.iter().map(Typed::ty).collect();
        let (builtin, wanted) = func::resolve(name, &given, operator)?;
        let mut exprs = Vec::with_capacity(args.len());
        for (arg, to) in args.into_iter().zip(wanted) {
            exprs.push(match to {
                Some(to) => self.coerce(arg, to, CastContext::Implicit)?,
                None => self.settle(arg)?,
            });
        }
        Ok(Typed::known(Expr { ty: builtin.returns, kind: ExprKind::Call(builtin, exprs) }))
    }
}

/// The function that an operator is, and the types of its arguments.
type ArrayOperator = (&'static str, (Type, Type));

fn not(condition: Typed) -> Typed {
    Typed::known(Expr::boolean(ExprKind::Not(Box::new(condition.expr))))
}

/// `OPERATOR(pg_catalog.~)`, as tools write operators that they want to be sure of.
fn named_operator(name: &[String]) -> Option<BinaryOperator> {
    use BinaryOperator as B;
    let (symbol, schema) = name.split_last()?;
    if !matches!(schema, [] | [_]) || schema.first().is_some_and(|s| s != "pg_catalog") {
        return None;
    }
    Some(match symbol.as_str() {
        "~" => B::PGRegexMatch,
        "~*" => B::PGRegexIMatch,
        "!~" => B::PGRegexNotMatch,
        "!~*" => B::PGRegexNotIMatch,
        "~~" => B::PGLikeMatch,
        "!~~" => B::PGNotLikeMatch,
        "=" => B::Eq,
        "<>" => B::NotEq,
        "<" => B::Lt,
        "<=" => B::LtEq,
        ">" => B::Gt,
        ">=" => B::GtEq,
        "+" => B::Plus,
        "-" => B::Minus,
        "*" => B::Multiply,
        "/" => B::Divide,
        "%" => B::Modulo,
        "||" => B::StringConcat,
        _ => return None,
    })
}

/// The lower bound of BETWEEN SYMMETRIC without its mark ([`crate::parse`] puts it there).
fn symmetric(low: &ast::Expr) -> Option<ast::Expr> {
    match low {
        ast::Expr::UnaryOp { op: UnaryOperator::PGPrefixFactorial, expr } => Some((**expr).clone()),
        ast::Expr::BinaryOp { left, op, right } => {
            let left = Box::new(symmetric(left)?);
            Some(ast::Expr::BinaryOp { left, op: op.clone(), right: right.clone() })
        }
        _ => None,
    }
}

/// The type that two are compared in. REAL and NUMERIC meet in double precision.
fn comparable(a: Type, b: Type) -> Option<Type> {
    match (a, b) {
        (Type::Real, Type::Numeric) | (Type::Numeric, Type::Real) => Some(Type::Float),
        (a, b) => types::common(a, b),
    }
}

/// AND or OR, long chains kept flat.
fn connect(and: bool, a: Expr, b: Expr) -> Expr {
    let mut parts = match a.kind {
        ExprKind::And(parts) if and => parts,
        ExprKind::Or(parts) if !and => parts,
        kind => vec![Expr { ty: a.ty, kind }],
    };
    parts.push(b);
    Expr::boolean(if and { ExprKind::And(parts) } else { ExprKind::Or(parts) })
}

fn is_bare_function(name: &str) -> bool {
    matches!(
        name,
        "current_timestamp"
            | "current_date"
            | "localtimestamp"
            | "current_user"
            | "session_user"
            | "user"
            | "current_role"
            | "current_catalog"
            | "current_schema"
    )
}

/// The text of a string literal of any spelling.
pub(super) fn string(value: &ast::Value) -> Option<String> {
    match value {
        ast::Value::SingleQuotedString(s)
        | ast::Value::EscapedStringLiteral(s)
        | ast::Value::UnicodeStringLiteral(s)
        | ast::Value::NationalStringLiteral(s) => Some(s.clone()),
        ast::Value::DollarQuotedString(s) => Some(s.value.clone()),
        _ => None,
    }
}
