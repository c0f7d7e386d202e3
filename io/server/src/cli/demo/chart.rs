//! Charts of letters.

/// A bar of up to `width` characters, in eighths: none at `low`, all at `high`.
pub fn bar(value: f64, low: f64, high: f64, width: usize) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let eighths = (share(value, low, high) * (width * 8) as f64).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8]);
    }
    bar
}

/// One character a value, as high as the value is among all.
pub fn spark(values: &[f64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    values.iter().map(|&value| STEPS[(share(value, low, high) * 7.0).round() as usize]).collect()
}

/// Averages of `count` runs of about equal length.
pub fn squeeze(values: &[f64], count: usize) -> Vec<f64> {
    let count = count.min(values.len());
    (0..count)
        .map(|at| {
            let run = &values[at * values.len() / count..(at + 1) * values.len() / count];
            run.iter().sum::<f64>() / run.len() as f64
        })
        .collect()
}

/// Where a value lies between two others, 0 to 1.
fn share(value: f64, low: f64, high: f64) -> f64 {
    if high > low { ((value - low) / (high - low)).clamp(0.0, 1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_grow_in_eighths() {
        assert_eq!(bar(0.0, 0.0, 1.0, 4), "");
        assert_eq!(bar(0.5, 0.0, 1.0, 4), "██");
        assert_eq!(bar(17.0 / 32.0, 0.0, 1.0, 4), "██▏");
        assert_eq!(bar(9.0, 0.0, 1.0, 4), "████");
    }

    #[test]
    fn sparks_span_their_values() {
        assert_eq!(spark(&[1.0, 4.5, 8.0]), "▁▅█");
        assert_eq!(spark(&[3.0, 3.0]), "██");
        assert_eq!(spark(&[]), "");
    }

    #[test]
    fn squeezing_averages() {
        assert_eq!(squeeze(&[1.0, 3.0, 5.0, 7.0], 2), [2.0, 6.0]);
        assert_eq!(squeeze(&[1.0], 5), [1.0]);
    }
}
