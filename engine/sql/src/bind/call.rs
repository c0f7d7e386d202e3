//! Function calls: aggregates, the forms that take any type, and the functions of the tables.

use super::aggregate::Aggregates;
use super::from::is_row_function;
use super::names::{location, qualified};
use super::window::is_window_function;
use super::{Binder, Scope, Typed, aggregate};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::func;
use chronos_proto::value::Element;
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments};

impl Binder<'_> {
    pub(super) fn call(&mut self, f: &ast::Function, scope: &Scope) -> Result<Typed, SqlError> {
        let (schema, name) = qualified(&f.name)?;
        if schema.is_some_and(|s| s != "pg_catalog" && s != "public" && s != "chronos") {
            return Err(self.at(func::undefined(&name, &[], false), location(&f.name)));
        }
        if !f.within_group.is_empty() {
            return Err(SqlError::unsupported("WITHIN GROUP"));
        }
        let mut args: Vec<&ast::Expr> = Vec::new();
        let (mut star, mut distinct) = (false, false);
        match &f.args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(query) if name == "array" => {
                // The aggregate of the same rows; of none it is empty, and not NULL.
                let gathered = format!("coalesce((SELECT array_agg(x) FROM ({query}) AS q(x)), '{{}}')");
                let gathered = crate::parse::parse_expression(&gathered)?;
                return self.expr(&gathered, scope);
            }
            FunctionArguments::Subquery(_) => return Err(SqlError::unsupported("a subquery as an argument")),
            FunctionArguments::List(list) => {
                if !list.clauses.is_empty() {
                    return Err(SqlError::unsupported("a clause inside of a function call"));
                }
                distinct = matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct));
                for arg in &list.args {
                    match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => args.push(e),
                        FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => star = true,
                        _ => return Err(SqlError::unsupported("a named argument")),
                    }
                }
            }
        }
        let at = location(&f.name);
        if let Some(over) = &f.over {
            let filter = f.filter.as_deref();
            let call = aggregate::Call { name: &name, function: None, args, star, distinct, filter };
            return self.window_call(&name, over, &call, scope).map_err(|e| self.at(e, at));
        }
        if is_window_function(&name) {
            let message = format!("window function {name} requires an OVER clause");
            return Err(self.at(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message), at));
        }
        if is_row_function(&name) {
            return self.row_call.take().map(Typed::known).ok_or_else(|| {
                self.at(
                    SqlError::unsupported("a function that gives rows in this place")
                        .hint("put it into FROM, or make it an item of the select list by itself"),
                    at,
                )
            });
        }
        if name == "grouping" && matches!(self.aggregates, Aggregates::Gathered(_)) {
            let mut exprs = Vec::with_capacity(args.len());
            for arg in args {
                exprs.push(self.settled(arg, scope)?);
            }
            return Ok(Typed::known(Expr { ty: Type::Int, kind: ExprKind::Grouping(exprs) }));
        }
        if let Some(function) = aggregate::function(&name) {
            let filter = f.filter.as_deref();
            let call =
                aggregate::Call { name: &name, function: Some(function), args, star, distinct, filter };
            return self.aggregate(&call, scope).map_err(|e| self.at(e, at));
        }
        if distinct || star || f.filter.is_some() {
            return Err(self.at(
                SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("{name} is not an aggregate function")),
                at,
            ));
        }
        let mut typed = Vec::with_capacity(args.len());
        for arg in args {
            typed.push(self.expr(arg, scope)?);
        }
        self.special(&name, typed).map_err(|e| self.at(e, at))
    }

    /// The forms that take any type; else a function of the tables.
    fn special(&mut self, name: &str, mut args: Vec<Typed>) -> Result<Typed, SqlError> {
        match (name, args.len()) {
            ("coalesce", 1..) => {
                let (ty, parts) = self.unify(args, "COALESCE")?;
                Ok(Typed::known(Expr { ty, kind: ExprKind::Coalesce(parts) }))
            }
            ("nullif", 2) => {
                let b = args.remove(1);
                let a = args.remove(0);
                let ty = a.ty();
                let equal = self.compare(Comparison::Eq, a, b)?;
                let ExprKind::Compare(_, pair) = &equal.kind else { return Ok(Typed::known(equal)) };
                // The value keeps the type that it had before it was made comparable.
                let value = match (&pair[0].kind, ty) {
                    (ExprKind::Cast(inner), Some(ty)) if inner.ty == ty => (**inner).clone(),
                    _ => pair[0].clone(),
                };
                let ty = value.ty;
                let null = Expr::constant(ty, Value::Null);
                let kind = ExprKind::Case { arms: vec![(equal, null)], otherwise: Some(Box::new(value)) };
                Ok(Typed::known(Expr { ty, kind }))
            }
            ("greatest" | "least", 1..) => {
                let (ty, parts) = self.unify(args, &name.to_uppercase())?;
                let keep = if name == "greatest" { Comparison::Ge } else { Comparison::Le };
                let mut parts = parts.into_iter();
                let first = parts.next().unwrap_or_else(|| Expr::constant(ty, Value::Null));
                Ok(Typed::known(parts.fold(first, |best, next| pick(ty, keep, best, next))))
            }
            ("pg_typeof", 1) => {
                let ty = args[0].ty();
                let name = ty.map_or("unknown".to_owned(), |t| t.base().to_string());
                Ok(Typed::known(Expr::constant(Type::Text, Value::Text(name))))
            }
            ("array_append" | "array_prepend" | "array_cat" | "array_remove" | "array_replace", 2 | 3)
            | ("array_position" | "array_positions", 2) => self.array_function(name, args),
            ("trim_array", 2) => {
                let ty = args[0].ty();
                let mut call = self.call_builtin(name, args, false)?;
                call.expr.ty = ty.unwrap_or(call.expr.ty);
                Ok(call)
            }
            ("date_bin", 2) if args[1].ty() != Some(Type::LocalTimestamp) => {
                args.push(Typed::known(Expr::constant(Type::Timestamp, Value::Timestamp(0))));
                self.call_builtin(name, args, false)
            }
            _ => self.call_builtin(name, args, false),
        }
    }
}

impl Binder<'_> {
    /// A function whose arguments are an array and elements of it, brought to one element type.
    fn array_function(&mut self, name: &str, args: Vec<Typed>) -> Result<Typed, SqlError> {
        let given: Vec<Option<Type>> = args.iter().map(Typed::ty).collect();
        let undefined = || func::undefined(name, &given, false);
        let mut element: Option<Type> = None;
        for ty in given.iter().flatten() {
            let ty = match ty {
                Type::Array(element) => element.ty(),
                ty => crate::types::plain(*ty),
            };
            element = Some(match element {
                None => ty,
                Some(before) => crate::types::common(before, ty).ok_or_else(undefined)?,
            });
        }
        let element = element.and_then(Element::of).ok_or_else(undefined)?;
        let array = Type::Array(element);
        let mut typed = Vec::with_capacity(args.len());
        for (i, arg) in args.into_iter().enumerate() {
            let is_array = match name {
                "array_cat" => true,
                "array_prepend" => i == 1,
                _ => i == 0,
            };
            let to = if is_array { array } else { element.ty() };
            typed.push(Typed::known(self.coerce(arg, to, crate::types::CastContext::Implicit)?));
        }
        let mut call = self.call_builtin(name, typed, false)?;
        if !name.starts_with("array_position") {
            call.expr.ty = array;
        }
        Ok(call)
    }
}

/// The greater or lesser of two, NULLs left aside.
fn pick(ty: Type, keep: Comparison, a: Expr, b: Expr) -> Expr {
    let null = |e: &Expr| Expr::boolean(ExprKind::IsNull { of: Box::new(e.clone()), negated: false });
    let better = Expr::boolean(ExprKind::Compare(keep, Box::new([a.clone(), b.clone()])));
    let arms = vec![(null(&b), a.clone()), (null(&a), b.clone()), (better, a)];
    Expr { ty, kind: ExprKind::Case { arms, otherwise: Some(Box::new(b)) } }
}
