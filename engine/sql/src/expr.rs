//! Bound expressions: names are slots, functions are resolved, every node has its type.

use crate::func::Builtin;
use crate::plan::Plan;
use crate::types;
use chronos_proto::{Type, Value};
use std::sync::Arc;

/// An expression over the slots of a row.
#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub ty: Type,
    pub kind: ExprKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ExprKind {
    Const(Value),
    /// `$n`, from 0.
    Param(usize),
    /// A column of the input.
    Slot(usize),
    /// An aggregate of the SELECT being bound; a slot once it is.
    Aggregate(usize),
    /// A window function of the SELECT being bound; a slot once it is.
    Window(usize),
    /// `grouping(…)`; a number for each grouping set once the SELECT is bound.
    Grouping(Vec<Expr>),
    /// What the innermost subquery around captured under this number.
    Outer(usize),
    Subquery(Box<Subquery>),
    Call(&'static Builtin, Vec<Expr>),
    Compare(Comparison, Box<[Expr; 2]>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull {
        of: Box<Expr>,
        negated: bool,
    },
    /// `IS [NOT] TRUE`, `IS [NOT] FALSE`.
    IsBool {
        of: Box<Expr>,
        value: bool,
        negated: bool,
    },
    /// `IS [NOT] DISTINCT FROM`.
    Distinct {
        of: Box<[Expr; 2]>,
        negated: bool,
    },
    Case {
        arms: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Coalesce(Vec<Expr>),
    /// To this expression's type.
    Cast(Box<Expr>),
    /// Made fit for a type with a length, precision or scale; `explicit` by a cast, which cuts.
    Fit {
        of: Box<Expr>,
        to: Type,
        explicit: bool,
    },
    /// `ARRAY[…]`: the elements, or arrays that become one of one dimension more.
    Array(Vec<Expr>),
    /// `x op ANY (array)`, `x op ALL (array)`.
    Quantified {
        op: Comparison,
        all: bool,
        of: Box<[Expr; 2]>,
    },
    /// Rows compared: the first pair that differs decides.
    Rows {
        op: Comparison,
        pairs: Vec<(Expr, Expr)>,
    },
    In {
        of: Box<Expr>,
        list: Vec<Expr>,
        negated: bool,
    },
}

/// A query used as a value.
#[derive(Clone, Debug)]
pub(crate) struct Subquery {
    /// Its number in the statement: what it gave is kept under it.
    pub id: usize,
    pub kind: SubqueryKind,
    pub plan: Arc<Plan>,
    /// What it takes from the row around, as its [`ExprKind::Outer`] numbers.
    pub captures: Vec<Expr>,
    /// What its rows are compared with.
    pub operands: Vec<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubqueryKind {
    Scalar,
    Exists,
    Any(Comparison),
    All(Comparison),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Comparison {
    pub fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Comparison::Eq => order.is_eq(),
            Comparison::Ne => order.is_ne(),
            Comparison::Lt => order.is_lt(),
            Comparison::Le => order.is_le(),
            Comparison::Gt => order.is_gt(),
            Comparison::Ge => order.is_ge(),
        }
    }

    /// With the sides exchanged.
    pub fn flipped(self) -> Comparison {
        match self {
            Comparison::Lt => Comparison::Gt,
            Comparison::Le => Comparison::Ge,
            Comparison::Gt => Comparison::Lt,
            Comparison::Ge => Comparison::Le,
            same => same,
        }
    }

    pub fn symbol(self) -> &'static str {
        match self {
            Comparison::Eq => "=",
            Comparison::Ne => "<>",
            Comparison::Lt => "<",
            Comparison::Le => "<=",
            Comparison::Gt => ">",
            Comparison::Ge => ">=",
        }
    }
}

impl Expr {
    pub fn constant(ty: Type, value: Value) -> Expr {
        Expr { ty, kind: ExprKind::Const(value) }
    }

    pub fn slot(ty: Type, slot: usize) -> Expr {
        Expr { ty, kind: ExprKind::Slot(slot) }
    }

    pub fn boolean(kind: ExprKind) -> Expr {
        Expr { ty: Type::Bool, kind }
    }

    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Const(_)
            | ExprKind::Param(_)
            | ExprKind::Slot(_)
            | ExprKind::Outer(_)
            | ExprKind::Aggregate(_)
            | ExprKind::Window(_) => Vec::new(),
            ExprKind::Call(_, args)
            | ExprKind::And(args)
            | ExprKind::Or(args)
            | ExprKind::Array(args)
            | ExprKind::Grouping(args)
            | ExprKind::Coalesce(args) => args.iter().collect(),
            ExprKind::Subquery(sub) => sub.captures.iter().chain(&sub.operands).collect(),
            ExprKind::Compare(_, pair)
            | ExprKind::Distinct { of: pair, .. }
            | ExprKind::Quantified { of: pair, .. } => pair.iter().collect(),
            ExprKind::Rows { pairs, .. } => pairs.iter().flat_map(|(a, b)| [a, b]).collect(),
            ExprKind::Not(of)
            | ExprKind::IsNull { of, .. }
            | ExprKind::IsBool { of, .. }
            | ExprKind::Fit { of, .. }
            | ExprKind::Cast(of) => vec![of],
            ExprKind::Case { arms, otherwise } => {
                arms.iter().flat_map(|(a, b)| [a, b]).chain(otherwise.as_deref()).collect()
            }
            ExprKind::In { of, list, .. } => std::iter::once(&**of).chain(list).collect(),
        }
    }

    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Const(_)
            | ExprKind::Param(_)
            | ExprKind::Slot(_)
            | ExprKind::Outer(_)
            | ExprKind::Aggregate(_)
            | ExprKind::Window(_) => Vec::new(),
            ExprKind::Call(_, args)
            | ExprKind::And(args)
            | ExprKind::Or(args)
            | ExprKind::Array(args)
            | ExprKind::Grouping(args)
            | ExprKind::Coalesce(args) => args.iter_mut().collect(),
            ExprKind::Subquery(sub) => sub.captures.iter_mut().chain(&mut sub.operands).collect(),
            ExprKind::Compare(_, pair)
            | ExprKind::Distinct { of: pair, .. }
            | ExprKind::Quantified { of: pair, .. } => pair.iter_mut().collect(),
            ExprKind::Rows { pairs, .. } => pairs.iter_mut().flat_map(|(a, b)| [a, b]).collect(),
            ExprKind::Not(of)
            | ExprKind::IsNull { of, .. }
            | ExprKind::IsBool { of, .. }
            | ExprKind::Fit { of, .. }
            | ExprKind::Cast(of) => vec![of],
            ExprKind::Case { arms, otherwise } => {
                arms.iter_mut().flat_map(|(a, b)| [a, b]).chain(otherwise.as_deref_mut()).collect()
            }
            ExprKind::In { of, list, .. } => std::iter::once(&mut **of).chain(list).collect(),
        }
    }

    /// Calls `each` with every slot used.
    pub fn slots(&self, each: &mut impl FnMut(usize)) {
        if let ExprKind::Slot(slot) = self.kind {
            each(slot);
        }
        self.children().into_iter().for_each(|c| c.slots(each));
    }

    /// Whether any node is one that `test` knows.
    pub fn any(&self, test: &impl Fn(&Expr) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|c| c.any(test))
    }

    /// Whether its value depends on the row.
    pub fn uses_slots(&self) -> bool {
        self.any(&|e| matches!(e.kind, ExprKind::Slot(_)))
    }

    /// Whether it must be evaluated anew for every row although nothing in it changes.
    pub fn is_volatile(&self) -> bool {
        self.any(
            &|e| matches!(e.kind, ExprKind::Call(f, _) if f.volatility == crate::func::Volatility::Volatile),
        )
    }

    /// Whether it depends on nothing but itself: neither row, parameter, time nor session.
    pub fn is_immutable(&self) -> bool {
        !self.any(&|e| match e.kind {
            ExprKind::Slot(_)
            | ExprKind::Param(_)
            | ExprKind::Outer(_)
            | ExprKind::Aggregate(_)
            | ExprKind::Window(_)
            | ExprKind::Grouping(_)
            | ExprKind::Subquery(_) => true,
            ExprKind::Call(f, _) => f.volatility != crate::func::Volatility::Immutable,
            ExprKind::Cast(ref of) => types::cast_needs_zone(of.ty, e.ty),
            _ => false,
        })
    }

    /// Whether evaluating it on a row that a condition would have left out may end in an error.
    pub fn may_fail(&self) -> bool {
        self.any(&|e| {
            matches!(
                e.kind,
                ExprKind::Call(..) | ExprKind::Cast(_) | ExprKind::Fit { .. } | ExprKind::Subquery(_)
            )
        })
    }

    /// Whether a query runs inside of it.
    pub fn has_subquery(&self) -> bool {
        self.any(&|e| matches!(e.kind, ExprKind::Subquery(_)))
    }

    /// Whether two expressions are the same, but for volatile calls, which never are.
    pub fn same(&self, other: &Expr) -> bool {
        use ExprKind::*;
        if self.ty != other.ty {
            return false;
        }
        let heads = match (&self.kind, &other.kind) {
            (Const(a), Const(b)) => a == b && a.is_null() == b.is_null(),
            (Param(a), Param(b)) | (Slot(a), Slot(b)) | (Outer(a), Outer(b)) => a == b,
            (Aggregate(a), Aggregate(b)) | (Window(a), Window(b)) => a == b,
            (Subquery(a), Subquery(b)) => a.id == b.id,
            (Grouping(_), Grouping(_)) => true,
            (Call(f, _), Call(g, _)) => {
                std::ptr::eq(*f, *g) && f.volatility != crate::func::Volatility::Volatile
            }
            (Compare(a, _), Compare(b, _)) => a == b,
            (And(_), And(_)) | (Or(_), Or(_)) | (Not(_), Not(_)) | (Coalesce(_), Coalesce(_)) => true,
            (Cast(_), Cast(_)) | (Array(_), Array(_)) => true,
            (Fit { to: a, explicit: x, .. }, Fit { to: b, explicit: y, .. }) => a == b && x == y,
            (Quantified { op: a, all: x, .. }, Quantified { op: b, all: y, .. }) => a == b && x == y,
            (Rows { op: a, .. }, Rows { op: b, .. }) => a == b,
            (IsNull { negated: a, .. }, IsNull { negated: b, .. }) => a == b,
            (IsBool { value: a, negated: m, .. }, IsBool { value: b, negated: n, .. }) => a == b && m == n,
            (Distinct { negated: a, .. }, Distinct { negated: b, .. }) => a == b,
            (In { negated: a, .. }, In { negated: b, .. }) => a == b,
            (Case { otherwise: a, .. }, Case { otherwise: b, .. }) => a.is_some() == b.is_some(),
            _ => false,
        };
        let (a, b) = (self.children(), other.children());
        heads && a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.same(b))
    }
}
