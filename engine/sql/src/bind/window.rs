//! Window functions: which there are, and over what they look.

use super::aggregate::{self, Aggregates};
use super::names::folded;
use super::select::sort_key;
use super::{Binder, Scope, Typed};
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::func;
use crate::rel::{Frame, FrameBound, FrameUnits, WindowCall, WindowFunction};
use crate::types::CastContext;
use chronos_proto::{Type, Value};
use sqlparser::ast::{self, NamedWindowExpr, WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType};

/// Functions that are nothing without OVER.
pub(super) fn is_window_function(name: &str) -> bool {
    matches!(
        name,
        "row_number"
            | "rank"
            | "dense_rank"
            | "percent_rank"
            | "cume_dist"
            | "ntile"
            | "lag"
            | "lead"
            | "first_value"
            | "last_value"
            | "nth_value"
    )
}

/// Whether window functions may stand where the binder is.
pub(super) enum Windows {
    Forbidden,
    /// They are gathered here.
    Gathered(Vec<WindowCall>),
}

impl Windows {
    pub fn into_calls(self) -> Vec<WindowCall> {
        match self {
            Windows::Gathered(calls) => calls,
            Windows::Forbidden => Vec::new(),
        }
    }
}

fn windowing_error(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::WINDOWING_ERROR, message)
}

impl Binder<'_> {
    /// The WINDOW clause.
    pub(super) fn name_windows(&mut self, windows: &[ast::NamedWindowDefinition]) -> Result<(), SqlError> {
        self.named_windows.clear();
        for ast::NamedWindowDefinition(name, definition) in windows {
            let name = folded(name);
            if self.named_windows.iter().any(|(other, _)| *other == name) {
                return Err(windowing_error(format!("window \"{name}\" is already defined")));
            }
            let spec = match definition {
                NamedWindowExpr::WindowSpec(spec) => self.full_spec(spec)?,
                NamedWindowExpr::NamedWindow(other) => self.named_window(other)?,
            };
            self.named_windows.push((name, spec));
        }
        Ok(())
    }

    fn named_window(&self, name: &ast::Ident) -> Result<WindowSpec, SqlError> {
        let name = folded(name);
        let found = self.named_windows.iter().find(|(other, _)| *other == name);
        found.map(|(_, spec)| spec.clone()).ok_or_else(|| {
            SqlError::new(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"))
        })
    }

    /// A window with what it takes from another by name.
    fn full_spec(&self, spec: &WindowSpec) -> Result<WindowSpec, SqlError> {
        let Some(name) = &spec.window_name else { return Ok(spec.clone()) };
        let base = self.named_window(name)?;
        let name = folded(name);
        if !spec.partition_by.is_empty() {
            return Err(windowing_error(format!("cannot override PARTITION BY clause of window \"{name}\"")));
        }
        if !spec.order_by.is_empty() && !base.order_by.is_empty() {
            return Err(windowing_error(format!("cannot override ORDER BY clause of window \"{name}\"")));
        }
        if base.window_frame.is_some() {
            return Err(windowing_error(format!(
                "cannot copy window \"{name}\" because it has a frame clause"
            )));
        }
        Ok(WindowSpec {
            window_name: None,
            partition_by: base.partition_by,
            order_by: if spec.order_by.is_empty() { base.order_by } else { spec.order_by.clone() },
            window_frame: spec.window_frame.clone(),
        })
    }

    /// One call with OVER.
    pub(super) fn window_call(
        &mut self,
        name: &str,
        over: &WindowType,
        call: &aggregate::Call<'_>,
        scope: &Scope,
    ) -> Result<Typed, SqlError> {
        let gathered = match std::mem::replace(&mut self.windows, Windows::Forbidden) {
            Windows::Gathered(calls) => calls,
            Windows::Forbidden => {
                return Err(match self.aggregates {
                    Aggregates::Forbidden("aggregate function calls") => SqlError::new(
                        SqlState::GROUPING_ERROR,
                        "aggregate function calls cannot contain window function calls",
                    ),
                    Aggregates::Forbidden(place) => {
                        windowing_error(format!("window functions are not allowed in {place}"))
                    }
                    Aggregates::Gathered(_) => windowing_error("window functions are not allowed here"),
                });
            }
        };
        let bound = self.window(name, over, call, scope);
        let mut gathered = gathered;
        let bound = bound.map(|call| {
            let ty = call.ty;
            gathered.push(call);
            Typed::known(Expr { ty, kind: ExprKind::Window(gathered.len() - 1) })
        });
        self.windows = Windows::Gathered(gathered);
        bound
    }

    fn window(
        &mut self,
        name: &str,
        over: &WindowType,
        call: &aggregate::Call<'_>,
        scope: &Scope,
    ) -> Result<WindowCall, SqlError> {
        let spec = match over {
            WindowType::NamedWindow(name) => self.named_window(name)?,
            WindowType::WindowSpec(spec) => self.full_spec(spec)?,
        };
        let mut partition = Vec::with_capacity(spec.partition_by.len());
        for e in &spec.partition_by {
            partition.push(self.settled(e, scope)?);
        }
        let mut order = Vec::with_capacity(spec.order_by.len());
        for key in &spec.order_by {
            order.push(sort_key(self.settled(&key.expr, scope)?, key)?);
        }
        let frame = self.frame(spec.window_frame.as_ref(), &order)?;
        let (function, args, ty) = self.window_function(name, call, scope)?;
        Ok(WindowCall { function, args, partition, order, frame, ty })
    }

    fn window_function(
        &mut self,
        name: &str,
        call: &aggregate::Call<'_>,
        scope: &Scope,
    ) -> Result<(WindowFunction, Vec<Expr>, Type), SqlError> {
        use WindowFunction as W;
        if call.distinct {
            return Err(SqlError::unsupported("DISTINCT for window functions"));
        }
        if let Some(function) = aggregate::function(name) {
            let call = aggregate::Call { function: Some(function), ..call.clone() };
            let call = self.aggregate_call(&call, scope)?;
            let ty = call.ty;
            return Ok((W::Aggregate(call), Vec::new(), ty));
        }
        let function = match name {
            "row_number" => W::RowNumber,
            "rank" => W::Rank,
            "dense_rank" => W::DenseRank,
            "percent_rank" => W::PercentRank,
            "cume_dist" => W::CumeDist,
            "ntile" => W::Ntile,
            "lag" => W::Lag,
            "lead" => W::Lead,
            "first_value" => W::FirstValue,
            "last_value" => W::LastValue,
            "nth_value" => W::NthValue,
            _ => {
                return Err(SqlError::new(
                    SqlState::WRONG_OBJECT_TYPE,
                    format!("OVER specified, but {name} is not a window function nor an aggregate function"),
                ));
            }
        };
        if call.filter.is_some() {
            return Err(SqlError::unsupported("FILTER for window functions that are not aggregates"));
        }
        let mut typed = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            typed.push(self.expr(arg, scope)?);
        }
        let given: Vec<Option<Type>> = typed.iter().map(Typed::ty).collect();
        let undefined = || func::undefined(name, &given, false);
        let counts = match function {
            W::Ntile | W::FirstValue | W::LastValue => 1..=1,
            W::NthValue => 2..=2,
            W::Lag | W::Lead => 1..=3,
            _ => 0..=0,
        };
        if !counts.contains(&typed.len()) || call.star {
            return Err(undefined());
        }
        let mut args = Vec::with_capacity(3);
        let mut ty = match function {
            W::PercentRank | W::CumeDist => Type::Float,
            _ => Type::Int,
        };
        match function {
            W::Ntile => {
                for t in typed {
                    args.push(self.coerce(t, Type::Int, CastContext::Implicit)?);
                }
            }
            W::Lag | W::Lead => {
                let mut typed = typed.into_iter();
                let value = typed.next();
                let offset = match typed.next() {
                    Some(offset) => self.coerce(offset, Type::Int, CastContext::Implicit)?,
                    None => Expr::constant(Type::Int, Value::Int(1)),
                };
                let (of, mut values) =
                    self.unify(value.into_iter().chain(typed).collect(), &name.to_uppercase())?;
                ty = of;
                args.push(values.remove(0));
                args.push(offset);
                args.push(values.pop().unwrap_or_else(|| Expr::constant(ty, Value::Null)));
            }
            W::FirstValue | W::LastValue | W::NthValue => {
                let mut typed = typed.into_iter();
                if let Some(value) = typed.next() {
                    let value = self.settle(value)?;
                    ty = value.ty;
                    args.push(value);
                }
                for t in typed {
                    args.push(self.coerce(t, Type::Int, CastContext::Implicit)?);
                }
            }
            _ => {}
        }
        Ok((function, args, ty))
    }

    fn frame(
        &mut self,
        frame: Option<&ast::WindowFrame>,
        order: &[crate::rel::SortKey],
    ) -> Result<Frame, SqlError> {
        let Some(frame) = frame else {
            return Ok(Frame {
                units: FrameUnits::Range,
                start: FrameBound::First,
                end: FrameBound::Current,
            });
        };
        let units = match frame.units {
            WindowFrameUnits::Rows => FrameUnits::Rows,
            WindowFrameUnits::Range => FrameUnits::Range,
            WindowFrameUnits::Groups => FrameUnits::Groups,
        };
        if units == FrameUnits::Groups && order.is_empty() {
            return Err(windowing_error("GROUPS mode requires an ORDER BY clause"));
        }
        // What an offset is measured in: rows or groups, or the distance that the one order column's type has.
        let offset_type = match (units, order) {
            (FrameUnits::Rows | FrameUnits::Groups, _) => Some(Type::Int),
            (FrameUnits::Range, [key]) => match key.expr.ty {
                Type::Timestamp | Type::Date | Type::Interval => Some(Type::Interval),
                ty => Some(ty),
            },
            _ => None,
        };
        let start = self.frame_bound(&frame.start_bound, offset_type)?;
        let end = match &frame.end_bound {
            Some(bound) => self.frame_bound(bound, offset_type)?,
            None => FrameBound::Current,
        };
        let message = match (&start, &end) {
            (FrameBound::Last, _) => "frame start cannot be UNBOUNDED FOLLOWING",
            (_, FrameBound::First) => "frame end cannot be UNBOUNDED PRECEDING",
            (FrameBound::Current, FrameBound::Preceding(_)) => {
                "frame starting from current row cannot have preceding rows"
            }
            (FrameBound::Following(_), FrameBound::Preceding(_) | FrameBound::Current) => {
                "frame starting from following row cannot have preceding rows"
            }
            _ => return Ok(Frame { units, start, end }),
        };
        Err(windowing_error(message))
    }

    fn frame_bound(
        &mut self,
        bound: &WindowFrameBound,
        offset: Option<Type>,
    ) -> Result<FrameBound, SqlError> {
        let e = match bound {
            WindowFrameBound::CurrentRow => return Ok(FrameBound::Current),
            WindowFrameBound::Preceding(None) => return Ok(FrameBound::First),
            WindowFrameBound::Following(None) => return Ok(FrameBound::Last),
            WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e)) => e,
        };
        let Some(ty) = offset else {
            return Err(windowing_error(
                "RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column",
            ));
        };
        let typed = self.expr(e, &Scope::default()).map_err(|error| match error.code {
            SqlState::UNDEFINED_COLUMN => SqlError::new(
                SqlState::INVALID_COLUMN_REFERENCE,
                "argument of the window's frame must not contain variables",
            ),
            _ => error,
        })?;
        let e = self.coerce(typed, ty, CastContext::Implicit)?;
        Ok(match bound {
            WindowFrameBound::Preceding(_) => FrameBound::Preceding(e),
            _ => FrameBound::Following(e),
        })
    }
}
