//! A plot of some lines as SVG, readable on light and on dark pages.
//!
//! Called by: `report`. It does not know what is plotted.

use std::fmt::Write;

use crate::report::shown;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
/// Room for the labels: left, right, above, below.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 24.0;
const ABOVE: f64 = 48.0;
const BELOW: f64 = 96.0;
/// At most so many steps on each axis.
const STEPS_MAX: f64 = 6.0;
/// Lines' colours, and on dark pages; a line beyond takes the last.
const COLOURS: [(&str, &str); 4] = [
    ("#0b62c4", "#6cb2ff"),
    ("#c2410c", "#ff9d5c"),
    ("#0f766e", "#4fd1c5"),
    ("#7e22ce", "#cfa0ff"),
];

/// One line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// Which colour it has, and whether it is dashed: lines that belong together share one of these.
    pub colour: usize,
    /// Drawn with gaps.
    pub is_dashed: bool,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Lines over two axes that begin at 0.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// What the file's name ends in.
    pub key: String,
    /// Its heading.
    pub title: String,
    /// What is counted to the right, and upwards.
    pub axes: (String, String),
    /// The lines.
    pub lines: Vec<Line>,
}

impl Plot {
    /// The whole file.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::up_to(points().map(|(x, _)| *x).fold(0.0, f64::max));
        let y = Axis::up_to(points().map(|(_, y)| *y).fold(0.0, f64::max));
        let mut text = head(&self.title);
        self.draw_axes(&mut text, &x, &y);
        for (at, line) in self.lines.iter().enumerate() {
            draw_line(&mut text, line, (&x, &y));
            draw_legend(&mut text, line, at);
        }
        text.push_str("</svg>\n");
        text
    }

    fn draw_axes(&self, text: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BELOW);
        for value in y.ticks() {
            let at = up(value, y);
            let _ = writeln!(
                text,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                tick(value)
            );
        }
        for value in x.ticks() {
            let at = along(value, x);
            let _ = writeln!(
                text,
                "<line class=\"axis\" x1=\"{at:.1}\" y1=\"{bottom}\" x2=\"{at:.1}\" y2=\"{}\"/>\n\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 5.0,
                bottom + 20.0,
                tick(value)
            );
        }
        let (middle, centre) = ((LEFT + right) / 2.0, (ABOVE + bottom) / 2.0);
        let _ = writeln!(
            text,
            "<path class=\"axis\" d=\"M{LEFT} {ABOVE}V{bottom}H{right}\"/>\n\
             <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(18 {centre}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            bottom + 40.0,
            escape(&self.axes.0),
            escape(&self.axes.1)
        );
    }
}

fn head(title: &str) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>{0}</title>\n<style>\n\
         .page{{fill:#ffffff}} text{{fill:#1f2328}} .grid{{stroke:#d8dee4}} .axis{{stroke:#57606a;fill:none}}\n",
        escape(title)
    );
    let colours = |of: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        let one = |(at, colour): (usize, &str)| {
            format!(".c{at}{{stroke:{colour};fill:none}} .d{at}{{fill:{colour}}}\n")
        };
        COLOURS.iter().map(of).enumerate().map(one).collect()
    };
    let _ = writeln!(
        text,
        "{}@media (prefers-color-scheme: dark){{\n\
         .page{{fill:#0d1117}} text{{fill:#e6edf3}} .grid{{stroke:#30363d}} .axis{{stroke:#9198a1}}\n{}}}\n</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"15\" font-weight=\"600\">{}</text>",
        colours(|(light, _)| light),
        colours(|(_, dark)| dark),
        escape(title)
    );
    text
}

fn draw_line(text: &mut String, line: &Line, (x, y): (&Axis, &Axis)) {
    let colour = line.colour.min(COLOURS.len() - 1);
    let places: Vec<(f64, f64)> = line
        .points
        .iter()
        .map(|(to_right, upwards)| (along(*to_right, x), up(*upwards, y)))
        .collect();
    let list: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        text,
        "<polyline class=\"c{colour}\" stroke-width=\"2\"{} points=\"{}\"/>",
        dashes(line),
        list.join(" ")
    );
    for (x, y) in places {
        let _ = writeln!(text, "<circle class=\"d{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
    }
}

/// Two in a row, below the axis.
fn draw_legend(text: &mut String, line: &Line, at: usize) {
    let colour = line.colour.min(COLOURS.len() - 1);
    let x = LEFT + (at % 2) as f64 * (WIDTH - LEFT - RIGHT) / 2.0;
    let y = HEIGHT - 34.0 + (at / 2) as f64 * 20.0;
    let _ = writeln!(
        text,
        "<line class=\"c{colour}\" stroke-width=\"2\"{} x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\n\
         <text x=\"{}\" y=\"{}\">{}</text>",
        dashes(line),
        x + 30.0,
        x + 38.0,
        y + 4.0,
        escape(&line.name)
    );
}

fn dashes(line: &Line) -> &'static str {
    if line.is_dashed { " stroke-dasharray=\"7 4\"" } else { "" }
}

fn along(value: f64, axis: &Axis) -> f64 {
    LEFT + value / axis.end * (WIDTH - LEFT - RIGHT)
}

fn up(value: f64, axis: &Axis) -> f64 {
    HEIGHT - BELOW - value / axis.end * (HEIGHT - ABOVE - BELOW)
}

/// From 0 to `end` in round steps.
struct Axis {
    step: f64,
    end: f64,
}

impl Axis {
    fn up_to(greatest: f64) -> Axis {
        let greatest = if greatest > 0.0 { greatest } else { 1.0 };
        let unit = 10_f64.powf((greatest / STEPS_MAX).log10().floor());
        let factors = [1.0, 2.0, 5.0, 10.0];
        let fits = |factor: &&f64| greatest / (unit * **factor) <= STEPS_MAX;
        let step = unit * factors.iter().find(fits).copied().unwrap_or(10.0);
        Axis { step, end: (greatest / step).ceil() * step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step).round() as u32;
        (0..=count).map(|at| f64::from(at) * self.step)
    }
}

fn tick(value: f64) -> String {
    if value < 10_000.0 { format!("{value}") } else { shown(value) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_ends_at_a_round_number_that_holds_the_greatest() {
        for (greatest, step, end) in
            [(1_000_000.0, 200_000.0, 1_000_000.0), (37.0, 10.0, 40.0), (0.0, 0.2, 1.0)]
        {
            let axis = Axis::up_to(greatest);
            assert!((axis.step - step).abs() < 1e-9 && (axis.end - end).abs() < 1e-9, "{greatest}");
        }
    }

    #[test]
    fn lines_axes_and_names_are_in_the_file() {
        let line = Line {
            name: "a < b".to_string(),
            colour: 1,
            is_dashed: true,
            points: vec![(0.0, 0.0), (100.0, 50.0)],
        };
        let axes = ("znodes".to_string(), "MB".to_string());
        let plot = Plot { key: String::new(), title: "t".to_string(), axes, lines: vec![line] };
        let svg = plot.svg();
        assert!(svg.contains("points=\"80.0,344.0 736.0,48.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">znodes<") && svg.contains(">MB<"));
        assert!(svg.contains("stroke-dasharray") && svg.contains("prefers-color-scheme: dark"));
    }
}
