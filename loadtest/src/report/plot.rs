//! Plots as SVG that stands in a page: its colours are the page's, its text is text.

use std::fmt::Write;

use super::units::{count, ms};
use crate::load::figures::{Histogram, quantile_ms};

/// What a percentile plot shows.
pub const SHARES: [f64; 14] =
    [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0];
/// Most points of a line: what is more is put together.
const POINTS: usize = 600;
/// Most points that say their value when they are pointed at.
const TOLD: usize = 240;

/// Where a plot lies in its picture.
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Frame {
    fn new(width: f64, height: f64) -> Self {
        Self { width, height, left: 62.0, top: 12.0, right: width - 18.0, bottom: height - 40.0 }
    }

    /// Shares of the width and the height, from the left and from below.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + x.clamp(0.0, 1.0) * (self.right - self.left),
            self.bottom - y.clamp(0.0, 1.0) * (self.bottom - self.top),
        )
    }

    fn begin(&self, label: &str) -> String {
        format!(
            "<svg class=\"plot\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n",
            self.width,
            self.height,
            escaped(label)
        )
    }

    fn line_across(&self, svg: &mut String, y: f64, label: &str) {
        let (x1, y) = self.at(0.0, y);
        // Writing to a text does not fail; so everywhere here.
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x1:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            self.right
        );
        let _ = writeln!(
            svg,
            "<text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            x1 - 8.0,
            y + 4.0,
            escaped(label)
        );
    }

    fn mark_below(&self, svg: &mut String, x: f64, label: &str, line: bool) {
        let (x, y) = self.at(x, 0.0);
        if line {
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{y:.1}\"/>",
                self.top
            );
        }
        let _ =
            writeln!(svg, "<text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>", y + 17.0, escaped(label));
    }

    fn caption(&self, svg: &mut String, text: &str) {
        let x = f64::midpoint(self.left, self.right);
        let _ = writeln!(
            svg,
            "<text class=\"caption\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            self.height - 5.0,
            escaped(text)
        );
    }

    /// A line through points, broken where one is missing; where there are few, each says its value.
    fn curve(&self, svg: &mut String, points: &[Option<(f64, f64, String)>], area: bool) {
        let told = points.len() <= TOLD;
        for run in points.split(Option::is_none).filter(|run| !run.is_empty()) {
            let run: Vec<(f64, f64)> = run.iter().flatten().map(|(x, y, _)| self.at(*x, *y)).collect();
            let path = run.iter().fold(String::new(), |mut path, (x, y)| {
                let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
                path
            });
            let (first, last) = (run[0].0, run[run.len() - 1].0);
            if area && run.len() > 1 {
                let low = self.bottom;
                let _ = writeln!(
                    svg,
                    "<path class=\"area\" d=\"{path}L{last:.1} {low:.1}L{first:.1} {low:.1}Z\"/>"
                );
            }
            if run.len() > 1 {
                let _ = writeln!(svg, "<path class=\"curve\" d=\"{path}\"/>");
            } else {
                let _ =
                    writeln!(svg, "<circle class=\"dot\" cx=\"{first:.1}\" cy=\"{:.1}\" r=\"3\"/>", run[0].1);
            }
        }
        for (x, y, says) in points.iter().flatten().filter(|_| told) {
            let (x, y) = self.at(*x, *y);
            let says = escaped(says);
            let _ = writeln!(
                svg,
                "<circle class=\"hit\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\"><title>{says}</title></circle>"
            );
        }
    }
}

/// Text as it may stand in HTML and SVG.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A step that divides so much into about four, of 1, 2 or 5 times a power of ten.
fn step(most: f64) -> f64 {
    let rough = (most / 4.0).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let times =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|times| times * power >= rough * 0.999).unwrap_or(10.0);
    times * power
}

/// How late how many were: the share on a scale on which each further nine is as wide, the latency on a logarithmic one.
/// `None` where there is nothing.
#[must_use]
pub fn percentiles(latency: &Histogram) -> Option<String> {
    if latency.is_empty() {
        return None;
    }
    let frame = Frame::new(880.0, 300.0);
    // As many nines as there are measurements for.
    let nines = (latency.len() as f64).log10().clamp(2.0, 6.0);
    let place = |share: f64| if share >= 1.0 { 1.0 } else { -(1.0 - share).log10() / nines };
    let (least, most) = (quantile_ms(latency, 0.0)?.max(0.001), quantile_ms(latency, 1.0)?.max(0.002));
    let low = (least.log10() + 1e-9).floor();
    let high = (most.log10() - 1e-9).ceil().max(low + 1.0);
    let height = |ms: f64| (ms.max(0.001).log10() - low) / (high - low);
    let mut svg = frame.begin("Latency by percentile");
    let mut power = low;
    while power <= high {
        let value = 10f64.powf(power);
        frame.line_across(&mut svg, height(value), &tick(value));
        for half in [2.0, 5.0].into_iter().filter(|_| power < high && high - low <= 3.0) {
            frame.line_across(&mut svg, height(half * value), &tick(half * value));
        }
        power += 1.0;
    }
    for (share, label) in [
        (0.0, "0 %"),
        (0.5, "50 %"),
        (0.9, "90 %"),
        (0.99, "99 %"),
        (0.999, "99.9 %"),
        (0.9999, "99.99 %"),
        (0.99999, "99.999 %"),
    ] {
        // The end is the last one's place.
        if place(share) < 0.94 {
            frame.mark_below(&mut svg, place(share), label, true);
        }
    }
    frame.mark_below(&mut svg, 1.0, "max", true);
    frame.caption(&mut svg, "percentile: each further nine is as wide");
    let mut points = Vec::new();
    let steps = 160;
    for at in 0..=steps {
        let place = f64::from(at) / f64::from(steps);
        let share = if at == steps { 1.0 } else { 1.0 - 10f64.powf(-place * nines) };
        let value = quantile_ms(latency, share)?;
        points.push(Some((place, height(value), format!("{:.4} %: {}", share * 100.0, ms(value)))));
    }
    frame.curve(&mut svg, &points, true);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A latency at an axis, without figures that say nothing.
fn tick(value: f64) -> String {
    match value {
        v if v >= 1_000.0 => format!("{} s", trimmed(v / 1e3)),
        v if v < 1.0 => format!("{} µs", trimmed(v * 1e3)),
        v => format!("{} ms", trimmed(v)),
    }
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a plot over time shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// So many a second.
    Rate,
    /// Latency, ms.
    Latency,
}

/// A value for every second; those that are put together show their highest. `None` where there is nothing.
#[must_use]
pub fn over_time(label: &str, shows: Shows, values: &[Option<f64>]) -> Option<String> {
    let most = values.iter().flatten().copied().reduce(f64::max)?;
    let frame = Frame::new(450.0, 215.0);
    let unit = step(most.max(1e-3));
    let top = (most.max(1e-3) / unit).ceil() * unit;
    let mut svg = frame.begin(label);
    let mut value = 0.0;
    while value <= top * 1.001 {
        let text = match shows {
            Shows::Rate if value == 0.0 => "0".into(),
            Shows::Rate => short(value),
            Shows::Latency if value == 0.0 => "0".into(),
            Shows::Latency => tick(value),
        };
        frame.line_across(&mut svg, value / top, &text);
        value += unit;
    }
    let seconds = values.len();
    let place = |second: f64| if seconds > 1 { (second - 1.0) / (seconds - 1) as f64 } else { 0.5 };
    let stride = (step(seconds as f64 * 0.6) as usize).max(1);
    let first = (stride > 1).then_some(1);
    for second in first.into_iter().chain((stride..=seconds).step_by(stride)) {
        frame.mark_below(&mut svg, place(second as f64), &second.to_string(), false);
    }
    frame.caption(&mut svg, "second");
    let size = seconds.div_ceil(POINTS).max(1);
    let points: Vec<_> = values
        .chunks(size)
        .enumerate()
        .map(|(number, some)| {
            let highest = some.iter().flatten().copied().reduce(f64::max)?;
            let second = (number * size + 1) as f64;
            let text = if shows == Shows::Rate { count(highest.round()) } else { ms(highest) };
            Some((place(second), highest / top, format!("second {second}: {text}")))
        })
        .collect();
    frame.curve(&mut svg, &points, true);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// A rate at an axis.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", trimmed(v / 1e6)),
        v if v >= 1e3 => format!("{} k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::figures::histogram;

    #[test]
    fn nothing_gives_no_plot() {
        assert_eq!(percentiles(&histogram().unwrap()), None);
        assert_eq!(over_time("x", Shows::Rate, &[None, None]), None);
    }

    #[test]
    fn plots_stay_within_their_picture() {
        let mut latency = histogram().unwrap();
        for us in [1, 80, 900, 1_000, 1_500, 40_000, 59_000_000] {
            latency.record(us).unwrap();
        }
        let hour: Vec<Option<f64>> = (0..3_600).map(|s| (s % 7 > 0).then_some(f64::from(s))).collect();
        for svg in [
            percentiles(&latency).unwrap(),
            over_time("a", Shows::Latency, &[Some(0.0)]).unwrap(),
            over_time("a < b", Shows::Rate, &[Some(1e6), None, Some(2.0)]).unwrap(),
            over_time("a", Shows::Rate, &hour).unwrap(),
        ] {
            assert!(svg.len() < 60_000, "{}", svg.len());
            assert!(svg.contains("viewBox=\"0 0 ") && svg.trim_end().ends_with("</svg>"));
            assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("a < b"), "{svg}");
            let box_of = svg.split("viewBox=\"0 0 ").nth(1).unwrap();
            let width: f64 = box_of.split(' ').next().unwrap().parse().unwrap();
            for part in svg.split(" x=\"").chain(svg.split(" cx=\"")).filter(|part| !part.starts_with("<svg"))
            {
                let x: f64 = part.split('"').next().unwrap().parse().unwrap();
                assert!((0.0..=width).contains(&x), "{x}");
            }
        }
    }

    #[test]
    fn steps_are_round() {
        for (most, is) in [(4.0, 1.0), (7.0, 2.0), (10.0, 5.0), (40.0, 10.0), (0.3, 0.1)] {
            assert!((step(most) - is).abs() < is / 1e6, "{most}: {}", step(most));
        }
        assert_eq!((tick(0.2), tick(20.0), tick(2_000.0)), ("200 µs".into(), "20 ms".into(), "2 s".into()));
    }
}
