//! The registry before the conformance program of the OCI, which `cargo xtask test --peers registry` installs.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Home, run};

/// A server that ends with the test.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "cargo xtask test --peers registry"]
fn the_conformance_program_finds_no_fault() {
    let program = std::env::var_os("CAS_CONFORMANCE").expect("CAS_CONFORMANCE is not set");
    for version in ["1.1", "dev"] {
        let home = Home::new("[workspace]\n");
        let file = home.path("port");
        let mut command =
            home.cas(&["serve", "--registry", "--allow-deletes", "--listen", "127.0.0.1:0", "--port-file"]);
        let mut server = Server(command.arg(&file).stdout(Stdio::null()).spawn().unwrap());
        let start = Instant::now();
        let port = loop {
            if let Ok(port) = std::fs::read_to_string(&file) {
                break port;
            }
            let is_there = server.0.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60);
            assert!(is_there, "the server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut command = Command::new(&program);
        command.env("OCI_REGISTRY", format!("127.0.0.1:{}", port.trim())).env("OCI_TLS", "disabled");
        command.env("OCI_VERSION", version).env("OCI_REPO1", "conf/one").env("OCI_REPO2", "conf/two");
        // It ends with an error when a test has failed.
        let output = run(command.env("OCI_RESULTS_DIR", home.path("results")).current_dir(home.workspace()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = |name: &str| {
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(name)?.split(':').nth(1))?;
            line.trim().parse::<u32>().ok()
        };
        assert!(count("Pass").is_some_and(|count| count > 800) && count("FAIL") == Some(0), "{text}");
        eprintln!("{version}: {:?} passed, {:?} skipped", count("Pass"), count("Skip"));
    }
}
