//! Whole planners in simulated time.

mod one_image;
mod schedules;
mod sharing;
mod world;
