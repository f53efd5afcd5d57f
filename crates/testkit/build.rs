//! Generates the messages and services of CRI from `proto/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["cri.proto"], ["proto"])?;
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure()
        .build_server(false)
        .include_file("all.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
