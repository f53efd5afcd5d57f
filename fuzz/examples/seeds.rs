//! Writes a target's seeds to a directory, for libFuzzer to start from: `seeds TARGET DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

use draught_fuzz::TARGETS;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        return ExitCode::from(2);
    };
    let directory = args
        .next()
        .map_or_else(|| PathBuf::from(name), PathBuf::from);
    let written = fs_err::create_dir_all(&directory).and_then(|()| {
        (target.seeds)()
            .iter()
            .enumerate()
            .try_for_each(|(index, seed)| fs_err::write(directory.join(index.to_string()), seed))
    });
    ExitCode::from(u8::from(written.is_err()))
}
