//! Takes HAProxy backend servers out of service and puts them back.
#![warn(missing_docs)]

pub mod error;
pub mod name;
pub mod request;
pub mod state;

pub mod discover;

pub mod runtime;
