//! Devices on a simulated disk.

mod lives;
mod punching;
