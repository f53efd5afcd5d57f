//! Real processes, really killed.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{BLOCKS, device, fill, open, present};
use draught_testkit::Scratch;

const ROOT: &str = "DRAUGHT_STORE_TEST_ROOT";

/// What the process that will be killed does: fills blocks that are not present, and says so.
fn fill_until_killed(root: &Path, round: u64) {
    let store = open(root, "boot");
    let device = device(&store);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let device = &device;
            scope.spawn(move || {
                for step in 0..BLOCKS {
                    // Neighbours of other threads' blocks, in an order that differs by round.
                    let block = (step * 7 + round * 1_001) % (BLOCKS / 3) * 3 + thread;
                    let range = common::byte_range(&(block..block + 1));
                    if device.is_present(range) {
                        continue;
                    }
                    fill(device, block..block + 1);
                    // One write per line: lines of threads don't mix, none is cut.
                    let line = format!("{block}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                    std::io::stdout().flush().unwrap();
                }
            });
        }
        scope.spawn(|| {
            loop {
                device.sync().unwrap();
            }
        });
    });
}

#[test]
fn what_a_killed_process_marked_is_present_for_the_next() {
    if let Some(root) = env::var_os(ROOT) {
        let round = env::var("DRAUGHT_STORE_TEST_ROUND")
            .unwrap()
            .parse()
            .unwrap();
        return fill_until_killed(Path::new(&root), round);
    }
    let scratch = Scratch::new();
    let mut promised = vec![false; usize::try_from(BLOCKS).unwrap()];
    for round in 0..12_u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "what_a_killed_process_marked_is_present_for_the_next",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(ROOT, scratch.path())
            .env("DRAUGHT_STORE_TEST_ROUND", round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            // What libtest says is not a number.
            let Ok(block) = line.unwrap().parse::<usize>() else {
                continue;
            };
            promised[block] = true;
            said += 1;
            // A different moment each round; what it still said before it died counts too.
            if said == 20 + 35 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(
            said >= 20 + 35 * round,
            "the child ended by itself in round {round}"
        );
        let store = open(scratch.path(), "boot");
        let found = present(&device(&store));
        for (block, _) in promised.iter().enumerate().filter(|(_, said)| **said) {
            assert!(
                found.binary_search(&u64::try_from(block).unwrap()).is_ok(),
                "round {round}: block {block} is lost"
            );
        }
    }
    // And none of this holds what it should not after another boot.
    present(&device(&open(scratch.path(), "other boot")));
}
