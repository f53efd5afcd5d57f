//! Colours, and the style sheet that names them.
//!
//! Warm is what was touched, from early to late; cool and pale is what was not. The same red that
//! stands for an early touch stands for waiting.

use draught_node::TracePriority;

/// Stops of the scale of first touches, evenly apart, early first.
const TOUCHED: &[(f64, f64, f64)] = &[
    (94.0, 10.0, 54.0),
    (176.0, 28.0, 62.0),
    (229.0, 83.0, 45.0),
    (248.0, 150.0, 50.0),
    (255.0, 208.0, 92.0),
];

/// The colour of what was first touched at this share, 0 to 1, of the time shown.
pub(crate) fn touched(share: f64) -> String {
    // In steps, so that equal times have equal colours and neighbours differ visibly or not at all.
    let share = (share.clamp(0.0, 1.0) * 64.0).round() / 64.0;
    let mut low = 0.0;
    for pair in TOUCHED.windows(2) {
        let [from, to] = pair else { break };
        let part = share * 4.0 - low;
        if part <= 1.0 {
            let mix = |a: f64, b: f64| a + (b - a) * part;
            return hex([mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2)]);
        }
        low += 1.0;
    }
    TOUCHED
        .last()
        .map_or(String::new(), |last| hex([last.0, last.1, last.2]))
}

/// A colour as it is written in SVG.
fn hex(parts: [f64; 3]) -> String {
    let digits = parts.map(|part| {
        let near = |value: &u8| f64::from(*value) + 0.5 > part;
        format!("{:02x}", (0..=u8::MAX).find(near).unwrap_or(u8::MAX))
    });
    format!("#{}", digits.concat())
}

/// The class of a request's bar.
pub(crate) fn class_of(priority: TracePriority) -> &'static str {
    match priority {
        TracePriority::Demand => "demand",
        TracePriority::Prefetch => "prefetch",
        TracePriority::Background => "background",
    }
}

/// The style sheet.
pub(crate) const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px;fill:#212529}
.page{fill:#fff}
.mono,.file,.name{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:11px}
.h1{font-size:21px;font-weight:600}
.h2{font-size:15px;font-weight:600}
.soft{fill:#68717a}
.small{font-size:11px;fill:#68717a}
.big{font-size:19px;font-weight:600}
.warn{fill:#b01c3e;font-weight:600}
.tile{fill:#f4f5f7}
.meter{fill:#dfe3e8}
.full{fill:#2b6cb0}
.grid{stroke:#e6e9ec}
.rule{stroke:#ced4da}
.band{fill:#212529;opacity:.03}
.demand{fill:#e5532d}
.prefetch{fill:#3b82c4}
.background{fill:#9aa7b4}
.failed{fill:url(#failed)}
.wait{fill:#b01c3e}
.rest{fill:#d98a9c}
.curve{fill:none;stroke:#2b6cb0;stroke-width:1.6}
.under{fill:#2b6cb0;opacity:.12}
.halo{stroke:#fff;stroke-width:3px;stroke-linejoin:round;paint-order:stroke}
.on{fill:#fff}
.absent{fill:#e4e7eb}
.ahead{fill:#a9c9e8}
.shared{fill:#cfc3e6}
.tint{opacity:.25}
.hatch{fill:url(#shared);pointer-events:none}
.group{fill:none;stroke:#fff;stroke-width:3;pointer-events:none}
.plate{fill:#fff;opacity:.88;pointer-events:none}
.name{font-size:10px;stroke:#fff;stroke-opacity:.8;stroke-width:2.4px;stroke-linejoin:round;paint-order:stroke;pointer-events:none}
.lit{fill:#fff;stroke:#2b0a18;stroke-opacity:.45}
.place{font-weight:600;pointer-events:none}
.mark{fill:#212529;stroke:#fff;stroke-width:1.5;pointer-events:none}
.rank{font-size:10px;font-weight:600;fill:#fff;pointer-events:none}
.edge{fill:none;stroke:#adb5bd}
";

/// Patterns that the style sheet refers to, and the scale of first touches for the legend.
pub(crate) fn definitions() -> String {
    let mut text = String::from(
        "<defs>\
         <pattern id=\"failed\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"5\" height=\"5\" fill=\"#212529\"/><rect width=\"2\" height=\"5\" fill=\"#ffd43b\"/></pattern>\
         <pattern id=\"shared\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect width=\"1.6\" height=\"6\" fill=\"#5f3dc4\" opacity=\".55\"/></pattern>\
         <linearGradient id=\"touched\">",
    );
    for step in 0_u32..=8 {
        let share = f64::from(step) / 8.0;
        text.push_str(&format!(
            "<stop offset=\"{share}\" stop-color=\"{}\"/>",
            touched(share)
        ));
    }
    text.push_str("</linearGradient></defs>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_goes_from_its_first_to_its_last_stop() {
        assert_eq!(touched(-1.0), "#5e0a36");
        assert_eq!(touched(0.5), "#e5532d");
        assert_eq!(touched(1.0), "#ffd05c");
        assert_eq!(touched(7.0), "#ffd05c");
    }
}
