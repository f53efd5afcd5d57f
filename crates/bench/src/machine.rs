//! What numbers depend on besides the code.

/// One line about this machine.
pub(crate) fn describe() -> String {
    let uname = rustix::system::uname();
    let info = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("", |(_, value)| value)
            .to_owned()
    };
    let processors = info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    format!(
        "Linux {}, {processors} processors ({}), {} GiB of memory",
        uname.release().to_string_lossy(),
        field("model name"),
        kib >> 20
    )
}

/// Forgets all clean pages, directory entries and inodes.
pub(crate) fn drop_caches() -> anyhow::Result<()> {
    rustix::fs::sync();
    Ok(fs_err::write("/proc/sys/vm/drop_caches", "3")?)
}
