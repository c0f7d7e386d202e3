//! How the demo tells what happens.

use super::chart;
use super::client::Client;
use crate::cli::failure::Outcome;
use crate::cli::print;
use std::io::Write;
use std::time::{Duration, Instant};

/// Width of the bars beside tables.
const BAR: usize = 24;

/// Numbered steps on standard output.
#[derive(Default)]
pub struct Story {
    steps: u32,
}

impl Story {
    /// Begins a step.
    pub fn title(&mut self, title: impl AsRef<str>) -> Outcome {
        self.steps += 1;
        self.line(&format!("\n{}. {}", self.steps, title.as_ref()))
    }

    /// Says something.
    pub fn say(&mut self, text: impl AsRef<str>) -> Outcome {
        text.as_ref().lines().try_for_each(|line| self.line(&format!("   {line}")))
    }

    /// Shows a statement.
    pub fn code(&mut self, statement: &str) -> Outcome {
        statement.lines().try_for_each(|line| self.line(&format!("     {line}")))
    }

    /// Asks, and shows the answer as a table; one column is drawn as bars as well.
    pub async fn query(
        &mut self,
        client: &mut Client,
        question: &str,
        sql: &str,
        bars: Option<usize>,
    ) -> Outcome {
        self.line("")?;
        self.say(question)?;
        self.code(sql)?;
        let begin = Instant::now();
        let rows = client.query(sql).await?;
        let took = begin.elapsed();
        let number =
            |row: &Vec<Option<String>>, at: usize| -> Option<f64> { row.get(at)?.as_deref()?.parse().ok() };
        let values: Vec<f64> =
            bars.map(|at| rows.rows.iter().filter_map(|row| number(row, at)).collect()).unwrap_or_default();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // The shortest bar still shows.
        let floor = low - (high - low) / 12.0;
        let mut columns = rows.columns.clone();
        if bars.is_some() {
            columns.push(crate::cli::pg::Column { name: format!("{low:.1} … {high:.1}"), oid: 25 });
        }
        let mut table = print::table(&columns);
        for row in &rows.rows {
            let mut cells: Vec<String> = row.iter().map(|value| short(value.as_deref())).collect();
            if let Some(value) = bars.and_then(|at| number(row, at)) {
                cells.push(chart::bar(value, floor, high, BAR));
            }
            table.add_row(cells);
        }
        let mut text = Vec::new();
        print::print_table(&mut text, &table)?;
        self.say(String::from_utf8_lossy(&text))?;
        self.say(format!("({} rows in {})", rows.rows.len(), millis(took)))
    }

    fn line(&mut self, line: &str) -> Outcome {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", line.trim_end())?;
        Ok(out.flush()?)
    }
}

/// A value without what does not matter: no more than two decimals, no midnight.
fn short(value: Option<&str>) -> String {
    let Some(text) = value else { return "NULL".to_owned() };
    if let Some(day) = text.strip_suffix(" 00:00:00+00") {
        return day.to_owned();
    }
    match text.parse::<f64>() {
        Ok(number) if text.contains('.') => format!("{number:.2}"),
        _ => text.to_owned(),
    }
}

/// A count with its thousands apart.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let lead = digits.len() % 3;
    digits.char_indices().fold(String::new(), |mut text, (at, digit)| {
        if at > 0 && at % 3 == lead {
            text.push(',');
        }
        text.push(digit);
        text
    })
}

/// A duration in milliseconds.
pub fn millis(took: Duration) -> String {
    micros(i64::try_from(took.as_micros()).unwrap_or(i64::MAX))
}

/// Microseconds, shown in milliseconds.
pub fn micros(micros: i64) -> String {
    match micros {
        0..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.0} ms", micros as f64 / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(19_226), "19,226");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(micros(1_449), "1.4 ms");
        assert_eq!(micros(123_456), "123 ms");
        assert_eq!(short(Some("8.123456")), "8.12");
        assert_eq!(short(Some("2016-07-01 00:00:00+00")), "2016-07-01");
        assert_eq!(short(Some("12")), "12");
    }
}
