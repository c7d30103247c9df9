//! Takes HAProxy backend servers out of service and puts them back.
#![warn(missing_docs)]

pub mod discover;
pub mod error;
pub mod name;
