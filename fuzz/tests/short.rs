//! Every target for a moment, the same way every time, and over everything that was ever found.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "it is a test's business to panic"
)]

use std::path::Path;

use draught_fuzz::mutate::{Random, mutate};
use draught_fuzz::{TARGETS, Target};

/// Mutations of each seed: a second for all of them. `DRAUGHT_FUZZ_ROUNDS` asks for another number.
const ROUNDS: u64 = 3000;

fn rounds() -> u64 {
    let asked = std::env::var("DRAUGHT_FUZZ_ROUNDS");
    asked.map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

fn artifacts(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("artifacts")
        .join(target.name);
    let Ok(entries) = fs_err::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .map(|entry| fs_err::read(entry.unwrap().path()).unwrap())
        .collect()
}

#[track_caller]
fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    (target.check)(&[]);
    artifacts(target)
        .iter()
        .for_each(|input| (target.check)(input));
    for (index, seed) in (target.seeds)().iter().enumerate() {
        (target.check)(seed);
        for round in 0..rounds() {
            let mut input = seed.clone();
            mutate(&mut input, &mut Random::new(round << 8 | index as u64));
            let checked = std::panic::catch_unwind(|| (target.check)(&input));
            if checked.is_err() {
                let kept =
                    std::env::temp_dir().join(format!("draught-fuzz-{name}-{index}-{round}"));
                fs_err::write(&kept, &input).unwrap();
                panic!(
                    "{} of {name} breaks an invariant, see above; minimized it belongs into artifacts/{name}",
                    kept.display()
                );
            }
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(run.as_slice(), all);
        }
    };
}

targets! { tar layer extent document location profile erofs bootstrap estargz blob record cache hosts filters }
