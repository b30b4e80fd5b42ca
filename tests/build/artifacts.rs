//! Artifacts: what their manifests say, that they repeat, where they go, and what others read of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cas_blob::Descriptor;
use cas_digest::DigestFunction;
use serde_json::{Value, json};

use crate::{Home, SHA256, text};

/// The empty descriptor of OCI image-spec 1.1.
const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(more: &str) -> String {
    format!(
        "[workspace]\n[fetch.data]\nurl = \"DATA\"\nsha256 = \"{SHA256}\"\n\
         [image.web]\nlayers = [{{ from = \":data\", to = \"/\" }}]\n\
         [artifact.bare]\ntype = \"application/vnd.example.bare\"\n\
         [artifact.docs]\ntype = \"application/vnd.example.docs\"\nsubject = \":web\"\n\
         files = [{{ from = \":data\", media_type = \"text/plain\", annotations = {{ k = \"v\" }} }}, {{ path = \"docs\" }}, \
         {{ path = \"docs/a.txt\", title = \"first/a.txt\" }}, {{ path = \"nothing\" }}]\n\
         config = {{ path = \"c.json\", media_type = \"application/vnd.example.config+json\" }}\n\
         annotations = {{ b = \"2\", a = \"1\" }}\n{more}"
    )
}

fn home(more: &str) -> Home {
    let home = Home::new(&manifest(more));
    for (path, content) in [("docs/a.txt", "a\n"), ("docs/sub/b.txt", "b\n"), ("c.json", "{}\n"), ("nothing", "")] {
        home.write(path, content);
    }
    home
}

#[track_caller]
fn done(home: &Home, arguments: &[&str]) -> String {
    let output = home.cas(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn inspect(home: &Home, name: &str) -> Value {
    serde_json::from_str(&done(home, &["image", "inspect", name])).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob_path(layout: &Path, named: &Value) -> PathBuf {
    layout.join("blobs").join(named["digest"].as_str().unwrap().replace(':', "/"))
}

fn named(media_type: &str, bytes: &[u8]) -> Value {
    let Descriptor { digest, size } = Descriptor::of(DigestFunction::Sha256, bytes);
    json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size })
}

#[test]
fn a_manifest_says_what_its_section_says() {
    let home = home("");
    let docs = inspect(&home, ":docs");
    let layout = home.workspace().join("layout");
    done(&home, &["image", "export", ":docs", "oci:layout:v1"]);
    let entry = &read(&layout.join("index.json"))["manifests"][0];
    assert_eq!(
        (&entry["artifactType"], &entry["digest"], &entry["mediaType"]),
        (&json!("application/vnd.example.docs"), &docs["digest"], &json!(MANIFEST_MEDIA_TYPE))
    );
    let manifest = read(&blob_path(&layout, entry));
    assert_eq!(docs["manifest"], manifest);
    let file = |title: &str, media_type: &str, bytes: &[u8]| {
        let mut file = named(media_type, bytes);
        file["annotations"] = json!({ "org.opencontainers.image.title": title });
        file
    };
    let mut data = file("data.txt", "text/plain", b"data\n");
    data["annotations"]["k"] = json!("v");
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 4);
    assert_eq!(layers[0], data);
    assert_eq!(layers[2], file("first/a.txt", "application/octet-stream", b"a\n"));
    assert_eq!(layers[3], file("nothing", "application/octet-stream", b""));
    let rest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "artifactType": "application/vnd.example.docs",
        "config": named("application/vnd.example.config+json", b"{}\n"), "layers": layers,
        "subject": { "mediaType": MANIFEST_MEDIA_TYPE, "digest": inspect(&home, ":web")["digest"], "size": 401 },
        "annotations": { "a": "1", "b": "2" },
    });
    assert_eq!(manifest, rest);
    // Each file is there, and the subject is not.
    for part in layers.iter().chain([&manifest["config"]]) {
        let bytes = fs::read(blob_path(&layout, part)).unwrap();
        assert_eq!(named("", &bytes)["digest"], part["digest"]);
    }
    assert!(!blob_path(&layout, &manifest["subject"]).exists());
    // The folder is packed below its name, and tells how it is unpacked.
    let folder = &layers[1];
    assert_eq!(folder["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let annotations = &folder["annotations"];
    assert_eq!(annotations["org.opencontainers.image.title"], "docs");
    assert_eq!(annotations["io.deis.oras.content.unpack"], "true");
    let tar = Command::new("gzip").arg("-dc").stdin(fs::File::open(blob_path(&layout, folder)).unwrap()).output();
    let tar = tar.unwrap().stdout;
    assert_eq!(annotations["io.deis.oras.content.digest"], named("", &tar)["digest"]);
    let packed = home.folder.path().join("packed.tar");
    fs::write(&packed, &tar).unwrap();
    let listed = Command::new("tar").arg("tf").arg(&packed).output().unwrap();
    assert_eq!(text(&listed.stdout), "docs/\ndocs/a.txt\ndocs/sub/\ndocs/sub/b.txt\n");
    // Without files and a configuration, what stands for nothing is there.
    let empty = json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2, "data": "e30=" });
    let bare = inspect(&home, ":bare")["manifest"].clone();
    assert_eq!((&bare["config"], &bare["layers"]), (&empty, &json!([empty])));
    assert_eq!((bare.get("subject"), bare.get("annotations")), (None, None));
    done(&home, &["build", ":bare"]);
    let layout = home.workspace().join("cas-out/bare");
    assert_eq!(fs::read(blob_path(&layout, &empty)).unwrap(), b"{}");
}

/// The manifests of `manifest("")`: what these bytes are is part of `format_version` 1.
const GOLDEN: &str = "\
artifact //:bare sha256:eb63ce72970c93d8b1fa2c0830a1b4ca6289c7741ec277b89c68696767652bf1  cas-out/bare
artifact //:docs sha256:d3476b937dd777090feeb2619b57dadd89a95ec0daf2a18b17d227bb99166cd5  cas-out/docs
";

#[test]
fn artifacts_have_the_same_bytes_whatever_must_not_matter() {
    let rows = [("022", "1", "UTC", "blake3"), ("077", "8", "Asia/Kathmandu", "sha256")];
    for (umask, jobs, zone, function) in rows {
        let home = home("");
        home.edit("cas.toml", "[workspace]\n", &format!("[workspace]\ndigest_function = \"{function}\"\n"));
        let mut shell = Command::new("/bin/sh");
        let script = format!("umask {umask} && exec \"$0\" build --jobs {jobs} :bare :docs");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_cas"));
        shell.current_dir(home.workspace()).env_clear().env("TZ", zone).env("CAS_HOME", home.folder.path().join("s"));
        let output = shell.output().unwrap();
        assert_eq!(text(&output.stderr), "");
        assert_eq!(text(&output.stdout), GOLDEN, "umask {umask}, {jobs} jobs, {zone}, {function}");
    }
}

/// Names of files below a folder, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// skopeo as a judge: what it reads and copies is what is here, byte for byte.
#[test]
fn others_read_artifacts_and_copy_them_as_they_are() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        eprintln!("SKIPPED: skopeo is missing");
        return;
    }
    let home = home("");
    let skopeo = |arguments: &[&str]| {
        let policy = home.folder.path().join("policy.json");
        fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        let mut command = Command::new("skopeo");
        command.arg("--policy").arg(policy).args(arguments).current_dir(home.workspace());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output.stdout
    };
    for name in ["docs", "bare"] {
        let own = format!("own-{name}");
        done(&home, &["image", "export", &format!(":{name}"), &format!("oci:{own}:v1")]);
        done(&home, &["image", "export", &format!(":{name}"), &format!("oci-archive:{own}.tar:v1")]);
        done(&home, &["image", "export", &format!(":{name}"), &format!("dir:{own}-dir")]);
        let raw = skopeo(&["inspect", "--raw", &format!("oci:{own}:v1")]);
        let digest = inspect(&home, &format!(":{name}"))["digest"].clone();
        assert_eq!(named("", &raw)["digest"], digest, "{name}");
        let blobs = files(&home.workspace().join(&own).join("blobs"));
        for (from, to) in [
            (format!("oci:{own}:v1"), format!("oci-archive:{name}.tar:v1")),
            (format!("oci-archive:{name}.tar:v1"), format!("oci:{name}-a:v1")),
            (format!("oci-archive:{own}.tar:v1"), format!("oci:{name}-b:v1")),
            (format!("dir:{own}-dir"), format!("oci:{name}-c:v1")),
        ] {
            skopeo(&["copy", "--quiet", &from, &to]);
        }
        for copy in ["a", "b", "c"] {
            let copied = files(&home.workspace().join(format!("{name}-{copy}")).join("blobs"));
            assert!(copied == blobs, "{name}-{copy} is another one");
        }
    }
}

#[test]
fn a_subject_is_named_by_the_document_over_it() {
    let more = "[image.several]\nplatforms = [\"linux/riscv64\", \"linux/amd64\"]\nlayers = [{ from = \":data\", to = \"/\" }]\n\
        [image.docker]\nformat = \"docker\"\nlayers = [{ from = \":data\", to = \"/\" }]\n\
        [artifact.s1]\ntype = \"a/b\"\nsubject = \":several\"\n[artifact.s2]\ntype = \"a/b\"\nsubject = \":docker\"\n\
        [artifact.s3]\ntype = \"a/b\"\nsubject = \":docs\"\n";
    let home = home(more);
    let subject = |name: &str| inspect(&home, name)["manifest"]["subject"].clone();
    for (name, of, media_type) in [
        (":s1", ":several", "application/vnd.oci.image.index.v1+json"),
        (":s2", ":docker", "application/vnd.docker.distribution.manifest.v2+json"),
        (":s3", ":docs", MANIFEST_MEDIA_TYPE),
    ] {
        let subject = subject(name);
        assert_eq!(
            (&subject["digest"], &subject["mediaType"]),
            (&inspect(&home, of)["digest"], &json!(media_type)),
            "{name}"
        );
        // What stands at the subject's digest has its size.
        done(&home, &["build", of]);
        let path = blob_path(&home.workspace().join("cas-out").join(&of[1..]), &subject);
        assert_eq!(json!(fs::metadata(path).unwrap().len()), subject["size"], "{name}");
    }
    // Another subject is another artifact, also two steps away.
    let before = [":docs", ":s3"].map(|name| inspect(&home, name)["digest"].clone());
    home.edit("cas.toml", "[image.web]\n", "[image.web]\nconfig = { user = \"7\" }\n");
    let after = [":docs", ":s3"].map(|name| inspect(&home, name)["digest"].clone());
    assert!(before[0] != after[0] && before[1] != after[1], "{after:?}");
}

#[test]
fn steps_and_npm_packages_give_files() {
    let manifest = "[workspace]\n[command.build]\ntoolchain = \":sh\"\ninputs = [\"f\"]\noutputs = [\"dist\", \"one\"]\n\
        run = \"mkdir -p dist/sub; cp f dist/sub/x; ln -s x dist/sub/l; echo 1 > one\"\n\
        [command.only]\ntoolchain = \":sh\"\ninputs = [\"f\"]\noutputs = [\"made/only.txt\"]\nrun = \"mkdir -p made; cp f made/only.txt\"\n\
        [npm.tarball]\n[artifact.all]\ntype = \"a/b\"\n\
        files = [{ from = \":only\" }, { from = \":build\", path = \"dist/sub\" }, { from = \":build\", path = \"one\", title = \"1\" }, { from = \":tarball\" }]\n\
        config = { from = \":build\", path = \"one\", media_type = \"text/plain\" }\n\
        [artifact.less]\ntype = \"a/b\"\nfiles = [{ from = \":build\", path = \"dist/sub\", exclude = [\"**/l\"] }]\n\
        [image.less-too]\nlayers = [{ from = \":build\", exclude = [\"one\", \"dist/*/l\"], to = \"/\" }]\n\
        [artifact.link]\ntype = \"a/b\"\nfiles = [{ from = \":build\", path = \"dist/sub/l\" }]\n";
    let files = [("f", "f\n"), ("package.json", r#"{"name":"@x/y","version":"1.2.3"}"#)];
    let Some(home) = Home::with_busybox(manifest, &files) else { return };
    let manifest = inspect(&home, ":all")["manifest"].clone();
    let layers = manifest["layers"].as_array().unwrap();
    let titles: Vec<&str> =
        layers.iter().map(|file| file["annotations"]["org.opencontainers.image.title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["only.txt", "sub", "1", "x-y-1.2.3.tgz"]);
    assert_eq!(layers[0]["digest"], named("", b"f\n")["digest"]);
    assert_eq!(layers[2]["digest"], manifest["config"]["digest"]);
    done(&home, &["build", ":all", ":tarball"]);
    let tarball = fs::read(home.workspace().join("cas-out/tarball/x-y-1.2.3.tgz")).unwrap();
    assert_eq!(layers[3]["digest"], named("", &tarball)["digest"]);
    let packed = blob_path(&home.workspace().join("cas-out/all"), &layers[1]);
    let listed = |packed| text(&Command::new("tar").arg("tzf").arg(packed).output().unwrap().stdout);
    assert_eq!(listed(packed), "sub/\nsub/l\nsub/x\n");
    done(&home, &["build", ":less", ":less-too"]);
    for (name, expected) in [("less", "sub/\nsub/x\n"), ("less-too", "dist/\ndist/sub/\ndist/sub/x\n")] {
        let files = &inspect(&home, &format!(":{name}"))["manifest"]["layers"];
        assert_eq!(listed(blob_path(&home.workspace().join("cas-out").join(name), &files[0])), expected, "{name}");
    }
    let refused = home.cas(&["build", ":link"]);
    let said = "error: `dist/sub/l` of `//:build` is a symbolic link, and an artifact is of files and folders";
    assert_eq!(
        (refused.status.code(), text(&refused.stderr).contains(said)),
        (Some(2), true),
        "{}",
        text(&refused.stderr)
    );
}

/// What artifacts are told to be affected by, beside what builds of both states give.
#[test]
fn artifacts_of_which_a_build_gives_others_are_affected() {
    let manifest = "[workspace]\n[command.build]\ntoolchain = \":sh\"\ninputs = [\"src\"]\noutputs = [\"dist\", \"other\"]\n\
        run = \"mkdir -p dist; cp src/a dist/a; cp src/b other\"\n\
        [image.web]\nlayers = [{ files = [\"own\"], to = \"/\" }]\n\
        [artifact.made]\ntype = \"a/b\"\nfiles = [{ from = \":build\", path = \"dist\" }]\n\
        [artifact.own]\ntype = \"a/b\"\nfiles = [{ path = \"docs\" }]\nconfig = { path = \"c.json\", media_type = \"a/c\" }\n\
        [artifact.about]\ntype = \"a/b\"\nsubject = \":web\"\n[artifact.chain]\ntype = \"a/b\"\nsubject = \":about\"\n";
    let files = [
        ("src/a", "a\n"),
        ("src/b", "b\n"),
        ("docs/a", "a\n"),
        ("docs/b", "b\n"),
        ("c.json", "{}\n"),
        ("own", "own\n"),
        ("else", "else\n"),
        (".gitignore", "/cas-out/\n"),
    ];
    let Some(home) = Home::with_busybox(manifest, &files) else { return };
    home.git(&["init", "--quiet"]);
    type Edit = fn(&Home);
    let rows: [(&str, Edit, &[&str], &str); 11] = [
        ("a file of nobody", |home| home.write("else", "other\n"), &[], ""),
        ("a source of its part", |home| home.write("src/a", "A\n"), &["made"], "through //:build"),
        ("a source of another part", |home| home.write("src/b", "B\n"), &[], ""),
        ("an own file", |home| home.write("docs/b", "B\n"), &["own"], "file docs/b"),
        ("a new own file", |home| home.write("docs/sub/c", "c\n"), &["own"], "file docs/sub/c"),
        ("the configuration", |home| home.write("c.json", "[]\n"), &["own"], "file c.json"),
        ("the subject", |home| home.write("own", "other\n"), &["about", "chain"], "through //:web"),
        (
            "a title",
            |home| home.edit("cas.toml", "{ path = \"docs\" }", "{ path = \"docs\", title = \"d\" }"),
            &["own"],
            "definition files 0",
        ),
        (
            "what is left out of it",
            |home| home.edit("cas.toml", "{ path = \"docs\"", "{ path = \"docs\", exclude = [\"docs/a\"]"),
            &["own"],
            "definition files 0",
        ),
        (
            "an annotation",
            |home| home.edit("cas.toml", "[artifact.about]\n", "[artifact.about]\nannotations = { a = \"1\" }\n"),
            &["about", "chain"],
            "definition annotations",
        ),
        (
            "a type",
            |home| home.edit("cas.toml", "[artifact.made]\ntype = \"a/b\"", "[artifact.made]\ntype = \"a/d\""),
            &["made"],
            "definition type",
        ),
    ];
    let digests = |home: &Home| -> BTreeMap<String, Value> {
        let built: Value = serde_json::from_str(&done(home, &["build", "--format", "json"])).unwrap();
        let rows = built["results"].as_array().unwrap().iter().filter(|row| row["kind"] == "artifact");
        rows.map(|row| (row["target"].as_str().unwrap().to_owned(), row["digest"].clone())).collect()
    };
    for (what, edit, expected, reason) in rows {
        home.commit();
        let before = digests(&home);
        edit(&home);
        let after = digests(&home);
        let others = after.iter().filter(|(label, digest)| before.get(*label) != Some(digest));
        let others: BTreeSet<String> = others.map(|(label, _)| label.clone()).collect();
        let expected: BTreeSet<String> = expected.iter().map(|name| format!("//:{name}")).collect();
        assert_eq!(others, expected, "{what}: what builds give");
        let told = home.affected(&["--since", "HEAD", "--kind", "artifact"]);
        assert_eq!(crate::since::labels(&told), expected, "{what}: {told}");
        if !reason.is_empty() {
            let reasons = told["results"][0]["reasons"].as_array().unwrap();
            let words = |reason: &Value| {
                let name = reason["name"].as_str().unwrap_or_default();
                format!("{} {name}", reason["kind"].as_str().unwrap()).trim().to_owned()
            };
            assert!(reasons.iter().map(words).any(|word| word == reason), "{what}: {told}");
        }
    }
}

#[test]
fn a_commit_is_told_where_it_is_asked_for_alone() {
    let home =
        home("[artifact.stamped]\ntype = \"a/b\"\nannotations = { x = \"y\" }\nstamp = [\"revision\", \"version\"]\n");
    home.write("cas.toml", &format!("version = \"1.4.0\"\n{}", home.read("cas.toml")));
    home.write(".gitignore", "/cas-out/\n");
    home.git(&["init", "--quiet"]);
    home.commit();
    let commit = home.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let time = home.git(&["show", "--no-patch", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M", "HEAD"]);
    let stamped = inspect(&home, ":stamped")["manifest"]["annotations"].clone();
    let created = stamped["org.opencontainers.image.created"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.starts_with(&time.trim()[..4]), "{created}, {time}");
    let expected = json!({
        "x": "y", "org.opencontainers.image.version": "1.4.0", "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.created": created,
    });
    assert_eq!(stamped, expected);
    assert_eq!(inspect(&home, ":docs")["manifest"]["annotations"], json!({ "a": "1", "b": "2" }));
}

#[test]
fn a_build_tells_what_artifacts_it_made() {
    let home = home("");
    done(&home, &["build", ":docs", ":web", "--metadata-file", "../m.json"]);
    let told = read(&home.folder.path().join("m.json"));
    let docs = inspect(&home, ":docs");
    assert_eq!(told.as_object().unwrap().keys().collect::<Vec<_>>(), ["//:docs", "//:web"]);
    let size = told["//:docs"]["containerimage.descriptor"]["size"].clone();
    assert!(size.as_u64().is_some_and(|size| size > 1000), "{told}");
    let expected = json!({
        "containerimage.digest": docs["digest"], "containerimage.config.digest": docs["manifest"]["config"]["digest"],
        "containerimage.descriptor": {
            "mediaType": MANIFEST_MEDIA_TYPE, "digest": docs["digest"], "size": size,
            "artifactType": "application/vnd.example.docs",
        },
        "image.name": "//:docs",
    });
    assert_eq!(told["//:docs"], expected);
    done(&home, &["build", ":docs", "--iidfile", "../id"]);
    assert_eq!(json!(fs::read_to_string(home.folder.path().join("id")).unwrap()), docs["digest"]);
    let two = home.cas(&["build", ":docs", ":web", "--iidfile", "../id"]);
    assert_eq!(two.status.code(), Some(2), "{}", text(&two.stderr));
    let listed = done(&home, &["image", "ls"]);
    let line = format!("//:docs {} application/vnd.example.docs", docs["digest"].as_str().unwrap());
    assert!(listed.lines().any(|other| other == line), "{listed}");
    assert_eq!(listed.lines().count(), 2, "{listed}");
}

#[test]
fn a_collection_leaves_artifacts_as_long_as_they_are_used_or_pinned() {
    let home = home("[artifact.alone]\ntype = \"a/b\"\nfiles = [{ path = \"alone\" }]\n");
    // Nothing but the artifact needs it.
    home.write("alone", "alone\n");
    done(&home, &["build", ":docs", ":alone", ":bare"]);
    let elsewhere = |arguments: &[&str]| home.command(arguments).current_dir(home.folder.path()).output().unwrap();
    let exported = |name: &str, round: &str| {
        let file = format!("{name}-{round}.tar");
        let output = elsewhere(&["image", "export", &format!("//:{name}"), &format!("oci-archive:{file}:v1")]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        fs::read(home.folder.path().join(file)).unwrap()
    };
    let first = ["docs", "alone"].map(|name| exported(name, "first"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    done(&home, &["store", "gc", "--min-age", "0s"]);
    assert!(["docs", "alone"].map(|name| exported(name, "second")) == first, "it is another one");
    // A manifest and what stands for nothing; with a file, that too.
    for (name, count) in [("bare", 2), ("alone", 3)] {
        let pinned = done(&home, &["store", "pin", "add", name, &format!("//:{name}")]);
        assert_eq!(pinned, format!("{name} keeps {count} things\n"));
    }
    std::thread::sleep(std::time::Duration::from_millis(2100));
    done(&home, &["store", "gc", "--min-age", "0s", "--keep", "0s"]);
    let check = home.cas(&["store", "fsck", "--full"]);
    assert_eq!(check.status.code(), Some(0), "{}", text(&check.stdout));
    // The names went with all results; with the workspace everything is made again.
    assert_eq!(elsewhere(&["image", "inspect", "//:docs"]).status.code(), Some(2));
    done(&home, &["build", ":docs", ":alone"]);
    assert!(["docs", "alone"].map(|name| exported(name, "third")) == first, "it is another one");
}

/// Commands on images name the artifact, also one of others.
#[test]
fn what_takes_images_alone_says_so() {
    let home = home("");
    done(&home, &["image", "export", ":docs", "oci:layout:v1"]);
    let holds = |transport: &str| {
        format!("error: `//:docs` is an artifact, and `{transport}:` holds images alone\nhint: write it to `oci:")
    };
    let is_one = "error: `//:docs` is an artifact, and cannot be used as an image".to_owned();
    let of_others = "cause: it is an artifact of the type `application/vnd.example.docs`, and no image".to_owned();
    let rows: [(&[&str], i32, String); 13] = [
        (&["image", "export", ":docs", "docker-archive:x"], 2, holds("docker-archive")),
        (&["image", "export", ":docs", "tar:x"], 2, holds("tar")),
        (&["image", "export", ":docs", "containers-storage:a:1"], 2, holds("containers-storage")),
        (&["image", "export", ":docs", "docker-daemon:a:1"], 2, holds("docker-daemon")),
        (
            &["image", "export", ":docs", "oci:x", "--platform", "linux/amd64"],
            2,
            "error: `--platform` is for images, and `//:docs` is an artifact\nhint: leave it out".to_owned(),
        ),
        (&["image", "analyze", ":docs"], 2, is_one.clone()),
        (&["image", "diff", ":web", ":docs"], 2, is_one.clone()),
        (&["image", "convert", ":docs", "--compression", "zstd", "--to", "oci:x"], 2, is_one.clone()),
        (&["run", ":docs"], 2, is_one.clone()),
        (&["run", ":docs", "--user", "1"], 2, is_one),
        (&["image", "analyze", "oci:layout:v1"], 3, of_others.clone()),
        (&["image", "import", "oci:layout:v1"], 3, of_others.clone()),
        (&["image", "convert", "oci:layout:v1", "--compression", "zstd", "--to", "oci:x"], 3, of_others),
    ];
    for (arguments, code, said) in rows {
        let output = home.cas(arguments);
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr.contains(&said)), (Some(code), true), "{arguments:?}: {stderr}");
        assert!(!home.workspace().join("x").exists(), "{arguments:?}");
    }
}
