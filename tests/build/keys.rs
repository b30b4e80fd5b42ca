//! Keys from and for other programs, and programs that sign.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use crate::sign::{PASSWORD, digest_of, ends, fake, home};
use crate::terminal::{Terminal, XTERM};
use crate::{Home, text};

/// What a command gives, whose output may be a private key.
fn output(home: &Home, arguments: &[&str]) -> Output {
    let mut command = home.command(arguments);
    command.env("CAS_KEYS", home.folder.path().join("keys")).env("CAS_KEY_PASSWORD", PASSWORD).output().unwrap()
}

fn exported(home: &Home, arguments: &[&str]) -> String {
    let output = output(home, &[&["key", "export"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_go_out_and_come_back_in_every_form() {
    for kind in ["ed25519", "ecdsa-p256"] {
        let (home, fake) = (home(), fake(Some(9)));
        let one = format!("{}/a:1.0.0", fake.address());
        ends(&home, &["push", ":one", &one], 0, &[]);
        ends(&home, &["key", "generate", "mine", "--type", kind], 0, &[]);
        let public = exported(&home, &["mine"]);
        assert_eq!(public, fs::read_to_string(home.folder.path().join("keys/mine.pub")).unwrap());
        let file = |name: &str| home.folder.path().join(name);
        for (form, label, options) in [
            ("public", "BEGIN PUBLIC KEY", &[][..]),
            ("sigstore", "BEGIN ENCRYPTED SIGSTORE PRIVATE KEY", &[]),
            ("cosign", "BEGIN ENCRYPTED COSIGN PRIVATE KEY", &["--plain"]),
            ("pkcs8", "BEGIN PRIVATE KEY", &[]),
        ] {
            let path = file(&format!("{form}.pem"));
            let name = path.to_str().unwrap();
            ends(&home, &["key", "export", "mine", "--as", form, "--output", name], 0, &[name]);
            assert!(fs::read_to_string(&path).unwrap().contains(label), "{form}");
            assert_eq!(mode(&path), if form == "public" { 0o644 } else { 0o600 }, "{form}");
            ends(&home, &["key", "export", "mine", "--as", form, "--output", name], 2, &["is there already"]);
            // It comes back as the same key, and signs.
            let import = ["key", "import", name, "--name", form];
            ends(&home, &[&import[..], options].concat(), 0, &[kind]);
            ends(&home, &import, 2, &["is there already"]);
            assert_eq!(exported(&home, &[form]), public, "{form}");
            let kept = file(&format!("keys/{form}.key"));
            if form == "public" {
                assert!(!kept.exists());
                ends(&home, &["sign", &one, "--key", "public"], 2, &["there is no key `public`"]);
                continue;
            }
            let is_plain = fs::read_to_string(&kept).unwrap().contains("BEGIN PRIVATE KEY");
            assert_eq!((is_plain, mode(&kept)), (!options.is_empty(), 0o600), "{form}");
            ends(&home, &["sign", &one, "--key", form], 0, &["signed for"]);
            ends(&home, &["verify", &one, "--key", "mine"], 0, &["is signed by mine"]);
        }
        // The name of the file is the name of the key.
        fs::copy(file("pkcs8.pem"), file("robot.pem")).unwrap();
        ends(&home, &["key", "import", file("robot.pem").to_str().unwrap()], 0, &["robot.pub"]);
        assert_eq!(exported(&home, &["robot"]), public);
    }
}

#[test]
fn what_is_no_key_is_not_imported_and_passwords_have_one_source() {
    let home = home();
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    let pem = exported(&home, &["mine", "--as", "sigstore"]);
    let file = home.folder.path().join("x.pem");
    let name = file.to_str().unwrap();
    for (content, expected) in [
        ("", "not a PEM block"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", "make a new key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "DER"),
        (&format!("{pem}{pem}"), "2 PEM blocks"),
        (&pem.replacen("N", "O", 1), "PEM"),
    ] {
        fs::write(&file, content).unwrap();
        ends(&home, &["key", "import", name], 2, &[expected]);
    }
    fs::write(&file, &pem).unwrap();
    ends(&home, &["key", "import", name, "--name", "../x"], 2, &["is no name of a key"]);
    let import = |source: &[&str], password: Option<&str>| {
        let arguments = [&["key", "import", name, "--name", "again"], source].concat();
        let mut command = home.command(&arguments);
        command.env("CAS_KEYS", home.folder.path().join("keys")).env("OTHER", PASSWORD).env("EMPTY", "");
        if let Some(password) = password {
            command.env("CAS_KEY_PASSWORD", password);
        }
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert!(!said.contains(PASSWORD) && !said.contains("wrong-one"), "{said}");
        (output.status.code(), said)
    };
    for (source, password, code, expected) in [
        (&[][..], Some("wrong-one"), 2, "password is wrong"),
        (&["--password-env", "EMPTY"], Some(PASSWORD), 2, "`EMPTY`"),
        (&["--password-env", "OTHER", "--password-fd", "0"], None, 2, "cannot be used with"),
        (&["--password-env", "OTHER"], Some("wrong-one"), 0, ""),
    ] {
        let (found, said) = import(source, password);
        assert!(found == Some(code) && said.contains(expected), "{source:?}: {said}");
        assert_eq!(home.folder.path().join("keys/again.key").exists(), code == 0, "{source:?}");
    }
}

#[test]
fn a_private_key_is_shown_at_a_terminal_only_if_somebody_asks() {
    let home = home();
    ends(&home, &["key", "generate", "mine", "--plain"], 0, &[]);
    let keys = home.folder.path().join("keys");
    let variables = [XTERM, ("CAS_KEYS", keys.to_str().unwrap()), ("CAS_KEY_PASSWORD", PASSWORD)];
    for (options, code, is_shown) in [
        (&["--as", "pkcs8"][..], 2, false),
        (&["--as", "sigstore"], 2, false),
        (&[], 0, false),
        (&["--as", "pkcs8", "--to-terminal"], 0, true),
    ] {
        let arguments = [&["key", "export", "mine"], options].concat();
        let (found, screen, bytes) = Terminal::start(&home, &arguments, (100, 24), &variables).end();
        assert_eq!((found, bytes.contains("PRIVATE KEY")), (Some(code), is_shown), "{options:?}: {screen}");
    }
}

/// A program that signs with a key, as a script with these words in the place of its last line.
fn script(home: &Home, name: &str, words: &str) -> String {
    let path = home.folder.path().join(name);
    let mut file = fs::File::create(&path).unwrap();
    writeln!(file, "#!/bin/sh\nset -e\n{words}").unwrap();
    drop(file);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn another_program_signs_and_what_it_gives_is_checked() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("SKIPPED: openssl is missing");
        return;
    }
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    for (name, kind) in [("mine", "ecdsa-p256"), ("other", "ecdsa-p256"), ("edward", "ed25519")] {
        ends(&home, &["key", "generate", name, "--type", kind, "--plain"], 0, &[]);
    }
    let keys = home.folder.path().join("keys");
    let pem = |name: &str| keys.join(format!("{name}.key")).display().to_string();
    let sign = format!("openssl dgst -sha256 -sign {}", pem("mine"));
    let edward = format!("cat > \"$0.in\"; openssl pkeyutl -sign -rawin -inkey {} -in \"$0.in\"", pem("edward"));
    let told = [
        "test \"$CAS_SIGNER_TYPE $CAS_SIGNER_VERSION\" = 'ecdsa-p256 1'",
        "test -z \"$CAS_KEY_PASSWORD\"",
        "test ${#CAS_SIGNER_KEY} = 64",
        "cat > \"$0.in\"",
        "test \"$(sha256sum < \"$0.in\")\" = \"$CAS_SIGNER_SHA256  -\"",
        &format!("{sign} < \"$0.in\""),
    ]
    .join("\n");
    let scripts = [
        ("base64", format!("{sign} | base64 -w 0; echo")),
        ("told", told),
        ("edward", edward),
        ("loud", "echo \"no device, token $DEVICE_TOKEN\" >&2\nprintf '\\033[2J' >&2\nexit 3".to_owned()),
        ("empty", "cat > /dev/null".to_owned()),
        ("long", format!("{sign}\nhead -c 5000 /dev/zero")),
        ("deaf", "exit 0".to_owned()),
        ("slow", "exec sleep 600".to_owned()),
    ];
    let scripts: Vec<(&str, String)> =
        scripts.iter().map(|(name, words)| (*name, script(&home, name, words))).collect();
    let path = |name: &str| scripts.iter().find(|(found, _)| *found == name).unwrap().1.clone();
    let run = |key: &str, signer: &str, options: &[&str]| {
        let arguments = [&["sign", &one, "--key", key, "--signer", signer], options].concat();
        let mut command = home.command(&arguments);
        command.env("CAS_KEYS", &keys).env("CAS_KEY_PASSWORD", PASSWORD).env("DEVICE_TOKEN", "t0ken-of-the-device");
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    for (key, signer, options, expected) in [
        ("mine", format!("openssl dgst -sha256 -sign {}", pem("other")), &[][..], "wrote no ecdsa-p256 signature by"),
        ("edward", sign.clone(), &[], "wrote no ed25519 signature by"),
        ("mine", path("loud"), &[], "exit status: 3, and said: no device, token ***"),
        ("mine", path("empty"), &[], "wrote no ecdsa-p256 signature by"),
        ("mine", path("deaf"), &[], "wrote no ecdsa-p256 signature by"),
        ("mine", path("long"), &[], "wrote more than 4096 bytes"),
        ("mine", path("slow"), &["--signer-timeout", "1"], "did not sign in 1 seconds"),
        ("mine", "/nowhere/signer".to_owned(), &[], "could not be started"),
        ("mine", "  ".to_owned(), &[], "names no program"),
        ("nobody", sign.clone(), &[], "there is no key `nobody`"),
    ] {
        let (code, said) = run(key, &signer, options);
        assert!(code == Some(2) && said.contains(expected), "{signer}: {said}");
        assert!(!said.contains("t0ken") && !said.contains("\x1b[2J") && !said.contains("-sha256"), "{signer}: {said}");
    }
    // Nothing of all that was written.
    ends(&home, &["verify", &one, "--key", "mine"], 3, &["there is no signature"]);
    for (key, signer) in
        [("mine", sign.as_str()), ("mine", &path("base64")), ("mine", &path("told")), ("edward", &path("edward"))]
    {
        let (code, said) = run(key, signer, &[]);
        assert!(code == Some(0), "{signer}: {said}");
        ends(&home, &["verify", &one, "--key", key], 0, &["referrer sha256:", ".sig, layer"]);
    }
    home.write("said.json", "{}");
    let kind = "https://example.com/check/v1";
    let attest = ["attest", &one, "--key", "mine", "--type", kind, "--predicate", "said.json", "--signer", &sign];
    ends(&home, &attest, 0, &["attested"]);
    ends(&home, &["verify", &one, "--key", "mine", "--type", kind], 0, &["is signed by mine"]);
    ends(&home, &["sign", &one, "--key", "mine", "--signer-timeout", "9"], 2, &["--signer"]);
}

#[test]
fn a_bundle_is_a_file_where_somebody_wants_it() {
    let (home, fake) = (home(), fake(Some(9)));
    let one = format!("{}/a:1.0.0", fake.address());
    ends(&home, &["push", ":one", &one], 0, &[]);
    ends(&home, &["key", "generate", "mine"], 0, &[]);
    let said = ends(&home, &["sign", &one, "--key", "mine", "--bundle", "one.json"], 0, &["signed for"]);
    ends(&home, &["verify", &one, "--key", "mine"], 3, &["there is no signature"]);
    ends(&home, &["verify", &one, "--key", "mine", "--bundle", "one.json"], 0, &["is signed by mine (", "one.json"]);
    ends(&home, &["sign", &one, "--key", "mine", "--bundle", "one.json"], 2, &["is there already"]);
    ends(&home, &["sign", &one, &one, "--key", "mine", "--bundle", "two.json"], 2, &["is for one image"]);
    // Of a digest nobody is asked.
    let named = format!("{}/a@{}", fake.address(), digest_of(&said));
    let before = fake.requests().len();
    ends(&home, &["sign", &named, "--key", "mine", "--bundle", "two.json"], 0, &[]);
    home.write("said.json", "{}");
    let kind = "https://example.com/check/v1";
    let attest =
        ["attest", &named, "--key", "mine", "--type", kind, "--predicate", "said.json", "--bundle", "said.sig"];
    ends(&home, &attest, 0, &["attested"]);
    ends(&home, &["verify", &named, "--key", "mine", "--bundle", "two.json"], 0, &[]);
    ends(&home, &["verify", &named, "--key", "mine", "--bundle", "said.sig"], 3, &["it says"]);
    ends(&home, &["verify", &named, "--key", "mine", "--bundle", "said.sig", "--type", kind], 0, &[]);
    assert_eq!(fake.requests().len(), before);
    let read = |name: &str| fs::read(home.workspace().join(name)).unwrap();
    assert_eq!(read("one.json"), read("two.json"));
}
