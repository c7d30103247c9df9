//! The scripted socket itself: it does to a client what no real HAProxy can be made to do.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::{Folder, Haproxy, Scripted, Session, Step, Test, TestResult, ask, on_newest};

pub(crate) fn tests() -> Vec<Test> {
    on_newest![
        scripted_socket_follows_its_script,
        scripted_socket_tells_what_went_wrong,
        scripted_socket_hangs_and_floods
    ]
}

fn scripted_socket_follows_its_script(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let greeting = [Step::Expect("prompt"), Step::send("\n> ")];
    let first = [Step::Expect("show info"), Step::Trickle(b"Pid: 1\n\n> ".to_vec()), Step::Expect("quit"), Step::Close];
    let second = [Step::ExpectPrefix("show "), Step::Sleep(Duration::from_millis(50)), Step::send("half a re")];
    let scripts = vec![[greeting.as_slice(), &first].concat(), second.to_vec()];
    let socket = Scripted::start(&folder.join("http.sock"), scripts);
    let mut session = Session::open(&socket.socket);
    assert_eq!(session.ask("show info"), "Pid: 1\n");
    session.send("quit");
    assert_eq!(ask(&socket.socket, "show stat")?, b"half a re");
    assert_eq!(socket.connections(), [vec!["prompt", "show info", "quit"], vec!["show stat"]]);
    assert_eq!(socket.faults(), Vec::<String>::new());
    Ok(())
}

fn scripted_socket_tells_what_went_wrong(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let socket = Scripted::start(&folder.join("http.sock"), vec![vec![Step::Expect("show info")]]);
    assert_eq!(ask(&socket.socket, "show stat")?, b"");
    let mut more = UnixStream::connect(&socket.socket)?;
    assert_eq!(more.read(&mut [0; 8])?, 0);
    let faults = ["connection 0: expected \"show info\", got \"show stat\"", "connection 1 is one too many"];
    let mut seen = socket.faults();
    seen.sort();
    assert_eq!(seen, faults);
    Ok(())
}

fn scripted_socket_hangs_and_floods(_: &Haproxy) -> TestResult {
    let folder = Folder::new();
    let scripts = vec![vec![Step::AnyLine, Step::Flood(b"more\n".to_vec())], vec![Step::Hang]];
    let socket = Scripted::start_repeating(&folder.join("http.sock"), scripts);
    let mut flooded = UnixStream::connect(&socket.socket)?;
    flooded.write_all(b"show stat\n")?;
    flooded.read_exact(&mut vec![0; 1_000_000])?;
    drop(flooded);
    for _ in 0..2 {
        let mut silent = UnixStream::connect(&socket.socket)?;
        silent.set_read_timeout(Some(Duration::from_millis(100)))?;
        let started = Instant::now();
        assert!(silent.read(&mut [0; 8]).is_err());
        assert!(started.elapsed() >= Duration::from_millis(90));
    }
    Ok(())
}
