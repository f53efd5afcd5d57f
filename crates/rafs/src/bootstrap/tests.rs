//! Bootstraps written and read back, and bytes that are none.
