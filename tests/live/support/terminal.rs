//! A terminal as a person has one.

use super::python;

/// Runs the program in the later words with a terminal of 80 columns for the descriptors in the first one, and passes on
/// what the terminal gets. With standard input among them, it is the program's controlling terminal.
const SCRIPT: &str = r#"
import fcntl, os, pty, struct, sys, termios
descriptors = [int(digit) for digit in sys.argv[1]]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
child = os.fork()
if child == 0:
    os.close(master)
    if 0 in descriptors:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for descriptor in descriptors:
        os.dup2(slave, descriptor)
    os.close(slave)
    os.execvp(sys.argv[2], sys.argv[2:])
os.close(slave)
while True:
    try:
        data = os.read(master, 65536)
    except OSError:
        break
    if not data:
        break
    os.write(descriptors[-1], data)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// What of a program is on the terminal. What the terminal gets goes to the last of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnTerminal {
    Stdout,
    Stderr,
    /// Standard error and standard output.
    Both,
    /// These and standard input.
    Everything,
}

impl OnTerminal {
    /// The words before a command line that is to run so.
    pub(crate) fn words(self) -> [&'static str; 4] {
        let descriptors = match self {
            Self::Stdout => "1",
            Self::Stderr => "2",
            Self::Both => "21",
            Self::Everything => "021",
        };
        [python(), "-c", SCRIPT, descriptors]
    }
}
