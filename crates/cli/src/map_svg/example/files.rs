//! The files of an image that looks like many.

use draught_node::TraceArea;

use super::parts::area;

/// Directories of an image like many, with names and sizes of what is in them: how many files, the
/// parts of their names, and about how large they are.
const DIRS: &[(&str, u32, &[&str], u64)] = &[
    (
        "usr/bin",
        190,
        &[
            "apt", "awk", "base", "cat", "chfn", "curl", "diff", "find", "git", "perl", "sort",
            "tar", "xz",
        ],
        90_000,
    ),
    (
        "usr/sbin",
        70,
        &["add", "chroot", "fsck", "ld", "mk", "pam", "user"],
        60_000,
    ),
    (
        "usr/lib/x86_64-linux-gnu",
        210,
        &[
            "libacl", "libapt", "libbz2", "libcurl", "libdb", "libffi", "libgmp", "libkrb5",
            "libnss", "libsasl", "libtinfo", "libxml2",
        ],
        260_000,
    ),
    (
        "usr/lib/git-core",
        90,
        &["git-add", "git-fetch", "git-log", "git-merge", "git-remote"],
        150_000,
    ),
    (
        "usr/share/doc",
        260,
        &["copyright", "changelog", "NEWS"],
        9_000,
    ),
    (
        "usr/share/locale",
        180,
        &["de.mo", "fr.mo", "ja.mo", "pt.mo", "zh.mo"],
        30_000,
    ),
    (
        "usr/share/perl/5.36.0",
        110,
        &["CPAN", "Encode", "Module", "Pod", "Test", "unicore"],
        22_000,
    ),
    (
        "usr/local/lib/python3.12",
        210,
        &[
            "argparse",
            "ast",
            "codecs",
            "datetime",
            "enum",
            "functools",
            "inspect",
            "os",
            "re",
            "typing",
        ],
        34_000,
    ),
    (
        "usr/local/lib/python3.12/asyncio",
        34,
        &["base_events", "events", "locks", "queues", "tasks"],
        22_000,
    ),
    (
        "usr/local/lib/python3.12/encodings",
        90,
        &["ascii", "cp", "iso8859", "mac", "utf"],
        9_000,
    ),
    (
        "usr/local/lib/python3.12/lib-dynload",
        66,
        &[
            "_asyncio", "_bisect", "_ctypes", "_hashlib", "_json", "_ssl",
        ],
        80_000,
    ),
    (
        "usr/local/lib/python3.12/site-packages/numpy",
        160,
        &["core", "fft", "linalg", "ma", "random"],
        60_000,
    ),
    (
        "usr/local/lib/python3.12/site-packages/pandas",
        190,
        &["core", "io", "plotting", "tests", "tseries"],
        70_000,
    ),
    (
        "usr/local/lib/python3.12/site-packages/sqlalchemy",
        130,
        &["dialects", "engine", "orm", "pool", "sql"],
        40_000,
    ),
    (
        "usr/local/lib/python3.12/site-packages/pydantic",
        70,
        &["fields", "main", "types", "validators"],
        24_000,
    ),
    (
        "usr/local/lib/python3.12/test",
        90,
        &["test_ast", "test_io", "test_set", "test_ssl"],
        45_000,
    ),
    (
        "etc",
        90,
        &["apt", "default", "init", "pam", "profile", "ssl"],
        1200,
    ),
    (
        "etc/ssl/certs",
        80,
        &["Amazon", "DigiCert", "GlobalSign", "ISRG"],
        1500,
    ),
    (
        "var/lib/dpkg/info",
        240,
        &["list", "md5sums", "postinst", "triggers"],
        3000,
    ),
    (
        "srv/app",
        60,
        &["api", "handlers", "models", "settings", "tasks"],
        9_000,
    ),
    (
        "srv/app/static",
        50,
        &["app", "chunk", "logo", "vendor"],
        120_000,
    ),
];

/// Files of note: path, size, and when a start reaches it, in steps; and how much of it it reads.
const NOTED: &[(&str, u64, Option<u64>, u64)] = &[
    (
        "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        210_000,
        Some(0),
        100,
    ),
    ("usr/local/bin/python3.12", 14_400, Some(1), 100),
    (
        "usr/local/lib/libpython3.12.so.1.0",
        22_100_000,
        Some(2),
        45,
    ),
    ("usr/lib/x86_64-linux-gnu/libc.so.6", 1_920_000, Some(3), 80),
    ("usr/lib/x86_64-linux-gnu/libm.so.6", 910_000, Some(4), 30),
    ("usr/local/lib/python312.zip", 3_300_000, Some(7), 20),
    (
        "usr/lib/x86_64-linux-gnu/libcrypto.so.3",
        4_700_000,
        Some(90),
        60,
    ),
    (
        "usr/lib/x86_64-linux-gnu/libssl.so.3",
        690_000,
        Some(91),
        80,
    ),
    (
        "usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30",
        2_200_000,
        Some(120),
        40,
    ),
    (
        "usr/lib/x86_64-linux-gnu/libopenblas64_p-r0.so",
        34_900_000,
        Some(128),
        35,
    ),
    (
        "usr/local/lib/python3.12/site-packages/numpy/core/_multiarray_umath.so",
        7_400_000,
        Some(124),
        70,
    ),
    (
        "usr/local/lib/python3.12/site-packages/pandas/_libs/hashtable.so",
        2_100_000,
        Some(150),
        60,
    ),
    (
        "usr/local/lib/python3.12/site-packages/pandas/_libs/algos.so",
        2_000_000,
        Some(158),
        50,
    ),
    (
        "usr/local/lib/python3.12/site-packages/pydantic/_pydantic_core.so",
        4_600_000,
        Some(196),
        55,
    ),
    ("usr/lib/locale/C.utf8/LC_CTYPE", 350_000, Some(12), 100),
    (
        "usr/lib/x86_64-linux-gnu/libicudata.so.72",
        31_200_000,
        None,
        0,
    ),
    ("usr/lib/gcc/x86_64-linux-gnu/12/cc1", 33_100_000, None, 0),
    (
        "usr/lib/gcc/x86_64-linux-gnu/12/cc1plus",
        34_800_000,
        None,
        0,
    ),
    ("usr/lib/gcc/x86_64-linux-gnu/12/lto1", 32_300_000, None, 0),
    (
        "usr/lib/x86_64-linux-gnu/libLLVM-15.so.1",
        64_100_000,
        None,
        0,
    ),
    (
        "usr/local/lib/python3.12/site-packages/scipy.libs/libopenblas.so",
        34_900_000,
        None,
        0,
    ),
    ("usr/bin/perl", 3_700_000, None, 0),
    ("srv/app/static/model.onnx", 24_500_000, Some(228), 100),
];

/// What makes more names of a name.
const MORE: &[&str] = &[
    "", "_core", "_base", "_utils", "_types", "_io", "_compat", "_impl", "_config", "_tools",
    "_cache", "_hooks", "_main", "_error", "_proxy", "_state", "_text", "_tree", "_view",
    "_writer", "_reader", "_index", "_lock", "_pool",
];

/// Numbers that look like chance and are always the same (xorshift, Marsaglia 2003).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A file; in which step a start touches it, if it does; and how much of it, in percent.
pub(crate) type Planned = (TraceArea, Option<u64>, u64);

/// Files of an image, and the order in which a start touches some of them.
pub(crate) fn files(dice: &mut Dice) -> Vec<Planned> {
    let mut files = Vec::new();
    for (dir, count, names, size) in DIRS {
        for at in 0..*count {
            let name = names[usize::try_from(at).unwrap() % names.len()];
            let dot = name.find('.').is_none();
            let end = match *dir {
                dir if dir.contains("python") && dot => ".py",
                dir if dir.ends_with("linux-gnu") => ".so.1",
                _ => "",
            };
            let round = usize::try_from(at).unwrap() / names.len();
            let more = MORE.get(round).map(|more| (*more).to_owned());
            let more = more.unwrap_or_else(|| format!("{round}"));
            let name = format!("{name}{more}{end}");
            let odds = match *dir {
                dir if dir.starts_with("srv/app/static") => 0,
                dir if dir.starts_with("srv/app") => 55,
                dir if dir.ends_with("python3.12") || dir.ends_with("lib-dynload") => 28,
                dir if dir.contains("site-packages") => 14,
                dir if dir.ends_with("linux-gnu") => 10,
                "etc" => 6,
                _ => 0,
            };
            let step = match *dir {
                dir if dir.contains("srv") => 200 + dice.below(40),
                dir if dir.contains("pandas") => 140 + dice.below(40),
                dir if dir.contains("numpy") => 120 + dice.below(25),
                dir if dir.contains("sqlalchemy") => 170 + dice.below(25),
                dir if dir.contains("pydantic") => 190 + dice.below(15),
                dir if dir.contains("python") => 8 + dice.below(110),
                _ => dice.below(100),
            };
            let touched = (dice.below(100) < odds).then_some(step);
            // Most are small, some are large.
            let spread = 1 + dice.below(8) * dice.below(8) * dice.below(8);
            let bytes = size * spread / 40 + dice.below(3000) + 1;
            files.push((area(&format!("{dir}/{name}"), bytes), touched, 100));
        }
    }
    for (path, bytes, step, percent) in NOTED {
        files.push((area(path, *bytes), *step, *percent));
    }
    files.sort_by(|a, b| a.0.path.split('/').cmp(b.0.path.split('/')));
    files
}
