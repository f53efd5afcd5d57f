//! Programs that are started in containers, each in an image of several layers.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_testkit::images;

/// A program.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in tables.
    pub(super) name: &'static str,
    image: Image,
    /// What is run: a path in the image and its arguments. It prints a line when it is ready.
    pub(super) argv: &'static [&'static str],
    /// What a lazy start may take of a pull and a start, at most.
    pub(super) times_most: f64,
}

/// An image.
#[derive(Debug, Clone, Copy)]
enum Image {
    /// Some programs of this machine, in one layer.
    Tools,
    /// Built on the base: its name among those that are kept, and how.
    Built(&'static str, &'static str),
}

/// What is too small to gain anything.
const TINY: Program = Program {
    name: "tools",
    image: Image::Tools,
    argv: &["/bin/sh", "-c", "echo started"],
    times_most: 1.1,
};

/// What reads all of its image, and gains nothing either.
const READER: Program = Program {
    name: "reader",
    image: PYTHON.image,
    argv: &[
        "/bin/sh",
        "-c",
        "find / -xdev -type f -exec cat {} + >/dev/null; echo read",
    ],
    times_most: 1.1,
};

/// Python, with what a web service would import.
const PYTHON: Program = Program {
    name: "python",
    image: Image::Built(
        "run-python",
        "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
RUN mkdir /app && echo 'import json, urllib.request, asyncio, sqlite3, email, http.client, decimal, xml.etree.ElementTree; print(\"started\", flush=True)' >/app/main.py
",
    ),
    argv: &["/usr/bin/python3", "/app/main.py"],
    times_most: 1.0,
};

/// Node, likewise.
const NODE: Program = Program {
    name: "node",
    image: Image::Built(
        "run-node",
        "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends nodejs && rm -rf /var/lib/apt/lists/*
RUN mkdir /app && echo 'require(\"http\"); require(\"crypto\"); require(\"zlib\"); require(\"fs\"); console.log(\"started\")' >/app/main.js
",
    ),
    argv: &["/usr/bin/node", "/app/main.js"],
    times_most: 1.0,
};

/// Compilers, and what they make; 1 GB. Python, git and a repository are for work on metadata.
pub(super) const COMPILER: Program = Program {
    name: "compiler",
    image: Image::Built(
        "run-compiler",
        "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends gcc g++ libc6-dev make git python3 && rm -rf /var/lib/apt/lists/*
RUN apt-get update -q && apt-get install -q -y --no-install-recommends clang llvm && rm -rf /var/lib/apt/lists/*
RUN mkdir -p /src && cp -r /usr/include /src/include && cd /src && git init -q && git add -A && git -c user.name=x -c user.email=x@localhost commit -q -m all
RUN printf '#include <stdio.h>\\nint main(void) { puts(\"started\"); return 0; }\\n' >/src/hello.c
",
    ),
    argv: &[
        "/bin/sh",
        "-c",
        "/usr/bin/gcc -o /tmp/hello /src/hello.c && /tmp/hello",
    ],
    times_most: 0.2,
};

impl Program {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [TINY, READER, PYTHON, NODE, COMPILER];

    /// An OCI layout with its image, which is built if it is not there.
    pub(super) fn layout(&self) -> Result<PathBuf> {
        match self.image {
            Image::Tools => images::tools().context("make an image of tools"),
            Image::Built(name, dockerfile) => {
                images::built(name, dockerfile).with_context(|| format!("build {name}"))
            }
        }
    }
}
