//! From the text of `cas.toml` to its values: every error has its place, and all of them are told.
//!
//! Not here: what the parser says (`explain`), what steps (`step`), images (`image`), artifacts (`artifact`),
//! programs that stay (`run`) and publications (`publish`) say of themselves.

use std::collections::BTreeMap;
use std::ops::Range;

use cas_digest::{Digest, DigestFunction};
use cas_oci::ParseReferenceError;
use cas_time::parse_moment;
use cas_tree::RelPath;
use toml::Spanned;

use crate::diagnostic::Diagnostic;
use crate::explain::explain;
use crate::label::{Reference, is_target_name};
use crate::manifest::{
    Addition, Debian, DebianArchive, Fetch, Host, ImageLayer, ImageRoot, LayerSource, Located, LockfileKind,
    MAX_MANIFEST_BYTES, Manifest, Npm, NpmPackage, Rights, RootSource, Target, TargetKind, Toolchain, WorkspaceSection,
};
use crate::raw;
use crate::step::Defaults;
use crate::version::is_version;

/// Most archives that a toolchain's packages come from.
const MAX_ARCHIVES: usize = 16;

impl Manifest {
    /// Parses and checks the `cas.toml` of a workspace's root.
    ///
    /// # Errors
    ///
    /// Every finding that the checks made; a text that is not TOML of this shape gives the first one alone.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_with(text, None)
    }

    /// Parses and checks the `cas.toml` of another package. `inherited` are the root's.
    ///
    /// # Errors
    ///
    /// As for [`Manifest::parse`].
    pub fn parse_member(text: &str, inherited: &Defaults) -> Result<Self, Vec<Diagnostic>> {
        Self::parse_with(text, Some(inherited))
    }

    fn parse_with(text: &str, inherited: Option<&Defaults>) -> Result<Self, Vec<Diagnostic>> {
        if text.len() as u64 > MAX_MANIFEST_BYTES {
            let message = format!("the file is longer than {MAX_MANIFEST_BYTES} bytes");
            return Err(vec![Diagnostic { message, span: None, hint: None }]);
        }
        let file: raw::File = toml::from_str(text).map_err(|error| vec![explain(&error, text)])?;
        let mut checker = Checker::default();
        let manifest = checker.manifest(file, inherited);
        if checker.findings.is_empty() {
            Ok(manifest)
        } else {
            checker.findings.sort_by_key(|finding| finding.span.as_ref().map(|span| span.start));
            Err(checker.findings)
        }
    }
}

#[derive(Default)]
pub(crate) struct Checker {
    findings: Vec<Diagnostic>,
}

impl Checker {
    pub(crate) fn report(&mut self, finding: Diagnostic) {
        self.findings.push(finding);
    }

    /// Number of findings so far.
    pub(crate) fn count(&self) -> usize {
        self.findings.len()
    }

    fn manifest(&mut self, file: raw::File, inherited: Option<&Defaults>) -> Manifest {
        let workspace = file.workspace.map(|section| {
            let section = section.into_inner();
            let digest_function = section.digest_function.map_or(DigestFunction::Blake3, |text| self.function(&text));
            WorkspaceSection { members: section.members, digest_function, inputs: section.inputs }
        });
        let defaults = match (file.defaults, inherited) {
            (Some(section), Some(_)) => {
                let finding = Diagnostic::new("`[defaults]` is for the root of the workspace", section.span());
                self.report(finding.with_hint("move it to the root's `cas.toml`"));
                Defaults::default()
            }
            (Some(section), None) => self.defaults(section.into_inner()),
            (None, inherited) => inherited.cloned().unwrap_or_default(),
        };
        let version = file.version.map(|text| {
            if !is_version(text.get_ref()) {
                let finding = Diagnostic::new(format!("`{}` is not a version", text.get_ref()), text.span());
                self.report(finding.with_hint("write `1.4.0`, or `1.4.0-rc.1`"));
            }
            text.into_inner()
        });
        let mirrors = self.mirrors(file.mirror, inherited.is_none());
        let mut targets = BTreeMap::new();
        for (name, section) in file.toolchain {
            let span = section.span();
            if let Some(toolchain) = self.toolchain(section.into_inner(), span) {
                self.add(&mut targets, &name, TargetKind::Toolchain(toolchain));
            }
        }
        for (name, section) in file.fetch {
            let span = section.span();
            if let Some(fetch) = self.fetch(section.into_inner(), span) {
                self.add(&mut targets, &name, TargetKind::Fetch(fetch));
            }
        }
        for (name, section) in file.command {
            if let Some(command) = self.command(&name, section, defaults.command(name.get_ref())) {
                self.add(&mut targets, &name, TargetKind::Command(command));
            }
        }
        for (name, section) in file.test {
            if let Some(outputs) = section.get_ref().outputs.as_ref().filter(|outputs| !outputs.is_empty()) {
                self.report(Diagnostic::new("a test has no outputs", outputs[0].span()).with_hint("make it a command"));
            }
            if let Some(command) = self.command(&name, section, defaults.test(name.get_ref())) {
                self.add(&mut targets, &name, TargetKind::Test(command));
            }
        }
        for (name, section) in file.image {
            let image = self.image(section.into_inner());
            self.add(&mut targets, &name, TargetKind::Image(image));
        }
        for (name, section) in file.artifact {
            if let Some(artifact) = self.artifact(section.into_inner()) {
                self.add(&mut targets, &name, TargetKind::Artifact(artifact));
            }
        }
        for (name, section) in file.npm {
            let from = section.into_inner().from.map_or_else(Vec::new, |from| {
                let span = from.span();
                let texts = from.into_inner().into_vec();
                texts.iter().filter_map(|text| self.one_reference(text, span.clone())).collect()
            });
            self.add(&mut targets, &name, TargetKind::Npm(Npm { from }));
        }
        for (name, section) in file.run {
            if let Some(run) = self.run_section(&name, section, &defaults) {
                self.add(&mut targets, &name, TargetKind::Run(run));
            }
        }
        let mut publications = BTreeMap::new();
        for (name, section) in file.publish {
            let span = section.span();
            let publication = self.publication(&name, section.into_inner(), span);
            if self.is_free(&targets, &name, "publication") {
                publications.insert(name.get_ref().as_str().into(), publication);
            }
        }
        Manifest { workspace, defaults, targets, publications, version, mirrors }
    }

    /// `[mirror]`: beginnings of addresses, without a scheme on the left.
    fn mirrors(&mut self, section: BTreeMap<raw::Text, raw::Text>, is_root: bool) -> BTreeMap<String, String> {
        let mut mirrors = BTreeMap::new();
        for (from, to) in section {
            if !is_root {
                let finding = Diagnostic::new("`[mirror]` is for the root of the workspace", from.span());
                self.report(finding.with_hint("move it to the root's `cas.toml`"));
                break;
            }
            let (host, address) = (from.get_ref().trim_end_matches('/'), to.get_ref().trim_end_matches('/'));
            if host.is_empty() || host.contains("://") || host.contains(['@', '?', '#', ' ']) {
                let finding = Diagnostic::new(format!("`{}` is not a host", from.get_ref()), from.span());
                self.report(
                    finding.with_hint("write `registry.example.org`, or a host and a path, without `https://`"),
                );
            }
            let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
            let known = ["http://", "https://", "file:///"];
            let place = address.split_once("://").map_or("", |(_, place)| place);
            if !known.iter().any(|scheme| address.starts_with(scheme)) || place.is_empty() || place.contains('@') {
                // What stands before an `@` may be a password.
                let shown = to.get_ref().rsplit('@').next().unwrap_or_default();
                let message = format!("`{shown}` is not an address that can be fetched");
                self.report(
                    Diagnostic::new(message, to.span()).with_hint("write a host, or an address without credentials"),
                );
            }
            mirrors.insert(host.to_owned(), address);
        }
        mirrors
    }

    fn add(&mut self, targets: &mut BTreeMap<Box<str>, Target>, name: &raw::Text, kind: TargetKind) {
        if self.is_free(targets, name, kind.name()) {
            targets.insert(name.get_ref().as_str().into(), Target { span: name.span(), kind });
        }
    }

    /// Whether something can have a name.
    fn is_free(&mut self, targets: &BTreeMap<Box<str>, Target>, name: &raw::Text, kind: &str) -> bool {
        let text = name.get_ref().as_str();
        if !is_target_name(text) {
            let message = format!("`{text}` is not a name of a target");
            self.report(Diagnostic::new(message, name.span()).with_hint("use letters, digits, `-`, `_` and `.`"));
            return false;
        }
        if let Some(other) = targets.get(text) {
            let message = format!("`{text}` is the name of a {} and of a {kind}", other.kind.name());
            let finding = Diagnostic::new(message, name.span());
            self.report(finding.with_hint("names are unique in a package, across kinds"));
            return false;
        }
        true
    }

    fn function(&mut self, text: &raw::Text) -> DigestFunction {
        match text.get_ref().as_str() {
            "blake3" => DigestFunction::Blake3,
            "sha256" => DigestFunction::Sha256,
            other => {
                let finding = Diagnostic::new(format!("unknown digest function `{other}`"), text.span());
                self.report(finding.with_hint("write \"blake3\" or \"sha256\""));
                DigestFunction::Blake3
            }
        }
    }

    fn toolchain(&mut self, section: raw::Toolchain, span: Range<usize>) -> Option<Toolchain> {
        match section {
            raw::Toolchain { debian: Some(debian), image: None, host: None, add } => {
                let add = add.into_iter().filter_map(|addition| self.addition(addition)).collect();
                Some(Toolchain::Debian(Debian { add, ..self.debian(debian) }))
            }
            raw::Toolchain { debian: None, image: Some(image), host: None, add } => {
                let add = add.into_iter().filter_map(|addition| self.addition(addition)).collect();
                Some(Toolchain::Image(ImageRoot { source: self.image_source(&image)?, add }))
            }
            raw::Toolchain { debian: None, image: None, host: Some(host), add } => {
                if let Some(first) = add.first() {
                    let finding = Diagnostic::new("nothing is added to what a machine has", first.span());
                    self.report(finding.with_hint("name it in `deps` of the steps, or use a `debian` toolchain"));
                }
                Some(Toolchain::Host(self.host(host)))
            }
            _ => {
                self.report(Diagnostic::new("a toolchain is one of `debian`, `image` and `host`", span));
                None
            }
        }
    }

    fn image_source(&mut self, text: &raw::Text) -> Option<RootSource> {
        if text.get_ref().starts_with(['/', ':', '^']) {
            return self.one_target(text).map(RootSource::Target);
        }
        match text.get_ref().parse() {
            Ok(source) => Some(RootSource::Place(source)),
            Err(error) => {
                let error: ParseReferenceError = error;
                self.report(Diagnostic::new(error.to_string(), text.span()).with_hint(error.hint()));
                None
            }
        }
    }

    fn addition(&mut self, section: Spanned<raw::Addition>) -> Option<Addition> {
        let span = section.span();
        match section.into_inner() {
            raw::Addition { from: Some(from), path, to: Some(to), link: None, target: None } => {
                let path = path.as_ref().and_then(|text| self.path(text));
                let (from, to) = (self.one_target(&from)?, self.absolute(&to)?);
                Some(Addition::Outputs(ImageLayer {
                    from: LayerSource::Outputs(from),
                    path,
                    exclude: Vec::new(),
                    to,
                    production: false,
                    rights: Rights::default(),
                    is_whole: false,
                }))
            }
            raw::Addition { from: None, path: None, to: None, link: Some(link), target: Some(target) } => {
                if target.get_ref().is_empty() || target.get_ref().contains('\0') {
                    self.report(Diagnostic::new("a link leads somewhere", target.span()));
                }
                if let Some(None) = self.absolute(&link) {
                    self.report(Diagnostic::new("the root is no link", link.span()));
                }
                let at = RelPath::new(link.get_ref().trim_start_matches('/').trim_end_matches('/')).ok()?;
                Some(Addition::Link { at, target: target.into_inner() })
            }
            _ => {
                let finding = Diagnostic::new("an addition is one of `from` with `to`, and `link` with `target`", span);
                self.report(finding);
                None
            }
        }
    }

    fn host(&mut self, section: raw::Host) -> Host {
        let raw::Host { identity, paths, probe } = section;
        let mut shown: Vec<Box<str>> = Vec::new();
        for text in paths {
            match self.absolute(&text) {
                Some(Some(path)) => shown.push(format!("/{path}").into()),
                Some(None) => {
                    let finding = Diagnostic::new("the whole root of the machine cannot be shown", text.span());
                    self.report(finding.with_hint("name the folders that the steps need"));
                }
                None => {}
            }
        }
        shown.sort();
        shown.dedup();
        let mut probes = Vec::new();
        for text in probe {
            if text.get_ref().trim().is_empty() {
                self.report(Diagnostic::new("a probe is empty", text.span()).with_hint("write `node --version`"));
            }
            probes.push(text.into_inner().into());
        }
        Host { identity, paths: shown, probe: probes }
    }

    fn debian(&mut self, section: raw::Debian) -> Debian {
        let raw::Debian { suite, components, packages, mirror, keyring, as_of, also, configure } = section;
        let also = also.unwrap_or_default();
        if also.len() >= MAX_ARCHIVES {
            let message = format!("`also` names {} archives", also.len());
            self.report(Diagnostic::new(message, suite.span()).with_hint(format!("name at most {}", MAX_ARCHIVES - 1)));
        }
        let packages = self.debian_words(&packages, "Debian package");
        let archives = std::iter::once(raw::Archive { suite, components, mirror, keyring }).chain(also);
        let archives = archives.map(|archive| self.archive(archive)).collect();
        let as_of = as_of.and_then(|text| self.moment(&text));
        Debian { archives, packages, add: Vec::new(), configure, as_of }
    }

    fn moment(&mut self, text: &raw::Text) -> Option<Located<u64>> {
        let moment = parse_moment(text.get_ref());
        if moment.is_none() {
            let finding = Diagnostic::new(format!("`{}` is not a date in UTC", text.get_ref()), text.span());
            self.report(finding.with_hint("write `2026-08-01`, or `2026-08-01T12:30:00Z`"));
        }
        Some(Located { value: moment?, span: text.span() })
    }

    fn archive(&mut self, section: raw::Archive) -> DebianArchive {
        let raw::Archive { suite, components, mirror, keyring } = section;
        self.debian_words(std::slice::from_ref(&suite), "suite");
        let components = components.map_or_else(|| vec!["main".into()], |texts| self.debian_words(&texts, "component"));
        if components.is_empty() {
            self.report(Diagnostic::new("`components` is empty", suite.span()));
        }
        let mirror = mirror.map(|mirror| {
            self.address(&mirror);
            mirror.get_ref().trim_end_matches('/').to_owned()
        });
        let keyring = keyring.and_then(|keyring| self.path(&keyring));
        DebianArchive { suite: suite.get_ref().as_str().into(), components, mirror, keyring }
    }

    fn debian_words(&mut self, texts: &[raw::Text], what: &str) -> Vec<Box<str>> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'+');
        let mut words: Vec<Box<str>> = Vec::new();
        for text in texts {
            if text.get_ref().is_empty() || !text.get_ref().bytes().all(word) {
                let message = format!("`{}` is not a name of a {what}", text.get_ref());
                self.report(Diagnostic::new(message, text.span()));
            }
            words.push(text.get_ref().as_str().into());
        }
        words.sort();
        words.dedup();
        words
    }

    fn address(&mut self, url: &raw::Text) {
        let known = ["http://", "https://", "file://"];
        if !known.iter().any(|scheme| url.get_ref().starts_with(scheme)) {
            let message = format!("`{}` is not an address that can be fetched", url.get_ref());
            self.report(Diagnostic::new(message, url.span()).with_hint("write one that begins with `https://`"));
        }
    }

    fn fetch(&mut self, section: raw::Fetch, span: Range<usize>) -> Option<Fetch> {
        match section {
            raw::Fetch { url: Some(url), sha256: Some(sha256), npm: None, lockfile: None } => {
                let located = Located { value: url.get_ref().clone(), span: url.span() };
                self.address(&url);
                match Digest::from_hex(DigestFunction::Sha256, sha256.get_ref()) {
                    Ok(digest) => Some(Fetch::Url { url: located, digest }),
                    Err(error) => {
                        self.report(Diagnostic::new(format!("`sha256` is not a digest: {error}"), sha256.span()));
                        None
                    }
                }
            }
            raw::Fetch { url: None, sha256: None, npm: Some(npm), lockfile: None } => {
                let package = npm.get_ref().rsplit_once('@').filter(|(name, version)| {
                    is_npm_name(name) && version.bytes().next().is_some_and(|first| first.is_ascii_digit())
                });
                if let Some((name, version)) = package {
                    let value = NpmPackage { name: name.into(), version: version.into() };
                    return Some(Fetch::Npm(Located { value, span: npm.span() }));
                }
                let message = format!("`{}` is not a package with an exact version", npm.get_ref());
                self.report(Diagnostic::new(message, npm.span()).with_hint("write `name@1.2.3`"));
                None
            }
            raw::Fetch { url: None, sha256: None, npm: None, lockfile: Some(lockfile) } => {
                let value = self.path(&lockfile)?;
                if LockfileKind::of(&value).is_none() {
                    let finding = Diagnostic::new(format!("`{value}` is no lockfile that is known"), lockfile.span());
                    let known = LockfileKind::ALL.map(LockfileKind::file_name).join(", ");
                    self.report(finding.with_hint(format!("known: {known}")));
                }
                Some(Fetch::Lockfile(Located { value, span: lockfile.span() }))
            }
            _ => {
                let finding = Diagnostic::new("a fetch is one of `url` with `sha256`, `npm`, or `lockfile`", span);
                self.report(finding);
                None
            }
        }
    }

    pub(crate) fn located(&mut self, text: &raw::Text) -> Option<Located<Reference>> {
        self.reference(text.get_ref(), text.span())
    }

    /// The label of one target, where `^name` would stand for any number of them.
    pub(crate) fn one_target(&mut self, text: &raw::Text) -> Option<Located<Reference>> {
        self.one_reference(text.get_ref(), text.span())
    }

    pub(crate) fn one_reference(&mut self, text: &str, span: Range<usize>) -> Option<Located<Reference>> {
        let found = self.reference(text, span)?;
        if matches!(found.value, Reference::Dependencies(_)) {
            let finding = Diagnostic::new(format!("`{text}` stands for many targets"), found.span);
            self.report(finding.with_hint("name each of them"));
            return None;
        }
        Some(found)
    }

    pub(crate) fn reference(&mut self, text: &str, span: Range<usize>) -> Option<Located<Reference>> {
        match text.parse() {
            Ok(value) => Some(Located { value, span }),
            Err(error) => {
                let finding = Diagnostic::new(error.to_string(), span);
                self.report(match error.hint() {
                    Some(hint) => finding.with_hint(hint),
                    None => finding,
                });
                None
            }
        }
    }

    pub(crate) fn path(&mut self, text: &raw::Text) -> Option<RelPath> {
        let trimmed = text.get_ref().strip_prefix("./").unwrap_or(text.get_ref()).trim_end_matches('/');
        match RelPath::new(trimmed) {
            Ok(path) => Some(path),
            Err(error) => {
                let message = format!("`{}` is not a path in the package: {error}", text.get_ref());
                self.report(Diagnostic::new(message, text.span()));
                None
            }
        }
    }

    /// A path from the root on, where `Some(None)` is the root itself.
    pub(crate) fn absolute(&mut self, text: &raw::Text) -> Option<Option<RelPath>> {
        let below = text.get_ref().strip_prefix('/').map(|rest| rest.trim_end_matches('/'));
        match below {
            Some("") => Some(None),
            _ if text.get_ref().contains('\0') => {
                self.report(Diagnostic::new("a path has a NUL byte", text.span()).with_hint("leave it out"));
                None
            }
            Some(rest) if RelPath::new(rest).is_ok() => Some(RelPath::new(rest).ok()),
            _ => {
                let message = format!("`{}` is not an absolute path", text.get_ref());
                self.report(Diagnostic::new(message, text.span()).with_hint("begin it with `/`"));
                None
            }
        }
    }
}

/// Whether a registry could hold a package of this name; npm's rule is `validate-npm-package-name`, this its safe part.
fn is_npm_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'))
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EXAMPLE: &str = r#"
[workspace]
members = ["apps/*"]
digest_function = "sha256"
[toolchain.node]
debian = { suite = "bookworm", packages = ["nodejs", "gcc", "nodejs"] }
[fetch.npm]
lockfile = "package-lock.json"
[fetch.tool]
npm = "@scope/tool@1.2.3"
[fetch.data]
url = "https://example.org/x.tar.gz"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
[command.build]
toolchain = ":node"
run = "node build.js"
deps = ["^build", "//libs/ui:dist"]
outputs = ["dist", "./types/"]
env = { MODE = "production" }
timeout = "2m"
[test.unit]
toolchain = "//:node"
run = ["node", "--test"]
[image.web]
base = ":node"
layers = [{ from = ":npm", for = "production", to = "/app/node_modules" }, { from = ":build", path = "dist", to = "/" }]
compression = "zstd"
config = { entrypoint = ["node", "/index.js"], expose = ["3000"], workdir = "/app" }
[npm.package]
from = ":build"
"#;

    #[test]
    fn everything_is_read() {
        let manifest = Manifest::parse(EXAMPLE).expect("it is right");
        assert_eq!(manifest.workspace.expect("it has one").digest_function, DigestFunction::Sha256);
        let kinds: Vec<String> =
            manifest.targets.iter().map(|(name, target)| format!("{name}:{}", target.kind.name())).collect();
        assert_eq!(
            kinds,
            [
                "build:command",
                "data:fetch",
                "node:toolchain",
                "npm:fetch",
                "package:npm",
                "tool:fetch",
                "unit:test",
                "web:image"
            ]
        );
        let TargetKind::Command(build) = &manifest.targets["build"].kind else { panic!("it is a command") };
        assert_eq!(build.timeout, Duration::from_secs(120));
        assert_eq!(build.outputs[1].value.to_string(), "types");
        assert_eq!(&EXAMPLE[build.deps[1].span.clone()], "\"//libs/ui:dist\"");
        let TargetKind::Toolchain(node) = &manifest.targets["node"].kind else { panic!("it is a toolchain") };
        let Toolchain::Debian(node) = node else { panic!("it is one of Debian") };
        assert_eq!(node.packages, ["gcc".into(), "nodejs".into()] as [Box<str>; 2]);
        let TargetKind::Image(web) = &manifest.targets["web"].kind else { panic!("it is an image") };
        assert_eq!((web.layers[1].to.as_ref(), web.config.expose.as_slice()), (None, &["3000/tcp".to_owned()][..]));
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_the_way_out() {
        let step = "[command.a]\ntoolchain = \":t\"\nrun = \"x\"\n";
        for (text, place, message, hint) in [
            ("[comand.a]".to_owned(), "comand", "unknown key `comand`", "did you mean `command`?"),
            (format!("{step}ouputs = []"), "ouputs", "unknown key `ouputs`", "did you mean `outputs`?"),
            (
                format!("{step}network = true"),
                "network",
                "`network` is not available in this version of cas",
                "remove it",
            ),
            (
                format!("{step}deps = [\"lib\"]"),
                "\"lib\"",
                "`lib` is not a label",
                "write `//folder:name`, `//:name` for the root, or `:name` for the same package",
            ),
            (
                format!("{step}outputs = [\"../x\"]"),
                "\"../x\"",
                "`../x` is not a path in the package: path has a `.` or `..` component",
                "",
            ),
            (format!("{step}outputs = [\"a\", \"a/b\"]"), "\"a/b\"", "outputs `a` and `a/b` overlap", ""),
            (format!("{step}timeout = \"soon\""), "\"soon\"", "`soon` is not a time", "write `90s`, `10m` or `2h`"),
            (
                format!("{step}[test.a]\ntoolchain = \":t\"\nrun = \"x\""),
                "a",
                "`a` is the name of a command and of a test",
                "names are unique in a package, across kinds",
            ),
            ("[command.a]\ntoolchain = \":t\"\nrun = []".to_owned(), "[]", "`run` is empty", ""),
            (
                "[fetch.a]\nnpm = \"x@latest\"".to_owned(),
                "\"x@latest\"",
                "`x@latest` is not a package with an exact version",
                "write `name@1.2.3`",
            ),
            (
                "[fetch.a]\nlockfile = \"web/yarn.lock\"".to_owned(),
                "\"web/yarn.lock\"",
                "`web/yarn.lock` is no lockfile that is known",
                "known: package-lock.json, pnpm-lock.yaml, Cargo.lock",
            ),
            (
                "[fetch.a]\nlockfile = \"../package-lock.json\"".to_owned(),
                "\"../package-lock.json\"",
                "`../package-lock.json` is not a path in the package: path has a `.` or `..` component",
                "",
            ),
            (
                "[toolchain.a]\ndebian = { suite = \"s\", packages = [], as_of = \"2026-02-29\" }".to_owned(),
                "\"2026-02-29\"",
                "`2026-02-29` is not a date in UTC",
                "write `2026-08-01`, or `2026-08-01T12:30:00Z`",
            ),
            (
                "[toolchain.a]\ndebian = { suite = \"s\", packages = [], as_of = 2026-08-01 }".to_owned(),
                "2026-08-01",
                "a date is a text here",
                "write `\"2026-08-01\"`",
            ),
            (
                "[mirror]\n\"https://x\" = \"y\"".to_owned(),
                "\"https://x\"",
                "`https://x` is not a host",
                "write `registry.example.org`, or a host and a path, without `https://`",
            ),
            (
                "[mirror]\nx = \"https://u:p@y\"".to_owned(),
                "\"https://u:p@y\"",
                "`y` is not an address that can be fetched",
                "write a host, or an address without credentials",
            ),
            (
                "[toolchain.a]\ndebian = { suite = \"s\", packages = [] }\nadd = [{ from = \":x\" }]".to_owned(),
                "{ from = \":x\" }",
                "an addition is one of `from` with `to`, and `link` with `target`",
                "",
            ),
            (
                "[workspace]\ndigest_function = \"md5\"".to_owned(),
                "\"md5\"",
                "unknown digest function `md5`",
                "write \"blake3\" or \"sha256\"",
            ),
            (
                "[image.a]\nlayers = [{ from = \":x\", to = \"app\" }]".to_owned(),
                "\"app\"",
                "`app` is not an absolute path",
                "begin it with `/`",
            ),
        ] {
            let findings = Manifest::parse(&text).expect_err("it is wrong");
            let finding = &findings[0];
            let at = finding.span.clone().map(|span| &text[span]).unwrap_or_default();
            assert_eq!(
                (at, finding.message.as_str(), finding.hint.as_deref().unwrap_or_default()),
                (place, message, hint),
                "{text}"
            );
        }
    }

    /// `^name` is for `deps` alone: everywhere else a place has one target.
    #[test]
    fn what_stands_for_many_targets_is_no_single_one() {
        let debian = "debian = { suite = \"s\", packages = [] }";
        for text in [
            "[image.a]\nbase = \"^build\"".to_owned(),
            "[image.a]\nlayers = [{ from = \"^build\", to = \"/\" }]".to_owned(),
            "[artifact.a]\ntype = \"a/b\"\nsubject = \"^build\"".to_owned(),
            "[artifact.a]\ntype = \"a/b\"\nfiles = [{ from = \"^build\" }]".to_owned(),
            "[artifact.a]\ntype = \"a/b\"\nconfig = { from = \"^build\", media_type = \"a/b\" }".to_owned(),
            "[toolchain.a]\nimage = \"^build\"".to_owned(),
            format!("[toolchain.a]\n{debian}\nadd = [{{ from = \"^build\", to = \"/x\" }}]"),
            "[command.a]\nrun = \"x\"\ntoolchain = \"^build\"".to_owned(),
            "[defaults]\ntoolchain = \"^build\"".to_owned(),
            "[npm.a]\nfrom = \"^build\"".to_owned(),
        ] {
            let findings = Manifest::parse(&text).expect_err(&text);
            let finding = &findings[0];
            let at = finding.span.clone().map(|span| &text[span]).unwrap_or_default();
            assert_eq!(
                (at, finding.message.as_str(), finding.hint.as_deref()),
                ("\"^build\"", "`^build` stands for many targets", Some("name each of them")),
                "{text}"
            );
        }
    }

    #[test]
    fn all_findings_are_told_in_order() {
        let text = "[command.a]\ntoolchain = \"t\"\nrun = \"\"\ntimeout = \"0s\"\n";
        let findings = Manifest::parse(text).expect_err("it is wrong");
        let positions: Vec<_> = findings.iter().map(|finding| finding.position(text)).collect();
        assert_eq!(positions, [Some((2, 13)), Some((3, 7)), Some((4, 11))]);
    }
}
