//! Sequences' functions.

use super::{functions, int, str};
use crate::exec::sequence;
use crate::exec::vector::ValueRef;
use chronos_proto::Value;

functions! { TABLE:
    "nextval" (Text) -> Int Volatile Row |a, cx| sequence::next(cx, str(a[0])).map(Value::Int);
    "currval" (Text) -> Int Volatile Row |a, cx| sequence::last(cx, Some(str(a[0]))).map(Value::Int);
    "lastval" () -> Int Volatile Row |_, cx| sequence::last(cx, None).map(Value::Int);
    "setval" (Text, Int) -> Int Volatile Row |a, cx| {
        sequence::set(cx, str(a[0]), int(a[1]), true).map(Value::Int)
    };
    "setval" (Text, Int, Bool) -> Int Volatile Row |a, cx| {
        let called = matches!(a[2], ValueRef::Bool(true));
        sequence::set(cx, str(a[0]), int(a[1]), called).map(Value::Int)
    };
}
