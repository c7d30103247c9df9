//! An SSH server on the loopback, with keys and a configuration of its own.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{Folder, PATIENCE, Port, eventually};

/// A host that is reached over SSH, as the user of the tests.
#[derive(Debug)]
pub(crate) struct Sshd {
    folder: Folder,
    port: Port,
    child: Child,
}

impl Sshd {
    /// Starts it; what is run there has this `PATH`.
    pub(crate) fn start(path: &str) -> Self {
        let folder = Folder::new();
        let port = Port::reserve();
        for key in ["host_key", "client_key"] {
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join(key));
            assert!(command.status().expect("ssh-keygen").success(), "no key");
        }
        // Where OpenSSH's server wants an empty folder; a service of the system would make it.
        if nix::unistd::geteuid().is_root() {
            std::fs::create_dir_all("/run/sshd").expect("/run/sshd");
        }
        let place = folder.path().display();
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/client_key.pub\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             SetEnv PATH={path}\nSubsystem sftp internal-sftp\nMaxStartups 100\n",
            port.number()
        );
        let config = folder.write("sshd_config", &config);
        let program = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists());
        let mut command = Command::new(program.expect("sshd"));
        command.args(["-D", "-e", "-f"]).arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("sshd to start");
        eventually(PATIENCE, "sshd to listen", || TcpStream::connect(port.address()).ok());
        Self { folder, port, child }
    }

    /// The variables by which Ansible reaches it, as in an inventory.
    pub(crate) fn variables(&self) -> String {
        let place = self.folder.path().display();
        format!(
            "ansible_host=127.0.0.1 ansible_port={} ansible_ssh_private_key_file={place}/client_key \
             ansible_remote_tmp={place}/tmp ansible_control_path_dir={place} \
             ansible_ssh_args='-F /dev/null -o ControlMaster=auto -o ControlPersist=20s -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'",
            self.port.number()
        )
    }

    /// What a task has left in the folder for temporary files there.
    pub(crate) fn left(&self) -> usize {
        std::fs::read_dir(self.folder.join("tmp")).map_or(0, Iterator::count)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
