//! JSON for machines, written by hand: a few flat objects, one a line.

use std::fmt::Write;

/// An object in the making; members come out in the order in which they were put in.
#[derive(Clone, Debug, Default)]
pub struct Object(String);

impl Object {
    fn key(&mut self, key: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        quote(&mut self.0, key);
        self.0.push(':');
    }

    /// A number.
    pub fn number(mut self, key: &str, value: u64) -> Object {
        self.key(key);
        // Writing to a String does not fail.
        let _ = write!(self.0, "{value}");
        self
    }

    /// Seconds, with three places.
    pub fn seconds(mut self, key: &str, value: f64) -> Object {
        self.key(key);
        let _ = write!(self.0, "{value:.3}");
        self
    }

    /// A string.
    pub fn text(mut self, key: &str, value: &str) -> Object {
        self.key(key);
        quote(&mut self.0, value);
        self
    }

    /// A list of strings.
    pub fn list<'a>(mut self, key: &str, values: impl IntoIterator<Item = &'a str>) -> Object {
        self.key(key);
        self.0.push('[');
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.0.push(',');
            }
            quote(&mut self.0, value);
        }
        self.0.push(']');
        self
    }

    /// Another object, or null.
    pub fn object(mut self, key: &str, value: Option<Object>) -> Object {
        self.key(key);
        match value {
            Some(object) => self.0.push_str(&object.done()),
            None => self.0.push_str("null"),
        }
        self
    }

    /// The text of it.
    pub fn done(self) -> String {
        format!("{{{}}}", self.0)
    }
}

fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::Object;

    #[test]
    fn members_keep_their_order_and_strings_are_escaped() {
        let inner = Object::default().text("what", "a \"read\"\n\\ \u{1}");
        let object = Object::default()
            .number("seed", u64::MAX)
            .seconds("wall_s", 1.5)
            .list("marks", ["a", "b"])
            .object("failure", Some(inner))
            .object("none", None);
        let expected = "{\"seed\":18446744073709551615,\"wall_s\":1.500,\"marks\":[\"a\",\"b\"],\
                        \"failure\":{\"what\":\"a \\\"read\\\"\\n\\\\ \\u0001\"},\"none\":null}";
        assert_eq!(object.done(), expected);
    }
}
