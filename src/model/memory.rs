//! Whether there is enough memory, asked before it is needed: to run out of it would end this program without a report,
//! and in the middle of a dump HAProxy 3.2.26 as well.

use std::hint::black_box;

use super::error::{Error, ErrorKind};
use super::name::Address;

/// What must be free before a dump begins, in bytes.
pub const RESERVE: usize = 8 << 20;

/// How much of a dump is read between two looks, in bytes.
const STRIDE: usize = 64 << 10;

/// What a server that was read may need besides until it is in the report, in bytes: its goal, its commands and their
/// replies, how it was read back, what is waited for, and what is said about it.
pub const FOR_A_SERVER: usize = 1536;

/// How many bytes may be needed for each byte of a dump of which everything is kept: its rows, the maps of them while these
/// grow, and the file that is made of them.
pub const FOR_A_BYTE: usize = 8;

/// Tells whether so many bytes could be had now.
#[must_use]
pub fn could_have(bytes: usize) -> bool {
    let mut room = Vec::<u8>::new();
    let is_there = room.try_reserve_exact(bytes).is_ok();
    // Memory that nobody looks at is never asked for in an optimized build.
    black_box(&room);
    is_there
}

/// Makes the failure of reading the servers of a HAProxy that needs more than there is.
#[must_use]
pub fn out_of_memory(address: &Address) -> Error {
    let msg = format!(
        "there is not enough memory for the servers of the HAProxy at {address}; allow this program more, or select fewer servers"
    );
    Error::new(ErrorKind::Resources, msg)
}

/// Watches over a dump of which everything may be kept.
#[derive(Debug, Default)]
pub struct Meter {
    size: usize,
    looked_at: usize,
}

impl Meter {
    /// Notes so many bytes more; tells whether there is memory for as much again, and for the next dump.
    pub fn has_room_after(&mut self, bytes: usize) -> bool {
        self.size = self.size.saturating_add(bytes);
        if self.size.saturating_sub(self.looked_at) < STRIDE {
            return true;
        }
        self.looked_at = self.size;
        could_have(self.size.saturating_mul(FOR_A_BYTE).saturating_add(RESERVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_there_or_not() {
        assert!(could_have(0) && could_have(RESERVE));
        let between_looks = FOR_A_BYTE * STRIDE;
        assert!(RESERVE > between_looks, "{RESERVE} and {between_looks}");
        assert!(!could_have(usize::MAX / 2));
        let error = out_of_memory(&Address::parse("/run/haproxy.sock").unwrap());
        assert_eq!(error.kind, ErrorKind::Resources);
        assert!(error.msg.contains("the HAProxy at /run/haproxy.sock; allow this program more"), "{error}");
    }

    #[test]
    fn room_is_looked_for_now_and_then() {
        let mut meter = Meter { size: usize::MAX / 2, looked_at: usize::MAX / 2 };
        assert!(meter.has_room_after(STRIDE - 1), "not yet");
        assert!(!meter.has_room_after(1), "no machine has so much");
        let mut meter = Meter::default();
        assert!((0..100).all(|_| meter.has_room_after(STRIDE)));
    }
}
