//! Roots of steps: programs of the machine, several toolchains, and what `[defaults]` and the builder's environment give.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{Home, text};

/// A workspace whose steps see the programs of this machine, with a tool that the test changes.
const HOST: &str = "\
[workspace]
members = [\"libs/*\"]
[defaults]
toolchain = \"//:host\"
[defaults.command.build]
run = \"TOOL > out\"
outputs = [\"out\"]
env_in = [\"CHANNEL\"]
[toolchain.host]
host = { identity = \"IDENTITY\", paths = [\"FOLDER\"], probe = [\"TOOL\"] }
[command.build]
";

/// A home beside a folder of the machine with a tool in it. It cannot be in `/tmp`, where steps have their own.
struct Machine {
    home: Home,
    folder: tempfile::TempDir,
}

fn host(tool: &str, identity: &str) -> Option<Machine> {
    if !fs::exists("/bin/sh").unwrap() {
        eprintln!("SKIPPED: this machine has no /bin/sh");
        return None;
    }
    let machine = Machine { home: Home::new(""), folder: tempfile::tempdir_in("/var/tmp").unwrap() };
    fs::set_permissions(machine.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    machine.tool(tool);
    let manifest = HOST.replace("IDENTITY", identity).replace("TOOL", &format!("{}/tool", machine.at()));
    machine.home.write("cas.toml", &manifest.replace("FOLDER", &machine.at()));
    machine.home.write("libs/a/cas.toml", "[command.build]\n");
    Some(machine)
}

impl Machine {
    fn at(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Puts a program that prints something in the place of the one before.
    fn tool(&self, prints: &str) {
        let path = self.folder.path().join("tool");
        let new = path.with_extension("new");
        fs::write(&new, format!("#!/bin/sh\necho {prints}\n")).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, path).unwrap();
    }

    fn built(&self, arguments: &[&str]) -> (String, String) {
        built(&self.home, arguments)
    }
}

fn built(home: &Home, arguments: &[&str]) -> (String, String) {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let last = text(&output.stderr).lines().last().unwrap_or_default().to_owned();
    (last, text(&output.stdout))
}

#[test]
fn steps_may_run_with_the_programs_of_this_machine_and_what_they_make_says_so() {
    let Some(machine) = host("one", "ci") else { return };
    let (steps, printed) = machine.built(&["build"]);
    assert_eq!(steps, "2 steps ran, 0 were cached");
    assert_eq!(machine.home.read("cas-out/libs/a/build/out"), "one\n");
    let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("command")).collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines.iter().all(|line| line.ends_with("(made with programs of this machine)")), "{printed}");
    let (_, document) = machine.built(&["build", "//libs/a:build", "--format", "json"]);
    assert!(document.contains("\"hosts\":[\"//:host\"]"), "{document}");
    assert_eq!(machine.built(&["build"]).0, "0 steps ran, 2 were cached");
}

#[test]
fn another_version_of_a_probed_program_is_another_toolchain() {
    let Some(machine) = host("one", "ci") else { return };
    machine.built(&["build"]);
    machine.tool("two");
    assert_eq!(machine.built(&["build"]).0, "2 steps ran, 0 were cached");
    assert_eq!(machine.home.read("cas-out/build/out"), "two\n");
    // The first version's results are still known.
    machine.tool("one");
    assert_eq!(machine.built(&["build"]).0, "0 steps ran, 2 were cached");
    assert_eq!(machine.home.read("cas-out/build/out"), "one\n");
}

#[test]
fn machines_of_other_identities_share_no_results() {
    let Some(machine) = host("one", "ci") else { return };
    machine.built(&["build"]);
    let manifest = machine.home.read("cas.toml");
    machine.home.write("cas.toml", &manifest.replace("\"ci\"", "\"laptop\""));
    assert_eq!(machine.built(&["build"]).0, "2 steps ran, 0 were cached");
}

#[test]
fn the_machine_cannot_be_written_nor_seen_beyond_what_is_named() {
    let Some(machine) = host("one", "ci") else { return };
    let hidden = tempfile::tempdir_in("/var/tmp").unwrap();
    let manifest = format!(
        "[workspace]\n[toolchain.host]\nhost = {{ paths = [\"{folder}\"] }}\n\
         [test.unseen]\ntoolchain = \":host\"\nrun = \"test -e {folder}/tool; test ! -e {hidden}; test ! -e /root/.bashrc; test ! -e /etc/ssl/private; test ! -e /etc/shadow\"\n\
         [test.unwritten]\ntoolchain = \":host\"\nrun = \"! (echo x > {folder}/tool) 2>/dev/null; ! (echo x > /usr/new) 2>/dev/null\"\n",
        folder = machine.at(),
        hidden = hidden.path().display()
    );
    machine.home.write("cas.toml", &manifest);
    assert_eq!(machine.built(&["test"]).0, "2 steps ran, 0 were cached");
    assert_eq!(fs::read_to_string(machine.folder.path().join("tool")).unwrap(), "#!/bin/sh\necho one\n");
}

#[test]
fn paths_and_probes_that_cannot_be_are_told() {
    let Some(machine) = host("one", "ci") else { return };
    let target = "[test.x]\ntoolchain = \":host\"\nrun = \"true\"\n";
    for (host, message, code) in [
        (
            "paths = [\"/proc/sys\"]",
            "`/proc/sys` of the toolchain `//:host` cannot be shown: steps have their own there",
            2,
        ),
        ("paths = [\"/no/such\"]", "`/no/such` of the toolchain `//:host` cannot be shown: it is not there", 2),
        ("probe = [\"exit 3\"]", "probe `exit 3` of the toolchain `//:host` failed: exit code 3", 1),
    ] {
        let manifest = format!("[workspace]\n[toolchain.host]\nhost = {{ {host} }}\n{target}");
        machine.home.write("cas.toml", &manifest);
        let output = machine.home.cas(&["test"]);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

/// What a variable of the builder's environment is belongs to the key: nothing is stale, and nothing runs twice.
#[test]
fn variables_that_are_taken_over_are_part_of_the_key() {
    let manifest = "[workspace]\n[command.show]\ntoolchain = \":sh\"\nrun = \"echo ${CHANNEL-none} $OTHER > out\"\n\
                    outputs = [\"out\"]\nenv = { OTHER = \"written\" }\nenv_in = [\"CHANNEL\", \"OTHER\"]\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    let build = |variables: &[(&str, &str)]| {
        let output = home.command(&["build", ":show"]).envs(variables.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        (text(&output.stderr).lines().last().unwrap_or_default().to_owned(), home.read("cas-out/show/out"))
    };
    let ran = |out: &str| ("1 step ran, 0 were cached".to_owned(), out.to_owned());
    let cached = |out: &str| ("0 steps ran, 1 was cached".to_owned(), out.to_owned());
    assert_eq!(build(&[]), ran("none written\n"));
    assert_eq!(build(&[("CHANNEL", "beta")]), ran("beta written\n"));
    assert_eq!(build(&[("CHANNEL", "beta"), ("OTHER", "taken")]), ran("beta taken\n"));
    assert_eq!(build(&[("UNNAMED", "x")]), cached("none written\n"));
    assert_eq!(build(&[("CHANNEL", "beta")]), cached("beta written\n"));
}

#[test]
fn equal_toolchains_can_be_merged_and_the_machine_with_none() {
    let manifest = "[workspace]\n[toolchain.host]\nhost = {}\n\
                    [test.both]\ntoolchain = [\":sh\", \":sh\"]\nrun = \"true\"\n\
                    [test.machine]\ntoolchain = [\":sh\", \":host\"]\nrun = \"true\"\n";
    let Some(home) = Home::with_busybox(manifest, &[]) else { return };
    assert_eq!(built(&home, &["build", ":both"]).0, "1 step ran, 0 were cached");
    assert_eq!(built(&home, &["build", ":both"]).0, "0 steps ran, 1 was cached");
    let output = home.cas(&["build", ":machine"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("would hide the other toolchains of the step"), "{}", text(&output.stderr));
}

/// What a step made with the machine's programs taints the image that holds it; the machine itself is no base.
#[test]
fn an_image_says_that_it_holds_what_this_machine_made() {
    let Some(machine) = host("one", "ci") else { return };
    let manifest = machine.home.read("cas.toml");
    let image = "[image.holds]\nlayers = [{ from = \":build\", to = \"/\" }]\n\
                 [image.above]\nbase = \":holds\"\n[image.bare]\n[image.base]\nbase = \":host\"\n";
    machine.home.write("cas.toml", &format!("{manifest}{image}"));
    for (target, hosts) in [(":holds", Some("//:host")), (":above", Some("//:host")), (":bare", None)] {
        let document: serde_json::Value =
            serde_json::from_str(&machine.built(&["build", target, "--format", "json"]).1).unwrap();
        assert_eq!(document["results"][0]["hosts"][0].as_str(), hosts, "{target}");
    }
    let output = machine.home.cas(&["build", ":base"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("`//:host` is a toolchain, and cannot be the base of an image"), "{stderr}");
}

/// A toolchain with what another step made and a link to it; and an address that leads elsewhere.
#[test]
fn a_root_has_what_its_section_adds() {
    use cas_digest::{Digest, DigestFunction};
    let data = "fetched\n";
    let digest = Digest::of(DigestFunction::Sha256, data.as_bytes()).to_hex();
    let manifest = format!(
        "[workspace]\n[mirror]\n\"files.example.org/v1\" = \"ELSEWHERE\"\n\
         [fetch.data]\nurl = \"https://files.example.org/v1/data.txt\"\nsha256 = \"{digest}\"\n\
         [command.tool]\ntoolchain = \":sh\"\noutputs = [\"bin/tool\"]\n\
         run = \"mkdir -p bin; (echo '#!/bin/sh'; echo echo made-`cat src`) > bin/tool; chmod 755 bin/tool\"\n\
         [toolchain.more]\ndebian = {{ suite = \"test\", packages = [\"busybox\"], mirror = \"MIRROR\" }}\n\
         add = [{{ from = \":tool\", path = \"bin\", to = \"/opt/tool\" }}, {{ link = \"/usr/local/bin/mine\", target = \"/opt/tool/tool\" }},\n\
         {{ from = \":data\", to = \"/usr/share/data\" }}]\n\
         [command.use]\ntoolchain = \":more\"\ninputs = []\noutputs = [\"out\"]\nrun = \"mine > out; cat /usr/share/data/data.txt >> out\"\n\
         [image.image]\nbase = \":more\"\n"
    );
    let Some(home) = Home::with_busybox(&manifest, &[("src", "1\n")]) else { return };
    let elsewhere = home.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("data.txt"), data).unwrap();
    let text_of = home.read("cas.toml").replace("ELSEWHERE", &format!("file://{}", elsewhere.display()));
    // The other toolchain is of the same package.
    let entry = home.read("cas.lock");
    let (head, rest) = entry.split_once("[[debian]]").unwrap();
    let more = rest.replace("//:sh", "//:more");
    home.write("cas.lock", &format!("{head}[[debian]]{more}[[debian]]{rest}"));
    let mirror = format!("file://{}", home.folder.path().join("mirror").display());
    home.write("cas.toml", &text_of.replace("MIRROR", &mirror));
    let (stderr, stdout) = built(&home, &["build", ":use", ":image"]);
    assert!(stdout.contains("image //:image"), "{stdout}{stderr}");
    assert_eq!(home.read("cas-out/use/out"), "made-1\nfetched\n");
    // What it adds is part of every key.
    home.write("src", "2\n");
    built(&home, &["build", ":use"]);
    assert_eq!(home.read("cas-out/use/out"), "made-2\nfetched\n");
    // What is there already stays.
    let conflict = home.read("cas.toml").replace("/usr/local/bin/mine", "/usr/bin/sh");
    home.write("cas.toml", &conflict);
    let output = home.cas(&["build", ":use"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("usr/bin/sh"), "{}", text(&output.stderr));
    // Nor can a root be made with itself.
    home.write("cas.toml", &conflict.replace("from = \":tool\", path = \"bin\"", "from = \":use\""));
    let output = home.cas(&["build", ":use"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("//:use → //:more → //:use"), "{}", text(&output.stderr));
}
