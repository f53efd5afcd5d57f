//! Generates the messages and services from `proto/`; no compiler of protocols has to be installed for that.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "content.proto",
        "cri.proto",
        "images.proto",
        "introspection.proto",
        "leases.proto",
        "namespaces.proto",
        "snapshots.proto",
        "types.proto",
        "version.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure()
        .include_file("all.rs")
        .bytes(".containerd.services.content.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
