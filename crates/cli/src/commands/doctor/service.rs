//! systemd's view.

use std::path::Path;
use std::process::Command;

use super::check::Check;

const UNIT: &str = "draught.service";
const SYSTEMD_RUNS: &str = "/run/systemd/system";

pub(crate) fn checks() -> Vec<Check> {
    let what = "systemd";
    if !Path::new(SYSTEMD_RUNS).exists() {
        return vec![Check::hint(
            what,
            "does not run this machine",
            "whoever starts the daemon must start it again when it ends",
        )];
    }
    let mut command = Command::new("systemctl");
    command.args([
        "show",
        UNIT,
        "--property=LoadState,ActiveState,NeedDaemonReload,UnitFileState",
    ]);
    let output = match command.output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return vec![Check::hint(what, error.to_string(), "install systemctl")],
    };
    vec![judge(&output)]
}

fn judge(output: &str) -> Check {
    let what = "systemd";
    let of = |name: &str| {
        let mut lines = output.lines().filter_map(|line| line.split_once('='));
        lines
            .find(|(key, _)| *key == name)
            .map_or("", |(_, value)| value)
    };
    let (load, active) = (of("LoadState"), of("ActiveState"));
    if load != "loaded" {
        return Check::hint(
            what,
            format!(
                "{UNIT} is {}",
                if load.is_empty() { "unknown" } else { load }
            ),
            "draught install writes it; not needed where something else runs the daemon",
        );
    }
    if of("NeedDaemonReload") == "yes" {
        return Check::wrong(
            what,
            format!("{UNIT} changed on disk"),
            "systemctl daemon-reload",
        );
    }
    if active != "active" {
        return Check::wrong(
            what,
            format!("{UNIT} is {active}"),
            format!("systemctl start {UNIT}; its log: journalctl -u {UNIT}"),
        );
    }
    if of("UnitFileState") != "enabled" {
        return Check::hint(
            what,
            format!("{UNIT} is not started at boot"),
            format!("systemctl enable {UNIT}"),
        );
    }
    Check::right(what, format!("{UNIT} is active"))
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn what_systemd_says_is_judged() {
        for (load, active, reload, enabled, expect) in [
            ("loaded", "active", "no", "enabled", State::Right),
            ("loaded", "active", "no", "disabled", State::Hint),
            ("loaded", "failed", "no", "enabled", State::Wrong),
            ("loaded", "active", "yes", "enabled", State::Wrong),
            ("not-found", "inactive", "no", "", State::Hint),
        ] {
            let text = format!(
                "LoadState={load}\nActiveState={active}\nNeedDaemonReload={reload}\nUnitFileState={enabled}\n"
            );
            assert_eq!(judge(&text).state, expect, "{text}");
        }
        assert_eq!(judge("").state, State::Hint);
    }
}
