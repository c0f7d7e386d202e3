//! The sea temperatures that the demo brings along.

use crate::cli::failure::{Failure, Outcome};

/// Half-hourly, from a buoy on the Western Maine Shelf; its origin stands in `data/README.md`.
const CSV: &str = include_str!("../../../data/sea_surface_temperature.csv");

/// The buoy.
pub const DEVICE: &str = "neracoos-b01";
/// What it measures.
pub const METRIC: &str = "sea_temperature";

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Its place in the series, from 1.
    pub seq: i64,
    /// Seconds since 1970.
    pub ts: i64,
    /// Degrees Celsius.
    pub celsius: f64,
}

/// All of them, in the order of their times.
pub fn readings() -> Outcome<Vec<Reading>> {
    let mut readings = Vec::with_capacity(20_000);
    for (line, text) in CSV.lines().enumerate().skip(1) {
        let wrong =
            |why: String| Failure::new(format!("sea_surface_temperature.csv, line {}: {why}", line + 1));
        let (time, celsius) = text.split_once(',').ok_or_else(|| wrong("no comma".into()))?;
        let time: jiff::Timestamp = time.parse().map_err(|error: jiff::Error| wrong(error.to_string()))?;
        let celsius = celsius.trim().parse().map_err(|_| wrong(format!("{celsius:?} is no number")))?;
        readings.push(Reading { seq: line as i64, ts: time.as_second(), celsius });
    }
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_whole_and_in_order() {
        let readings = readings().unwrap();
        assert_eq!(readings.len(), 19_226);
        assert_eq!(readings[0], Reading { seq: 1, ts: 1_455_494_400, celsius: 4.929 });
        assert!(readings.windows(2).all(|pair| pair[0].ts <= pair[1].ts && pair[0].seq + 1 == pair[1].seq));
        assert!(readings.iter().all(|reading| (0.0..30.0).contains(&reading.celsius)));
    }
}
