//! A small bar chart for the terminal.

use std::io::Write;

use anstyle::AnsiColor;

use super::Output;
use crate::failure::Outcome;

/// Eighths of a character cell.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Prints one bar for each `(label, value)`; negative values and what is no number count as zero.
pub(crate) fn bars(out: Output, to: &mut dyn Write, rows: &[(String, f64)], unit: &str) -> Outcome {
    let label_width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0).min(28);
    let room = usize::from(out.width().unwrap_or(80)).saturating_sub(label_width + unit.len() + 12).clamp(10, 40);
    let largest = rows.iter().map(|(_, value)| *value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    for (label, value) in rows {
        let bar = out.style(AnsiColor::Cyan.on_default(), &bar(*value, largest, room));
        let label: String = label.chars().take(label_width).collect();
        writeln!(to, "  {label:<label_width$} {value:>6.1} {unit} {bar}")?;
    }
    Ok(())
}

fn bar(value: f64, largest: f64, room: usize) -> String {
    if !(value.is_finite() && value > 0.0 && largest > 0.0) {
        return String::new();
    }
    // At most `room` cells of eight: far below what the cast could lose.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let eighths = (value / largest * room as f64 * 8.0).round().max(1.0) as usize;
    let eighths = eighths.min(room * 8);
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_proportional_and_never_overflow() {
        assert_eq!(bar(10.0, 10.0, 4), "████");
        assert_eq!(bar(5.0, 10.0, 4), "██");
        assert_eq!(bar(0.01, 10.0, 4), "▏");
        for odd in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(bar(odd, 10.0, 4), "");
        }
        assert_eq!(bar(20.0, 10.0, 4), "████");
    }
}
