//! Results on standard output: as a table for people, as CSV or JSON for programs.

use super::pg::{Column, Report, Sink};
use comfy_table::{Cell, CellAlignment, ContentLineStyle, LineStyle, Table, TableStyle};
use std::io::{self, Write};

/// How rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An aligned table, with a row count below it.
    #[default]
    Table,
    /// RFC 4180, a header first; NULL is an empty field, an empty text is "".
    Csv,
    /// An array of objects, one row a line.
    Json,
}

/// Shows results as they come. A table waits for its last row, since widths depend on all.
pub struct Printer<W> {
    out: W,
    format: Format,
    quiet: bool,
    columns: Vec<Column>,
    table: Option<Table>,
    rows: usize,
}

impl<W: Write> Printer<W> {
    /// Prints to `out`; a quiet one leaves out command tags and row counts.
    pub fn new(out: W, format: Format, quiet: bool) -> Printer<W> {
        Printer { out, format, quiet, columns: Vec::new(), table: None, rows: 0 }
    }

    /// Changes the format for the results to come.
    pub fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    /// The format in use.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Where it prints.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    fn finish_rows(&mut self) -> io::Result<()> {
        let count = self.rows;
        match self.format {
            Format::Table => {
                if let Some(table) = &self.table {
                    print_table(&mut self.out, table)?;
                }
                if !self.quiet {
                    writeln!(self.out, "({count} row{})", if count == 1 { "" } else { "s" })?;
                }
            }
            Format::Csv => {}
            Format::Json if count == 0 => writeln!(self.out, "[]")?,
            Format::Json => writeln!(self.out, "\n]")?,
        }
        Ok(())
    }

    /// After an error: ends what was begun, so that what follows stands on a line of its own.
    pub fn abandon(&mut self) -> io::Result<()> {
        if self.format == Format::Json && self.rows > 0 {
            writeln!(self.out)?;
        }
        (self.columns, self.table, self.rows) = (Vec::new(), None, 0);
        self.out.flush()
    }
}

impl<W: Write> Sink for Printer<W> {
    fn columns(&mut self, columns: &[Column]) -> io::Result<()> {
        (self.columns, self.rows) = (columns.to_vec(), 0);
        match self.format {
            Format::Table => self.table = Some(table(columns)),
            Format::Csv => csv_line(&mut self.out, columns.iter().map(|column| Some(column.name.as_str())))?,
            Format::Json => {}
        }
        Ok(())
    }

    fn row(&mut self, row: &[Option<&str>]) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            Format::Table => {
                if let Some(table) = &mut self.table {
                    table.add_row(row.iter().map(|value| value.map_or_else(|| "NULL".to_owned(), plain)));
                }
            }
            Format::Csv => csv_line(&mut self.out, row.iter().copied())?,
            Format::Json => {
                self.out.write_all(if self.rows == 1 { b"[\n" } else { b",\n" })?;
                json_object(&mut self.out, &self.columns, row)?;
            }
        }
        Ok(())
    }

    fn done(&mut self, tag: &str) -> io::Result<()> {
        if self.columns.is_empty() && self.table.is_none() {
            if self.format == Format::Table && !self.quiet {
                writeln!(self.out, "{tag}")?;
            }
        } else {
            self.finish_rows()?;
        }
        (self.columns, self.table, self.rows) = (Vec::new(), None, 0);
        self.out.flush()
    }

    fn notice(&mut self, report: &Report) {
        eprintln!("{report}");
    }
}

/// Columns apart, the header ruled off, no borders: as psql's.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction('|'))
    .header_separator(LineStyle::none().fill('-').junction('+'))
    .content_lines(ContentLineStyle::none().junction('|'));

/// An empty table in the house style, numbers to the right.
pub fn table(columns: &[Column]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE).set_header(columns.iter().map(|column| Cell::new(plain(&column.name))));
    for (at, column) in columns.iter().enumerate() {
        if let Some(shown) = table.column_mut(at)
            && is_number(column.oid)
        {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table without blanks at line ends.
pub fn print_table(out: &mut impl Write, table: &Table) -> io::Result<()> {
    table.lines().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

fn is_number(oid: u32) -> bool {
    // int8, int2, int4, oid, float4, float8, numeric
    matches!(oid, 20 | 21 | 23 | 26 | 700 | 701 | 1700)
}

/// Text that cannot move the cursor: control characters are shown as escapes.
pub fn plain(text: &str) -> String {
    if !text.chars().any(|c| c.is_control() && c != '\n') {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        match c {
            '\n' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
        shown
    })
}

fn csv_line<'a>(out: &mut impl Write, fields: impl Iterator<Item = Option<&'a str>>) -> io::Result<()> {
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        match field {
            None => {}
            Some(text) if text.is_empty() || text.contains(['"', ',', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?
            }
            Some(text) => out.write_all(text.as_bytes())?,
        }
    }
    writeln!(out)
}

fn json_object(out: &mut impl Write, columns: &[Column], row: &[Option<&str>]) -> io::Result<()> {
    out.write_all(b"{")?;
    for (at, (column, value)) in columns.iter().zip(row).enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(out, "{comma}{}:", json_string(&column.name))?;
        match value {
            None => out.write_all(b"null")?,
            Some(text) => out.write_all(json_value(column.oid, text).as_bytes())?,
        }
    }
    out.write_all(b"}")
}

fn json_value(oid: u32, text: &str) -> String {
    let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    match oid {
        16 => (if text == "t" || text == "true" { "true" } else { "false" }).to_owned(),
        // NaN and Infinity are no JSON numbers, and go as strings.
        _ if is_number(oid) && is_json() => text.to_owned(),
        // json, jsonb
        114 | 3802 if is_json() => text.to_owned(),
        _ => json_string(text),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(format: Format, quiet: bool, rows: &[[Option<&str>; 4]]) -> String {
        let columns = [("id", 20), ("name", 25), ("ok", 16), ("doc", 3802)];
        let columns: Vec<Column> =
            columns.map(|(name, oid)| Column { name: name.to_owned(), oid }).into_iter().collect();
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format, quiet);
        printer.columns(&columns).unwrap();
        rows.iter().for_each(|row| printer.row(row).unwrap());
        printer.done("SELECT 2").unwrap();
        printer.done("INSERT 0 1").unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROWS: [[Option<&str>; 4]; 2] =
        [[Some("1"), Some("a,\"b\""), Some("t"), Some("{\"x\": [1]}")], [Some("-20"), Some(""), None, None]];

    #[test]
    fn a_table_is_aligned_and_counted() {
        let expected = "
  id | name  | ok   | doc
-----+-------+------+------------
   1 | a,\"b\" | t    | {\"x\": [1]}
 -20 |       | NULL | NULL
(2 rows)
INSERT 0 1
";
        assert_eq!(show(Format::Table, false, &ROWS), expected.trim_start_matches('\n'));
    }

    #[test]
    fn csv_tells_null_from_empty() {
        let expected = "id,name,ok,doc\n1,\"a,\"\"b\"\"\",t,\"{\"\"x\"\": [1]}\"\n-20,\"\",,\n";
        assert_eq!(show(Format::Csv, false, &ROWS), expected);
    }

    #[test]
    fn json_keeps_types() {
        let text = show(Format::Json, false, &ROWS);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::json!([
                {"id": 1, "name": "a,\"b\"", "ok": true, "doc": {"x": [1]}},
                {"id": -20, "name": "", "ok": null, "doc": null},
            ])
        );
        assert_eq!(show(Format::Json, false, &[]), "[]\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\nc");
    }
}
