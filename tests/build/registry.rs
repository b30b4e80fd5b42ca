//! Registries of npm and cargo with packages that a test makes: folders of files, or a server on loopback.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use cas_digest::{Digest, DigestFunction};

/// Name, version, and files beside the manifest.
pub(crate) type Made<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A gzipped tar of files below one folder; a content that begins with `#!` is executable.
pub(crate) fn archive(folder: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let place = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = place.path().join(folder).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let output = Command::new("tar")
        .arg("-C")
        .arg(place.path())
        .args(["--sort=name", "--mtime=@0", "-czf", "-", folder])
        .output()
        .unwrap();
    assert!(output.status.success());
    output.stdout
}

/// The tarball of an npm package and its integrity; `manifest` is what its `package.json` has beside name and version.
pub(crate) fn npm_package(made: Made<'_>, manifest: &str) -> (Vec<u8>, String) {
    let (name, version, files) = made;
    let manifest = format!("{{\"name\": \"{name}\", \"version\": \"{version}\"{manifest}}}");
    let mut all = vec![("package.json", manifest.as_str())];
    all.extend(files);
    let bytes = archive("package", &all);
    let integrity = cas_npm::Integrity(Digest::of(DigestFunction::Sha512, &bytes)).to_string();
    (bytes, integrity)
}

/// Puts the tarball of a package where a registry has it.
pub(crate) fn publish(registry: &Path, name: &str, version: &str, tarball: &[u8]) {
    let base = name.rsplit('/').next().unwrap();
    let folder = registry.join(format!("{name}/-"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{base}-{version}.tgz")), tarball).unwrap();
}

/// Serves files by path until the test's process ends; returns the address.
pub(crate) fn serve(files: Vec<(String, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            reader.read_line(&mut line).unwrap();
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap() > 2 {
                header.clear();
            }
            let path = line.split(' ').nth(1).unwrap_or_default();
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, body) = found.map_or(("404 Not Found", &[][..]), |(_, body)| ("200 OK", body));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // Whoever asked may have gone.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}
