//! Time: deadlines and pauses, times as people write them, signals that end a run, and work done side by side.

pub mod clock;
pub mod deadline;
pub mod expiry;
pub mod interrupt;
pub mod side_by_side;
