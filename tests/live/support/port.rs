//! Loopback ports that are a test's own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockname, listen, setsockopt, socket, sockopt,
};

/// A TCP port of 127.0.0.1 that nobody else gets while this value lives.
///
/// The kernel picks it, and a socket that never listens keeps it: connections are refused until somebody of this
/// process's user (this process or an HAProxy, which sets `SO_REUSEPORT` too) listens on it as well.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: OwnedFd,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let reservation = bound(0);
        let number = getsockname::<SockaddrIn>(reservation.as_raw_fd()).expect("the port that was picked").port();
        Self { number, _reservation: reservation }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    /// Listens on it; when the listener is dropped, connections are refused again.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bound(self.number);
        listen(&socket, Backlog::MAXCONN).expect("to listen");
        TcpListener::from(socket)
    }
}

fn bound(port: u16) -> OwnedFd {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket of this process");
    setsockopt(&socket, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
    setsockopt(&socket, sockopt::ReusePort, &true).expect("SO_REUSEPORT");
    let address = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    bind(socket.as_raw_fd(), &address).expect("to bind to a port of the loopback");
    socket
}
