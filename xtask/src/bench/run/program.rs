//! Programs that are started in containers, each in an image of several layers.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_testkit::images;

/// A program.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name in tables.
    pub(super) name: &'static str,
    /// How its image is built on the base.
    dockerfile: &'static str,
    /// What is run: a path in the image and its arguments. It prints a line when it is ready.
    pub(super) argv: &'static [&'static str],
    /// What a lazy start may take of a pull and a start, at most.
    pub(super) times_most: f64,
}

/// Python, with what a web service would import.
const PYTHON: Program = Program {
    name: "python",
    dockerfile: "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
RUN mkdir /app && echo 'import json, urllib.request, asyncio, sqlite3, email, http.client, decimal, xml.etree.ElementTree; print(\"started\", flush=True)' >/app/main.py
",
    argv: &["/usr/bin/python3", "/app/main.py"],
    times_most: 1.0,
};

/// Node, likewise.
const NODE: Program = Program {
    name: "node",
    dockerfile: "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends nodejs && rm -rf /var/lib/apt/lists/*
RUN mkdir /app && echo 'require(\"http\"); require(\"crypto\"); require(\"zlib\"); require(\"fs\"); console.log(\"started\")' >/app/main.js
",
    argv: &["/usr/bin/node", "/app/main.js"],
    times_most: 1.0,
};

/// Compilers, and what they make; 1 GB. Python, git and a repository are for work on metadata.
pub(super) const COMPILER: Program = Program {
    name: "compiler",
    dockerfile: "FROM scratch
ADD base.tar /
RUN apt-get update -q && apt-get install -q -y --no-install-recommends gcc g++ libc6-dev make git python3 && rm -rf /var/lib/apt/lists/*
RUN apt-get update -q && apt-get install -q -y --no-install-recommends clang llvm && rm -rf /var/lib/apt/lists/*
RUN mkdir -p /src && cp -r /usr/include /src/include && cd /src && git init -q && git add -A && git -c user.name=x -c user.email=x@localhost commit -q -m all
RUN printf '#include <stdio.h>\\nint main(void) { puts(\"started\"); return 0; }\\n' >/src/hello.c
",
    argv: &[
        "/bin/sh",
        "-c",
        "/usr/bin/gcc -o /tmp/hello /src/hello.c && /tmp/hello",
    ],
    times_most: 0.2,
};

impl Program {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [PYTHON, NODE, COMPILER];

    /// An OCI layout with its image, which is built if it is not there.
    pub(super) fn layout(&self) -> Result<PathBuf> {
        let name = format!("run-{}", self.name);
        images::built(&name, self.dockerfile).with_context(|| format!("build {name}"))
    }
}
