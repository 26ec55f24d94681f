//! The chart of a stampede: answers by second, and latency percentiles. An SVG without scripts, for light and dark pages.

use std::fmt::Write;

use super::{
    report::{Report, thousands},
    tally::{float, ratio},
};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const PLOT_HEIGHT: f64 = 200.0;
const BARS_TOP: f64 = TOP + PLOT_HEIGHT + 84.0;
const BAR_STEP: f64 = 26.0;
const HEIGHT: f64 = BARS_TOP + 5.0 * BAR_STEP + 20.0;

const STYLE: &str = "\
    svg { font: 13px system-ui, sans-serif; background: #fff }\n\
    .title { font-size: 17px; font-weight: 600 } text { fill: #1f2328 } .muted { fill: #59636e }\n\
    .grid { stroke: #d1d9e0 } .accepted { fill: #1a7f37 } .others { fill: #afb8c1 } .latency { fill: #0969da }\n\
    @media (prefers-color-scheme: dark) {\n\
      svg { background: #0d1117 } text { fill: #f0f6fc } .muted { fill: #9198a1 } .grid { stroke: #3d444d }\n\
      .accepted { fill: #3fb950 } .others { fill: #656c76 } .latency { fill: #4493f8 }\n\
    }";

/// The whole file.
#[must_use]
pub fn svg(report: &Report) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">\n\
         <title>Answers by second and latencies of a stampede</title>\n<style>\n{STYLE}\n</style>\n"
    );
    let title = format!("{} committed orders a second", thousands(report.orders_per_second()));
    text(&mut svg, LEFT, 28.0, "title", "start", &title);
    let form = format!(
        "{} buyers, {} units, {} connections",
        thousands(float(report.buyers as u64)),
        thousands(f64::from(report.plan.units)),
        report.plan.load.in_flight
    );
    text(&mut svg, LEFT, 48.0, "muted", "start", &form);
    answers(&mut svg, report);
    latencies(&mut svg, report);
    svg.push_str("</svg>\n");
    svg
}

/// A column a second: accepted below, everything else on top of it.
fn answers(svg: &mut String, report: &Report) {
    let seconds = &report.tally.seconds;
    let most = seconds.iter().map(|second| second.accepted + second.others).max().unwrap_or_default();
    let top = round_up(float(most));
    for part in [0.0, 0.5, 1.0] {
        let y = TOP + PLOT_HEIGHT * (1.0 - part);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
        text(svg, LEFT - 8.0, y + 4.0, "muted", "end", &thousands(top * part));
    }
    let step = ratio(WIDTH - LEFT - RIGHT, float(seconds.len() as u64));
    for (number, second) in seconds.iter().enumerate() {
        let x = step.mul_add(float(number as u64), LEFT);
        let accepted = PLOT_HEIGHT * ratio(float(second.accepted), top);
        let others = PLOT_HEIGHT * ratio(float(second.others), top);
        let width = step * 0.82;
        rectangle(svg, "accepted", [x, TOP + PLOT_HEIGHT - accepted, width, accepted]);
        rectangle(svg, "others", [x, TOP + PLOT_HEIGHT - accepted - others, width, others]);
    }
    let below = TOP + PLOT_HEIGHT + 18.0;
    text(svg, LEFT, below, "muted", "start", "0 s");
    text(svg, WIDTH - RIGHT, below, "muted", "end", &format!("{} s", seconds.len()));
    rectangle(svg, "accepted", [LEFT + 200.0, below - 10.0, 11.0, 11.0]);
    text(svg, LEFT + 217.0, below, "muted", "start", "accepted a second");
    rectangle(svg, "others", [LEFT + 360.0, below - 10.0, 11.0, 11.0]);
    text(svg, LEFT + 377.0, below, "muted", "start", "other answers a second");
}

/// A bar a percentile.
fn latencies(svg: &mut String, report: &Report) {
    text(svg, LEFT, BARS_TOP - 16.0, "muted", "start", "latency of a purchase");
    let longest = report.tally.latencies.max();
    let room = WIDTH - LEFT - RIGHT - 90.0;
    let mut y = BARS_TOP;
    for (name, ms) in report.tally.latencies.summary() {
        let width = (room * ratio(ms, longest)).max(1.0);
        text(svg, LEFT - 8.0, y + 13.0, "muted", "end", name);
        rectangle(svg, "latency", [LEFT, y, width, 17.0]);
        text(svg, LEFT + width + 8.0, y + 13.0, "", "start", &format!("{ms:.1} ms"));
        y += BAR_STEP;
    }
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn rectangle(svg: &mut String, class: &str, [x, y, width, height]: [f64; 4]) {
    if height > 0.0 {
        let _ = writeln!(svg, "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>");
    }
}

/// The next number of the form 1, 2 or 5 with zeros, for the end of an axis.
fn round_up(value: f64) -> f64 {
    let mut step = 1.0;
    while step * 10.0 < value {
        step *= 10.0;
    }
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * step).find(|end| *end >= value).unwrap_or(step * 10.0)
}

#[cfg(test)]
mod tests {
    use super::{super::report::tests::sample, *};

    #[test]
    fn a_chart_has_a_column_a_second_and_a_bar_a_percentile() {
        let svg = svg(&sample());
        let rectangles = |class: &str| svg.matches(&format!("<rect class=\"{class}\"")).count();
        // Three seconds of the sample have accepted orders, one has a refusal; the rest is the legend.
        assert_eq!((rectangles("accepted"), rectangles("others"), rectangles("latency")), (3 + 1, 1 + 1, 5));
        assert!(svg.contains(">5 committed orders a second</text>") && svg.contains(">10.0 ms</text>"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.0, 1.0, 7.0, 3_200.0, 5_001.0].map(|value| thousands(round_up(value))), ["1", "1", "10", "5,000", "10,000"]);
    }
}
