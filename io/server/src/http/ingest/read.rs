//! Readings as JSON. What does not read is explained by device and field.

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;

/// What one device measured at one time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reading<'a> {
    #[serde(borrow)]
    pub device_id: Cow<'a, str>,
    pub ts: i64,
    pub seq: i64,
    #[serde(borrow)]
    pub metrics: Metrics<'a>,
}

/// Names and values, in the order sent.
#[derive(Debug)]
pub(super) struct Metrics<'a>(pub Vec<(Cow<'a, str>, f64)>);

#[derive(Deserialize, PartialEq, Eq)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Metrics<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Metrics<'a>, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metrics<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of metric names and numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics<'de>, A::Error> {
                let mut out = Vec::with_capacity(map.size_hint().unwrap_or(4));
                while let Some((Name(name), value)) = map.next_entry()? {
                    if out.iter().any(|(seen, _)| *seen == name) {
                        return Err(A::Error::custom(format_args!("metric {name:?} is given twice")));
                    }
                    out.push((name, value));
                }
                Ok(Metrics(out))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// One reading or an array of them, or what is wrong and where.
pub(super) fn readings(json: &[u8]) -> Result<Vec<Reading<'_>>, String> {
    let many = json.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let read =
        if many { serde_json::from_slice(json) } else { serde_json::from_slice(json).map(|one| vec![one]) };
    let readings: Vec<Reading<'_>> = read.map_err(|error| explain(json, &error))?;
    for (i, reading) in readings.iter().enumerate() {
        let whose = || whose(i, Some(&reading.device_id));
        if reading.device_id.is_empty() {
            return Err(format!("reading {}: device_id is empty", i + 1));
        }
        if reading.metrics.0.is_empty() {
            return Err(format!("{}: metrics is empty", whose()));
        }
        for (name, value) in &reading.metrics.0 {
            if name.is_empty() || name.contains('\0') || reading.device_id.contains('\0') {
                return Err(format!("{}: a name is empty or holds a zero byte", whose()));
            }
            if !value.is_finite() {
                return Err(format!("{}: metrics.{name} is not a finite number", whose()));
            }
        }
    }
    Ok(readings)
}

fn whose(i: usize, device: Option<&str>) -> String {
    match device {
        Some(device) => format!("reading {} (device {device:?})", i + 1),
        None => format!("reading {}", i + 1),
    }
}

/// Reads again, slowly, to say which device and field is wrong.
fn explain(json: &[u8], error: &serde_json::Error) -> String {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(json) else {
        return format!("not JSON: {error}");
    };
    let one = std::slice::from_ref(&value);
    let items = value.as_array().map_or(one, Vec::as_slice);
    let wrong = items.iter().enumerate().find_map(|(i, item)| {
        let device = item.get("device_id").and_then(|d| d.as_str());
        Some(format!("{}: {}", whose(i, device), field(item)?))
    });
    wrong.unwrap_or_else(|| error.to_string())
}

/// What is wrong with a reading, if it is a field's type or absence.
fn field(item: &serde_json::Value) -> Option<String> {
    const FIELDS: [&str; 4] = ["device_id", "ts", "seq", "metrics"];
    let Some(object) = item.as_object() else {
        return Some(format!("expected an object, not {}", kind(item)));
    };
    if let Some(unknown) = object.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        return Some(format!("unknown field {unknown:?}; there are device_id, ts, seq and metrics"));
    }
    for name in FIELDS {
        let Some(value) = object.get(name) else { return Some(format!("{name} is missing")) };
        let wanted = match name {
            "device_id" if !value.is_string() => "a text",
            "ts" | "seq" if value.as_i64().is_none() => "a whole number of 64 bits",
            "metrics" if !value.is_object() => "an object",
            _ => continue,
        };
        return Some(format!("{name}: expected {wanted}, not {}", kind(value)));
    }
    let (name, value) = object.get("metrics")?.as_object()?.iter().find(|(_, value)| !value.is_number())?;
    Some(format!("metrics.{name}: expected a number, not {}", kind(value)))
}

fn kind(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "null".to_owned(),
        serde_json::Value::Bool(b) => b.to_string(),
        serde_json::Value::Number(n) => n.to_string(),
        serde_json::Value::String(_) => "a text".to_owned(),
        serde_json::Value::Array(_) => "an array".to_owned(),
        serde_json::Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_many() {
        let one =
            br#"{"device_id":"esp-001","ts":1733856000,"seq":42,"metrics":{"temp":30.5,"humidity":40}}"#;
        let read = readings(one).unwrap();
        assert_eq!((read[0].device_id.as_ref(), read[0].ts, read[0].seq), ("esp-001", 1_733_856_000, 42));
        let metrics: Vec<(&str, f64)> = read[0].metrics.0.iter().map(|(n, v)| (n.as_ref(), *v)).collect();
        assert_eq!(metrics, [("temp", 30.5), ("humidity", 40.0)]);
        let many = [b"[".as_slice(), one, b",", one, b"]"].concat();
        assert_eq!(readings(&many).unwrap().len(), 2);
        assert_eq!(readings(b"[]").unwrap().len(), 0);
    }

    #[test]
    fn errors_name_the_place_the_device_and_the_field() {
        let wrong = |json: &str| readings(json.as_bytes()).unwrap_err();
        let reading = |rest: &str| format!(r#"[{{"device_id":"esp-7","ts":1,"seq":2{rest}}}]"#);
        for (json, expected) in [
            ("{\"device_id\":".to_owned(), "line 1 column"),
            (reading(r#","metrics":{"t":1e999}"#), "line 1 column"),
            (reading(r#","metrics":{"t":NaN}"#), "line 1 column"),
            (
                reading(r#","metrics":{"t":"warm"}"#),
                "device \"esp-7\"): metrics.t: expected a number, not a text",
            ),
            (reading(""), "device \"esp-7\"): metrics is missing"),
            (reading(r#","metrics":{}"#), "metrics is empty"),
            (reading(r#","metrics":{"t":1,"t":2}"#), "given twice"),
            (reading(r#","metrics":{"t":1},"colour":3"#), "unknown field \"colour\""),
            (
                r#"{"device_id":7,"ts":1,"seq":2,"metrics":{}}"#.to_owned(),
                "device_id: expected a text, not 7",
            ),
            (r#"{"device_id":"a","ts":1.5,"seq":2,"metrics":{}}"#.to_owned(), "ts: expected a whole number"),
            ("[3]".to_owned(), "reading 1: expected an object, not 3"),
        ] {
            assert!(wrong(&json).contains(expected), "{json}: {}", wrong(&json));
        }
    }
}
