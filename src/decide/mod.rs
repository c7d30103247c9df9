//! Decides without touching anything: what each server needs, and every reason not to make a change.

pub mod cautions;
pub mod guard;
pub mod missing;
pub mod plan;
pub mod refuse;
pub mod shortfall;
