//! What "takes traffic" means: one definition for status, guard and every warning.

use super::server::{Server, ServerState};
use super::state::{AdminFlags, AdminState, OperationalState};

/// Tells whether HAProxy gives new traffic to a server of this state.
#[must_use]
pub fn takes_traffic(flags: AdminFlags, operational: OperationalState, weight: u32) -> bool {
    flags.effective() == AdminState::Ready && operational.takes_traffic() && weight > 0
}

impl ServerState {
    /// Tells whether HAProxy gives new traffic to a server of this state.
    #[must_use]
    pub fn takes_traffic(&self) -> bool {
        takes_traffic(self.flags, self.operational, self.weight)
    }
}

impl Server {
    /// Tells whether HAProxy gives new traffic to the server.
    #[must_use]
    pub fn takes_traffic(&self) -> bool {
        !self.is_in_disabled_backend() && self.state.takes_traffic()
    }
}
