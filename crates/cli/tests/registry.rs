//! `draught registry` as a person starts it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use draught_testkit::net::START_MAX;
use draught_testkit::{Process, Scratch};

#[test]
fn it_says_where_it_listens_answers_there_and_ends_when_told() {
    let scratch = Scratch::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_draught"));
    command.arg("--root").arg(scratch.join("root"));
    command.args(["registry", "--listen", "127.0.0.1:0"]);
    let mut registry = Process::start(&mut command, &scratch.join("log")).unwrap();
    let log = scratch.join("log");
    let address = || fs_err::read_to_string(&log).unwrap().trim().to_owned();
    registry
        .wait_until(START_MAX, || !address().is_empty())
        .unwrap();

    let mut connection = TcpStream::connect(address()).unwrap();
    connection
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    assert_eq!(registry.stop().unwrap().code(), Some(0));
    assert!(scratch.join("root/registry").is_dir());
}
