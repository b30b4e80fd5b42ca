//! The cases of docs/formats/bad-images.md: what is wrong with each image.

use super::*;

/// Something that is nested very deep.
fn deep(text: &str, count: usize) -> String {
    let deep = format!("{{\"deep\":{}{},", "[".repeat(count), "]".repeat(count));
    text.replacen('{', &deep, 1)
}

/// Names of cases, and what is wrong.
pub(super) const CASES: &[(&str, Change)] = &[
    ("an image that is in order", Change::Layers(|| vec![of(&good())])),
    // Digests and sizes.
    ("another diffID", Change::Config(|config| config["rootfs"]["diff_ids"][0] = json!(NOTHING))),
    ("fewer diffIDs than layers", Change::Config(|config| config["rootfs"]["diff_ids"] = json!([]))),
    (
        "more diffIDs than layers",
        Change::Config(|config| config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(NOTHING))),
    ),
    ("a diffID that is no digest", Change::Config(|config| config["rootfs"]["diff_ids"] = json!(["sha256:x"]))),
    ("no diffIDs, but null", Change::Config(|config| config["rootfs"]["diff_ids"] = Value::Null)),
    ("a layer longer than told", Change::Manifest(|manifest| add(&mut manifest["layers"][0]["size"], -1))),
    ("a layer shorter than told", Change::Manifest(|manifest| add(&mut manifest["layers"][0]["size"], 1))),
    ("a configuration longer than told", Change::Manifest(|manifest| add(&mut manifest["config"]["size"], -1))),
    ("a configuration shorter than told", Change::Manifest(|manifest| add(&mut manifest["config"]["size"], 1))),
    (
        "a manifest longer than told",
        Change::Layout(|files| files.change("index.json", |index| add(&mut index["manifests"][0]["size"], -1))),
    ),
    (
        "a manifest shorter than told",
        Change::Layout(|files| files.change("index.json", |index| add(&mut index["manifests"][0]["size"], 1))),
    ),
    ("a negative size", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(-1))),
    ("a size with a fraction", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(1.5))),
    ("a layer of exabytes", Change::Manifest(|manifest| manifest["layers"][0]["size"] = json!(1_u64 << 62))),
    (
        "a layer with other bytes",
        Change::Layout(|files| {
            let layer = files.layer();
            files.0.get_mut(&layer).unwrap()[20] ^= 1;
        }),
    ),
    (
        "a configuration with other bytes",
        Change::Layout(|files| {
            let path = path_of(files.manifest()["config"]["digest"].as_str().unwrap());
            let text = String::from_utf8(files.0[&path].clone()).unwrap().replace("linux", "linus");
            files.0.insert(path, text.into_bytes());
        }),
    ),
    (
        "a manifest with other bytes",
        Change::Layout(|files| {
            let path = path_of(files.named()["digest"].as_str().unwrap());
            files.0.get_mut(&path).unwrap()[0] = b' ';
        }),
    ),
    (
        "a layer that is missing",
        Change::Layout(|files| {
            let layer = files.layer();
            files.0.remove(&layer);
        }),
    ),
    (
        "a configuration that is missing",
        Change::Layout(|files| {
            let path = path_of(files.manifest()["config"]["digest"].as_str().unwrap());
            files.0.remove(&path);
        }),
    ),
    (
        "a manifest that is missing",
        Change::Layout(|files| {
            let path = path_of(files.named()["digest"].as_str().unwrap());
            files.0.remove(&path);
        }),
    ),
    (
        "a digest that leaves the layout",
        Change::Manifest(|manifest| manifest["layers"][0]["digest"] = json!("sha256:../../x")),
    ),
    ("a digest of MD5", Change::Manifest(|manifest| manifest["layers"][0]["digest"] = json!("md5:00"))),
    // Indexes.
    ("an index in an index", Change::Layout(|files| files.nest(1))),
    ("two indexes in each other, and an image", Change::Layout(|files| files.nest(2))),
    ("more indexes in each other than allowed", Change::Layout(|files| files.nest(4))),
    ("a hundred indexes in each other", Change::Layout(|files| files.nest(100))),
    (
        "an index that names its own file",
        // Its digest cannot be known before it is written, so what it says of its size and digest is wrong.
        Change::Layout(|files| {
            let own = json!({ "mediaType": INDEX, "digest": sha256(&files.0["index.json"]), "size": files.0["index.json"].len() });
            files.name(&[own]);
        }),
    ),
    (
        "two indexes that name each other",
        Change::Layout(|files| {
            let to = |digest: &str| json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{ "mediaType": INDEX, "digest": digest, "size": 300 }] });
            let other = to(NOTHING).to_string();
            let one = to(&sha256(other.as_bytes())).to_string();
            files.put(INDEX, other.as_bytes());
            files.0.insert(path_of(NOTHING), one.clone().into_bytes());
            let named = files.put(INDEX, one.as_bytes());
            files.name(&[named]);
        }),
    ),
    (
        "an index with the same image twice",
        Change::Layout(|files| files.index_of(&[files.named_for("linux", OWN), files.named_for("linux", OWN)])),
    ),
    ("a layout with two images and no tag", Change::Layout(|files| files.name(&[files.named(), files.named()]))),
    ("an index without images", Change::Layout(|files| files.index_of(&[]))),
    ("a layout without images", Change::Layout(|files| files.name(&[]))),
    (
        "an index without one for this machine",
        Change::Layout(|files| files.index_of(&[files.named_for("linux", "s390x"), files.named_for("linux", "mips")])),
    ),
    (
        "an index for platforms of control characters",
        Change::Layout(|files| files.index_of(&[files.named_for("li\u{1b}[31m", "x\n"), files.named_for("", "")])),
    ),
    (
        "an index of attestations alone",
        Change::Layout(|files| files.index_of(&[files.named_for("unknown", "unknown")])),
    ),
    (
        "an index whose image is for another machine",
        Change::Layout(|files| {
            let manifest = files.manifest();
            let mut config = files.json(&path_of(manifest["config"]["digest"].as_str().unwrap()));
            config["architecture"] = json!("s390x");
            let mut manifest = manifest.clone();
            manifest["config"] = files.put(CONFIG, config.to_string().as_bytes());
            let named = files.put(MANIFEST, manifest.to_string().as_bytes());
            files.name(&[named]);
            files.index_of(&[files.named_for("linux", OWN)]);
        }),
    ),
    ("no `index.json`", Change::Layout(|files| drop(files.0.remove("index.json")))),
    (
        "an `index.json` that is a manifest",
        Change::Layout(|files| {
            let manifest = files.manifest().to_string();
            files.0.insert("index.json".to_owned(), manifest.into_bytes());
        }),
    ),
    ("an `index.json` of 5 MiB", Change::Layout(|files| files.0.get_mut("index.json").unwrap().resize(5 << 20, b' '))),
    // Media types and versions.
    (
        "a layer of an unknown media type",
        Change::Manifest(|manifest| manifest["layers"][0]["mediaType"] = json!("a/b")),
    ),
    (
        "a layer of another compression than told",
        Change::Manifest(|manifest| {
            manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd")
        }),
    ),
    (
        "a configuration of an unknown media type",
        Change::Manifest(|manifest| manifest["config"]["mediaType"] = json!("a/b")),
    ),
    ("a manifest of an unknown media type", Change::Manifest(|manifest| manifest["mediaType"] = json!("a/b"))),
    (
        "a manifest without a media type",
        Change::Manifest(|manifest| drop(manifest.as_object_mut().unwrap().remove("mediaType"))),
    ),
    (
        "a manifest that is named as an index",
        Change::Layout(|files| files.change("index.json", |index| index["manifests"][0]["mediaType"] = json!(INDEX))),
    ),
    (
        "a manifest that is named as an index, further below",
        Change::Layout(|files| {
            files.change("index.json", |index| index["manifests"][0]["mediaType"] = json!(INDEX));
            files.nest(1);
        }),
    ),
    (
        "a manifest of OCI that is named as one of Docker",
        Change::Layout(|files| {
            files.change("index.json", |index| {
                index["manifests"][0]["mediaType"] = json!("application/vnd.docker.distribution.manifest.v2+json");
            });
        }),
    ),
    ("a manifest that is an index too", Change::Manifest(|manifest| manifest["manifests"] = json!([]))),
    ("a manifest of schema 1", Change::Manifest(|manifest| manifest["schemaVersion"] = json!(1))),
    ("a manifest with layers of schema 1", Change::Manifest(|manifest| manifest["fsLayers"] = json!([]))),
    ("a manifest of schema 3", Change::Manifest(|manifest| manifest["schemaVersion"] = json!(3))),
    // Documents that are no documents.
    (
        "a manifest that is a list",
        Change::Manifest(|manifest| {
            *manifest = json!([2, MANIFEST, manifest["config"], manifest["layers"], null, null]);
        }),
    ),
    (
        "a layer that is named by a list",
        Change::Manifest(|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"][0] = json!([LAYER, layer["digest"], layer["size"], null, {}]);
        }),
    ),
    (
        "a manifest without layers",
        Change::Manifest(|manifest| drop(manifest.as_object_mut().unwrap().remove("layers"))),
    ),
    ("a manifest whose layers are null", Change::Manifest(|manifest| manifest["layers"] = Value::Null)),
    (
        "a manifest with 5,000 layers",
        Change::Manifest(|manifest| {
            manifest["layers"] = json!(vec![manifest["layers"][0].clone(); 5000]);
        }),
    ),
    (
        "a manifest that is nested 100,000 deep",
        Change::Layout(|files| {
            let text = deep(&files.manifest().to_string(), 100_000);
            let named = files.put(MANIFEST, text.as_bytes());
            files.name(&[named]);
        }),
    ),
    ("a configuration that is nested 100,000 deep", Change::Text(|text| deep(&text, 100_000))),
    (
        "a configuration of 5 MiB",
        Change::Text(|text| text.replacen('{', &format!("{{\"x\":\"{}\",", "x".repeat(5 << 20)), 1)),
    ),
    (
        "a configuration with numbers of 1,000 digits",
        Change::Text(|text| text.replacen('{', &format!("{{\"x\":{},", "9".repeat(1000)), 1)),
    ),
    ("a configuration with a key twice", Change::Text(|text| text.replacen('{', "{\"os\":\"linux\",", 1))),
    (
        "a configuration with a user twice",
        Change::Text(|text| text.replace("\"config\":{", "\"config\":{\"User\":\"0\",\"User\":\"1\",")),
    ),
    ("a configuration that is empty", Change::Text(|_| String::new())),
    ("a configuration with text behind it", Change::Text(|text| text + "{}")),
    ("a configuration that is a list", Change::Text(|_| "[]".to_owned())),
    ("a configuration with half a surrogate", Change::Text(|text| text.replacen('{', "{\"x\":\"\\ud800\",", 1))),
    // What configurations say.
    (
        "a history longer than the layers",
        Change::Config(|config| config["history"] = json!([{}, {}, {}, { "empty_layer": true }])),
    ),
    (
        "a history of nulls",
        Change::Config(|config| {
            config["history"] = json!([{ "created": null, "created_by": null, "empty_layer": null }])
        }),
    ),
    ("a history that is no list", Change::Config(|config| config["history"] = json!("x"))),
    ("a variable without `=`", Change::Config(|config| config["config"]["Env"] = json!(["ODD", "=x", "A=1"]))),
    ("a user with a line end", Change::Config(|config| config["config"]["User"] = json!("a\nb"))),
    ("a working directory that is relative", Change::Config(|config| config["config"]["WorkingDir"] = json!("etc"))),
    (
        "fields that are null",
        Change::Config(|config| {
            config["history"] = Value::Null;
            let keys = [
                "User",
                "Env",
                "Volumes",
                "WorkingDir",
                "Labels",
                "ExposedPorts",
                "Entrypoint",
                "StopSignal",
                "Healthcheck",
                "OnBuild",
            ];
            keys.iter().for_each(|key| config["config"][key] = Value::Null);
        }),
    ),
    ("a `config` that is null", Change::Config(|config| config["config"] = Value::Null)),
    ("a `config` that is a list", Change::Config(|config| config["config"] = json!([]))),
    ("a `rootfs` that is null", Change::Config(|config| config["rootfs"] = Value::Null)),
    ("a `rootfs` that is a list", Change::Config(|config| config["rootfs"] = json!([]))),
    ("an empty platform", Change::Config(|config| (config["os"], config["architecture"]) = (json!(""), json!("")))),
    ("no platform", Change::Config(|config| drop(config.as_object_mut().unwrap().remove("os")))),
    ("a platform with a line end", Change::Config(|config| config["variant"] = json!("v8\nbase x"))),
    (
        "a platform that nobody has",
        Change::Config(|config| (config["os"], config["architecture"]) = (json!("plan9"), json!("vax"))),
    ),
    ("a variable with NUL", Change::Config(|config| config["config"]["Env"] = json!(["A=\0"]))),
    ("a command with NUL", Change::Config(|config| config["config"]["Cmd"] = json!(["/bin/sh", "\0"]))),
    (
        "a check with a negative time",
        Change::Config(|config| config["config"]["Healthcheck"] = json!({ "Test": ["NONE"], "Interval": -1 })),
    ),
    ("labels that are numbers", Change::Config(|config| config["config"]["Labels"] = json!({ "a": 1 }))),
    // Entries of layers.
    ("the same layer twice", Change::Layers(|| vec![of(&good()), of(&good())])),
    ("a layer without entries", Change::Layers(|| with(&[]))),
    ("a layer of no bytes", Change::Layers(|| vec![sent(Vec::new(), b"")])),
    ("an entry twice", Change::Layers(|| with(&[member("a", b'0', "", b"1"), member("a", b'0', "", b"2")]))),
    (
        "a file where a directory was",
        Change::Layers(|| with(&[member("a/b", b'0', "", b"1"), member("a", b'0', "", b"2")])),
    ),
    ("a path below a file", Change::Layers(|| with(&[member("a", b'0', "", b"1"), member("a/b", b'0', "", b"2")]))),
    (
        "a whiteout of all in the lowest layer",
        Change::Layers(|| with(&[member(".wh..wh..opq", b'0', "", b""), member("a", b'0', "", b"")])),
    ),
    ("a whiteout of what is not there", Change::Layers(|| with(&[member("x/.wh.y", b'0', "", b"")]))),
    ("a whiteout of `..`", Change::Layers(|| with(&[member("etc/.wh...", b'0', "", b"")]))),
    ("a whiteout of `.`", Change::Layers(|| with(&[member("etc/.wh..", b'0', "", b"")]))),
    ("a whiteout of nothing", Change::Layers(|| with(&[member("etc/.wh.", b'0', "", b"")]))),
    ("a name with `..`", Change::Layers(|| with(&[member("etc/../../x", b'0', "", b"")]))),
    ("an absolute name", Change::Layers(|| with(&[member("/etc/x", b'0', "", b"x")]))),
    ("a name with NUL", Change::Layers(|| with(&[records(&[("path", "a\0b")]), member("a", b'0', "", b"")]))),
    (
        "a name of 2,000 parts",
        Change::Layers(|| with(&[records(&[("path", &"d/".repeat(2000))]), member("a", b'5', "", b"")])),
    ),
    (
        "a name of 300 bytes",
        Change::Layers(|| with(&[records(&[("path", &"x".repeat(300))]), member("a", b'0', "", b"")])),
    ),
    (
        "a file behind a link to the outside",
        Change::Layers(|| with(&[member("out", b'2', "/../../tmp", b""), member("out/x", b'0', "", b"x")])),
    ),
    (
        "links in a circle",
        Change::Layers(|| {
            with(&[member("a", b'2', "b", b""), member("b", b'2', "a", b""), member("a/x", b'0', "", b"")])
        }),
    ),
    ("a hard link to nothing", Change::Layers(|| with(&[member("a", b'1', "b", b"")]))),
    ("a hard link to the outside", Change::Layers(|| with(&[member("a", b'1', "../b", b"")]))),
    (
        "a hard link to a directory",
        Change::Layers(|| with(&[member("d/", b'5', "", b""), member("a", b'1', "d", b"")])),
    ),
    (
        "an attribute without a name",
        Change::Layers(|| with(&[records(&[("SCHILY.xattr.", "x")]), member("a", b'0', "", b"")])),
    ),
    (
        "an attribute of 70,000 bytes",
        Change::Layers(|| {
            with(&[records(&[("SCHILY.xattr.user.x", &"x".repeat(70_000))]), member("a", b'0', "", b"")])
        }),
    ),
    ("an entry of an unknown type", Change::Layers(|| with(&[member("a", b'Z', "", b"")]))),
    (
        "a wrong checksum",
        Change::Layers(|| {
            let mut bytes = good();
            bytes[0] ^= 1;
            vec![of(&bytes)]
        }),
    ),
    (
        "a header for all that follows with a path",
        Change::Layers(|| {
            let mut global = records(&[("path", "x")]);
            global[156] = b'g';
            let sum: u32 = global[..512]
                .iter()
                .enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
                .sum();
            global[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            with(&[global, member("a", b'0', "", b"")])
        }),
    ),
    // Bytes behind the end, and too few.
    ("text behind gzip", Change::Layers(|| vec![sent([&gzip(&good())[..], b"text"].concat(), &good())])),
    ("zeros behind gzip", Change::Layers(|| vec![sent([&gzip(&good())[..], &[0; 512]].concat(), &good())])),
    ("text behind zstd", Change::Layers(|| vec![sent([&zstd(&good())[..], b"text"].concat(), &good())])),
    ("text behind the archive", Change::Layers(|| vec![of(&[&good()[..], b"text"].concat())])),
    (
        "another archive behind the archive",
        Change::Layers(|| vec![of(&[good(), tar(&[member("hidden", b'0', "", b"")])].concat())]),
    ),
    (
        "two members of gzip",
        Change::Layers(|| {
            let (head, tail) = (good()[..700].to_vec(), good()[700..].to_vec());
            vec![sent([gzip(&head), gzip(&tail)].concat(), &good())]
        }),
    ),
    ("gzip that is cut in its header", Change::Layers(|| cut(gzip, |_| 5))),
    ("gzip that is cut in the middle", Change::Layers(|| cut(gzip, |length| length / 2))),
    ("gzip that is cut before its checksum", Change::Layers(|| cut(gzip, |length| length - 8))),
    (
        "gzip with a wrong checksum",
        Change::Layers(|| {
            let mut blob = gzip(&good());
            let at = blob.len() - 8;
            blob[at] ^= 1;
            vec![sent(blob, &good())]
        }),
    ),
    ("zstd that is cut in its header", Change::Layers(|| cut(zstd, |_| 5))),
    ("zstd that is cut in the middle", Change::Layers(|| cut(zstd, |length| length / 2))),
    ("zstd that is cut by a byte", Change::Layers(|| cut(zstd, |length| length - 1))),
    ("an archive that is cut in a header", Change::Layers(|| vec![of(&good()[..800])])),
    ("an archive that is cut in a content", Change::Layers(|| vec![of(&good()[..3000])])),
    ("an archive without its end", Change::Layers(|| vec![of(&good()[..good().len() - 1024])])),
    ("a layer that is no archive", Change::Layers(|| vec![of(&[b'x'; 3000])])),
    ("a layer of xz", Change::Layers(|| vec![sent([&b"\xfd7zXZ\0"[..], &[0; 100]].concat(), &good())])),
    // Tables of contents.
    (
        "zstd:chunked with a table that is none",
        Change::Layers(|| {
            let table = b"\x50\x2a\x4d\x18\x05\0\0\0table";
            let mut layer = sent([&zstd(&good())[..], table].concat(), &good());
            layer.annotations = json!({
                "io.github.containers.zstd-chunked.manifest-checksum": NOTHING,
                "io.github.containers.zstd-chunked.manifest-position": "18446744073709551615:5:5:1",
            });
            vec![layer]
        }),
    ),
    (
        "eStargz with a table of other files",
        Change::Layers(|| {
            let table =
                json!({ "version": 1, "entries": [{ "name": "other", "type": "reg", "size": 9, "digest": NOTHING }] });
            let own = tar(&[
                member("etc/a", b'0', "", &[b'a'; 5000]),
                member("stargz.index.json", b'0', "", table.to_string().as_bytes()),
            ]);
            let mut layer = of(&own);
            layer.annotations = json!({ "containerd.io/snapshot/stargz/toc.digest": NOTHING });
            vec![layer]
        }),
    ),
    // Bombs.
    ("gzip of very many zeros", Change::Layers(|| with(&[member("zeros", b'0', "", &vec![0; 16 << 20])]))),
    (
        "zstd with a window of 2 GiB",
        Change::Layers(|| {
            // A frame with its own window, 2^31 bytes, and one raw block.
            let blob = [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00][..], b"x"].concat();
            vec![sent(blob, b"x")]
        }),
    ),
    (
        "a file that is longer than its archive",
        Change::Layers(|| vec![of(&stated("a", b'0', "", b"", "777777777777"))]),
    ),
    (
        "a sparse file of exabytes",
        Change::Layers(|| {
            let map = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.name", "a"), ("GNU.sparse.map", "")];
            with(&[records(&map), member("a", b'0', "", b"")])
        }),
    ),
    (
        "20,000 entries in few bytes",
        Change::Layers(|| {
            let entry = |number: usize| member(&format!("{}/{number}", number % 100), b'0', "", b"");
            vec![sent(
                zstd(&tar(&(0..20_000).map(entry).collect::<Vec<_>>())),
                &tar(&(0..20_000).map(entry).collect::<Vec<_>>()),
            )]
        }),
    ),
    // Archives that images come in.
    (
        "an archive with absolute names",
        Change::Archive(|files| {
            tar(&files.0.iter().map(|(path, bytes)| member(&format!("/{path}"), b'0', "", bytes)).collect::<Vec<_>>())
        }),
    ),
    (
        "an archive with a name of `..`",
        Change::Archive(|files| files.tar_with(&[member("../../x", b'0', "", b"x")], &[])),
    ),
    ("an archive with a device", Change::Archive(|files| files.tar_with(&[member("dev", b'3', "", b"")], &[]))),
    (
        "an archive with a layer behind a link",
        Change::Archive(|files| {
            let layer = files.layer();
            let up = "../".repeat(layer.matches('/').count());
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member("elsewhere/layer", b'0', "", &files.0[&layer]));
            members.push(member(&layer, b'2', &format!("{up}elsewhere/layer"), b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer behind a link to the outside",
        Change::Archive(|files| {
            let layer = files.layer();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&layer, b'2', "/etc/passwd", b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer behind links in a circle",
        Change::Archive(|files| {
            let layer = files.layer();
            let name = layer.rsplit('/').next().unwrap();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&layer, b'2', name, b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer that is a directory",
        Change::Archive(|files| {
            let layer = files.layer();
            let others =
                files.0.iter().filter(|(path, _)| **path != layer).map(|(path, bytes)| member(path, b'0', "", bytes));
            let mut members: Vec<Vec<u8>> = others.collect();
            members.push(member(&format!("{layer}/"), b'5', "", b""));
            tar(&members)
        }),
    ),
    (
        "an archive with a layer twice",
        Change::Archive(|files| {
            let layer = files.layer();
            files.tar_with(&[member(&layer, b'0', "", b"something else")], &[])
        }),
    ),
    (
        "an archive that is cut",
        Change::Archive(|files| {
            // In the content of the first file.
            files.tar()[..600].to_vec()
        }),
    ),
    ("an archive of no bytes", Change::Archive(|_| Vec::new())),
    ("an archive that is none", Change::Archive(|_| vec![b'x'; 3000])),
    (
        "an archive in zstd that is cut",
        Change::Archive(|files| {
            let whole = zstd(&files.tar());
            whole[..whole.len() / 2].to_vec()
        }),
    ),
    ("an archive in gzip with text behind it", Change::Archive(|files| [&gzip(&files.tar())[..], b"text"].concat())),
    (
        "an archive with a sparse file of exabytes",
        Change::Archive(|files| {
            let map = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.name", "a"), ("GNU.sparse.map", "")];
            files.tar_with(&[records(&map), member("a", b'0', "", b"")], &[])
        }),
    ),
    // What `docker save` writes.
    (
        "two saved images and no name",
        Change::Saved(|files| {
            files.change("manifest.json", |list| {
                let mut other = list[0].clone();
                other["RepoTags"] = json!(["other/app:2"]);
                list.as_array_mut().unwrap().push(other);
            });
        }),
    ),
    ("no saved image", Change::Saved(|files| files.change("manifest.json", |list| *list = json!([])))),
    (
        "a list of saved images that is an object",
        Change::Saved(|files| files.change("manifest.json", |list| *list = list[0].clone())),
    ),
    (
        "a saved image without names",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["RepoTags"] = Value::Null)),
    ),
    (
        "a saved image without layers",
        Change::Saved(|files| {
            files.change("manifest.json", |list| drop(list[0].as_object_mut().unwrap().remove("Layers")));
        }),
    ),
    ("a saved layer that is missing", Change::Saved(|files| drop(files.0.remove("0.tar")))),
    ("a saved configuration that is missing", Change::Saved(|files| drop(files.0.remove("config.json")))),
    (
        "a saved layer at `..`",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("../../etc/passwd"))),
    ),
    (
        "a saved layer at an absolute path",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("/etc/passwd"))),
    ),
    (
        "a saved layer with NUL in its name",
        Change::Saved(|files| files.change("manifest.json", |list| list[0]["Layers"][0] = json!("0.tar\0"))),
    ),
    (
        "a saved layer too many",
        Change::Saved(|files| {
            files.change("manifest.json", |list| list[0]["Layers"].as_array_mut().unwrap().push(json!("0.tar")));
        }),
    ),
    (
        "a saved configuration of 5 MiB",
        Change::Saved(|files| files.0.get_mut("config.json").unwrap().resize(5 << 20, b' ')),
    ),
    ("an archive without a list of saved images", Change::Saved(|files| drop(files.0.remove("manifest.json")))),
    (
        "a list of saved images that is nested 100,000 deep",
        Change::Saved(|files| {
            let text = String::from_utf8(files.0["manifest.json"].clone()).unwrap();
            files.0.insert("manifest.json".to_owned(), deep(&text, 100_000).into_bytes());
        }),
    ),
    // Folders of skopeo's.
    (
        "a folder that names a later version",
        Change::Folder(|files| {
            drop(files.0.insert("version".to_owned(), b"Directory Transport Version: 2.0\n".to_vec()))
        }),
    ),
    (
        "a folder that names a version of control characters",
        Change::Folder(|files| drop(files.0.insert("version".to_owned(), b"\x1b[31m".to_vec()))),
    ),
    ("a folder that names no version", Change::Folder(|files| drop(files.0.remove("version")))),
    ("a folder without a manifest", Change::Folder(|files| drop(files.0.remove("manifest.json")))),
    (
        "a manifest in a folder that is text",
        Change::Folder(|files| drop(files.0.insert("manifest.json".to_owned(), b"text".to_vec()))),
    ),
    (
        "a manifest in a folder of 5 MiB",
        Change::Folder(|files| files.0.get_mut("manifest.json").unwrap().resize(5 << 20, b' ')),
    ),
    (
        "a layer that a folder lacks",
        Change::Folder(|files| {
            let name = files.flat("/layers/0/digest");
            files.0.remove(&name);
        }),
    ),
    (
        "a configuration that a folder lacks",
        Change::Folder(|files| {
            let name = files.flat("/config/digest");
            files.0.remove(&name);
        }),
    ),
    (
        "a layer in a folder with other bytes",
        Change::Folder(|files| {
            let name = files.flat("/layers/0/digest");
            files.0.get_mut(&name).unwrap()[20] ^= 1;
        }),
    ),
    (
        "a layer in a folder that is one",
        Change::Folder(|files| {
            let name = files.flat("/layers/0/digest");
            files.0.remove(&name);
            files.0.insert(format!("{name}/x"), Vec::new());
        }),
    ),
    ("an index in a folder", Change::Folder(|files| list(files, true))),
    ("an index in a folder without the image", Change::Folder(|files| list(files, false))),
    ("a folder that is a file", Change::Name("dir", "dir:cas.toml")),
    ("a folder that is missing", Change::Name("dir", "dir:../bad")),
    // Root file systems.
    ("a root file system that is in order", Change::Root(good)),
    ("a root file system in gzip", Change::Root(|| gzip(&good()))),
    ("a root file system in zstd", Change::Root(|| zstd(&good()))),
    ("a root file system in xz", Change::Root(|| xz(&good()))),
    ("a root file system of no bytes", Change::Root(Vec::new)),
    ("a root file system that is no archive", Change::Root(|| vec![b'x'; 3000])),
    ("a root file system that is cut", Change::Root(|| good()[..2000].to_vec())),
    (
        "a root file system in gzip that is cut",
        Change::Root(|| {
            let whole = gzip(&good());
            whole[..whole.len() / 2].to_vec()
        }),
    ),
    (
        "a root file system in xz that is cut",
        Change::Root(|| {
            let whole = xz(&good());
            whole[..whole.len() / 2].to_vec()
        }),
    ),
    ("a root file system with a name of `..`", Change::Root(|| tar(&[member("../../x", b'0', "", b"x")]))),
    ("a root file system with a device", Change::Root(|| tar(&[member("null", b'3', "", b"")]))),
    ("a root file system with a whiteout", Change::Root(|| tar(&[member(".wh.etc", b'0', "", b"")]))),
    ("a root file system with text behind it", Change::Root(|| [&good()[..], b"text"].concat())),
    (
        "a root file system with a sparse file of exabytes",
        Change::Root(|| {
            let map = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.name", "a"), ("GNU.sparse.map", "")];
            tar(&[records(&map), member("a", b'0', "", b"")])
        }),
    ),
    ("a root file system that is a folder", Change::Name("tar", "tar:..")),
    ("a root file system that is missing", Change::Name("tar", "tar:../bad.tar")),
    ("a root file system without a name", Change::Name("tar", "tar:")),
];

/// Puts an index over the manifest of a folder, which stays under its digest or goes.
fn list(files: &mut Files, has_image: bool) {
    let manifest = files.0.remove("manifest.json").unwrap();
    let item = json!({
        "mediaType": MANIFEST, "digest": sha256(&manifest), "size": manifest.len(),
        "platform": { "os": "linux", "architecture": OWN },
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [item] });
    if has_image {
        let name = sha256(&manifest).replace("sha256:", "");
        files.0.insert(format!("{name}.manifest.json"), manifest);
    }
    files.0.insert("manifest.json".to_owned(), index.to_string().into_bytes());
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn add(size: &mut Value, more: i64) {
    *size = json!(size.as_i64().unwrap() + more);
}
