//! What `[image.NAME]` says: layers with their rights and owners, the configuration, the form of the documents.
//!
//! Not here: whether the users exist that it names (`cas-build`, in the files of the image).

use std::collections::{BTreeMap, BTreeSet};

use cas_oci::{DOCKER_HUB, Healthcheck, ImageFormat, ImageSource, ParseReferenceError, TargetPlatform};
use toml::Spanned;

use crate::check::Checker;
use crate::diagnostic::Diagnostic;
use crate::label::{Reference, is_target_name};
use crate::manifest::{
    Compression, Image, ImageConfig, ImageLayer, LayerSource, Located, Owner, Principal, Rights, Stamp,
};
use crate::nearest::nearest;
use crate::raw;

/// Into how many layers trees are cut where nobody says how many.
const DEFAULT_LAYERS: usize = 120;
/// Docker's clients take no more.
const MOST_LAYERS: usize = 127;
/// Signals of Linux with names that are the same on every machine; `SIGRTMIN+N` beside them.
const SIGNALS: [&str; 30] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGKILL",
    "SIGPIPE",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
];
/// Highest number of a real-time signal behind `SIGRTMIN`.
const MAX_REAL_TIME: u8 = 30;
/// Times of a check.
const UNITS: [(&str, u64); 4] =
    [("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// A name for the toolchain of an image of others, and how the image is written there, where a text that should be a label names one.
/// No registry is meant without its host, so the text is what would be Docker's public one.
fn image_of_others(text: &str) -> Option<(String, String)> {
    if text.starts_with(['/', ':', '^']) {
        return None;
    }
    let image = match text.parse::<ImageSource>() {
        Ok(_) => text.to_owned(),
        Err(ParseReferenceError::NoHost { .. }) if text.contains([':', '@']) => {
            format!("{DOCKER_HUB}/{}{text}", if text.contains('/') { "" } else { "library/" })
        }
        Err(ParseReferenceError::NoVersion { .. }) => format!("{text}:TAG"),
        Err(_) => return None,
    };
    let name = image.parse::<ImageSource>().ok()?.default_name().unwrap_or_default();
    let name = name.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    Some((if is_target_name(name) { name } else { "root" }.to_owned(), image))
}

/// A time in nanoseconds, in Docker's own form: whole numbers with units, one after the other, as `1m30s`. More than none.
fn duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        // `ms` before `m`.
        let (behind, factor) = UNITS.iter().find_map(|(unit, factor)| Some((behind.strip_prefix(unit)?, *factor)))?;
        total = number.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(total)?;
        rest = behind;
    }
    (total > 0).then_some(total)
}

/// Whether a pattern looks like one of an ignore file that takes another one back. A name that begins so is written `\\!`.
fn is_negative(pattern: &str) -> bool {
    pattern.starts_with('!')
}

impl Checker {
    pub(crate) fn image(&mut self, section: raw::Image) -> Image {
        let base = section.base.and_then(|text| self.base(&text));
        let layers = section.layers.into_iter().filter_map(|layer| self.layer(layer)).collect();
        let max_layers = section.max_layers.map_or(DEFAULT_LAYERS, |number| self.max_layers(&number));
        let format = section.format.as_ref().map_or(ImageFormat::Oci, |text| self.format(text));
        let compression = section.compression.map_or(Compression::Gzip, |text| self.compression(&text, format));
        let config = self.image_config(section.config);
        if let (ImageFormat::Docker, Some((key, _))) = (format, section.annotations.first_key_value()) {
            let finding = Diagnostic::new("a manifest of Docker has no annotations", key.span());
            self.report(finding.with_hint("write `labels` of `config`, or `format = \"oci\"`"));
        }
        let annotations = self.annotations(section.annotations);
        let stamp = section.stamp.iter().filter_map(|text| self.stamp(text)).collect::<BTreeSet<_>>();
        let (platforms, stamp) = (self.platforms(&section.platforms), stamp.into_iter().collect());
        Image { base, layers, max_layers, compression, format, config, annotations, platforms, stamp }
    }

    /// The image or toolchain below.
    fn base(&mut self, text: &raw::Text) -> Option<Located<Reference>> {
        let Some((name, image)) = image_of_others(text.get_ref()) else { return self.one_target(text) };
        let message = format!("`{}` is an image of others, and `base` takes those by a toolchain", text.get_ref());
        let hint = format!("write `[toolchain.{name}]` with `image = \"{image}\"`, and here `base = \":{name}\"`");
        self.report(Diagnostic::new(message, text.span()).with_hint(hint));
        None
    }

    pub(crate) fn annotations(&mut self, section: BTreeMap<raw::Text, String>) -> BTreeMap<String, String> {
        for key in section.keys().filter(|key| key.get_ref().is_empty()) {
            let finding = Diagnostic::new("an annotation has no name", key.span());
            self.report(finding.with_hint("write `\"org.opencontainers.image.title\" = \"web\"`"));
        }
        self.named_texts("annotation", section)
    }

    fn max_layers(&mut self, number: &Spanned<u64>) -> usize {
        let most = usize::try_from(*number.get_ref()).unwrap_or(usize::MAX);
        if !(1..=MOST_LAYERS).contains(&most) {
            let finding = Diagnostic::new(format!("`{most}` is no number of layers"), number.span());
            self.report(finding.with_hint(format!("write one from 1 to {MOST_LAYERS}")));
        }
        most.clamp(1, MOST_LAYERS)
    }

    fn platforms(&mut self, texts: &[raw::Text]) -> Vec<TargetPlatform> {
        let mut platforms: Vec<TargetPlatform> = Vec::new();
        for text in texts {
            match text.get_ref().parse::<TargetPlatform>() {
                Ok(platform) => {
                    if let Some(other) = platforms.iter().find(|other| other.normalized() == platform.normalized()) {
                        let message = format!("`{platform}` is the same platform as `{other}`");
                        self.report(Diagnostic::new(message, text.span()).with_hint("name it once"));
                    }
                    platforms.push(platform);
                }
                Err(error) => {
                    self.report(Diagnostic::new(error.to_string(), text.span()).with_hint(error.hint()));
                }
            }
        }
        platforms
    }

    fn layer(&mut self, layer: raw::Layer) -> Option<ImageLayer> {
        let purpose = layer.purpose.as_ref().map(Spanned::span);
        let production = layer.purpose.is_some_and(|text| {
            if text.get_ref() != "production" {
                let message = format!("unknown purpose `{}`", text.get_ref());
                self.report(Diagnostic::new(message, text.span()).with_hint("write \"production\""));
            }
            true
        });
        let path = layer.path.as_ref().and_then(|text| self.path(text));
        let rights = Rights {
            mode: layer.mode.as_ref().and_then(|text| self.mode(text)),
            directory_mode: layer.dir_mode.as_ref().and_then(|text| self.mode(text)),
            owner: layer.owner.as_ref().and_then(|text| self.owner(text)),
        };
        let exclude = self.exclude(layer.exclude);
        let to = self.absolute(&layer.to);
        let from = match (layer.from, layer.files) {
            (Some(from), None) => LayerSource::Outputs(self.one_target(&from)?),
            (None, Some(files)) => {
                if let Some(span) = purpose {
                    let finding = Diagnostic::new("`for` selects packages of a lockfile, not files", span);
                    self.report(finding.with_hint("leave it out"));
                }
                if let Some(pattern) = files.get_ref().iter().find(|pattern| is_negative(pattern)) {
                    let finding = Diagnostic::new(format!("`{pattern}` is a pattern of what is there"), files.span());
                    self.report(finding.with_hint(format!("write `exclude = [\"{}\"]`", &pattern[1..])));
                }
                if files.get_ref().is_empty() {
                    let finding = Diagnostic::new("a layer of no files", files.span());
                    self.report(finding.with_hint("write patterns as those of `inputs`: `files = [\"src/**\"]`"));
                }
                LayerSource::Files(files.into_inner())
            }
            (Some(from), Some(_)) => {
                let finding = Diagnostic::new("a layer has either `from` or `files`", from.span());
                self.report(finding.with_hint("make two layers of it"));
                return None;
            }
            (None, None) => {
                let finding = Diagnostic::new("a layer says nothing of what is in it", layer.to.span());
                self.report(
                    finding.with_hint("write `from`, the label of a target, or `files`, patterns of the package"),
                );
                return None;
            }
        };
        let to = to?;
        let is_whole = layer.split == Some(false);
        Some(ImageLayer { from, path, exclude, to, production, rights, is_whole })
    }

    /// Globs of what is left out.
    pub(crate) fn exclude(&mut self, texts: Vec<raw::Text>) -> Vec<String> {
        for text in &texts {
            let pattern = text.get_ref();
            if is_negative(pattern) {
                let finding = Diagnostic::new(format!("`{pattern}` has a `!` too many"), text.span());
                self.report(finding.with_hint("`exclude` says what is left out: leave the `!` out, too"));
            } else if pattern.trim_matches(['.', '/']).is_empty() || pattern.starts_with('/') {
                let finding =
                    Diagnostic::new(format!("`{pattern}` is no pattern of paths in the package"), text.span());
                self.report(finding.with_hint("write one as `**/*.map` or `dist/tests`"));
            }
        }
        texts.into_iter().map(Spanned::into_inner).collect()
    }

    /// Rights as chmod(1) has them, in octal.
    fn mode(&mut self, text: &raw::Text) -> Option<u32> {
        let digits = text.get_ref();
        let is_octal = matches!(digits.len(), 3 | 4) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
        let mode = is_octal.then(|| u32::from_str_radix(digits, 8).ok()).flatten();
        if mode.is_none() {
            let finding = Diagnostic::new(format!("`{digits}` is not a mode"), text.span());
            self.report(finding.with_hint("write three or four octal digits, as `0644`"));
        }
        mode
    }

    fn owner(&mut self, text: &raw::Text) -> Option<Owner> {
        let owner = Owner::parse(text.get_ref());
        if owner.is_none() {
            let finding = Diagnostic::new(format!("`{}` is not an owner", text.get_ref()), text.span());
            self.report(finding.with_hint("write `user`, `user:group`, `1000` or `1000:1000`"));
        }
        owner
    }

    fn format(&mut self, text: &raw::Text) -> ImageFormat {
        match text.get_ref().as_str() {
            "oci" => ImageFormat::Oci,
            "docker" => ImageFormat::Docker,
            other => {
                let finding = Diagnostic::new(format!("unknown format `{other}`"), text.span());
                self.report(finding.with_hint("write \"oci\" or \"docker\""));
                ImageFormat::Oci
            }
        }
    }

    fn compression(&mut self, text: &raw::Text, format: ImageFormat) -> Compression {
        let Some(compression) = Compression::from_name(text.get_ref()) else {
            let finding = Diagnostic::new(format!("unknown compression `{}`", text.get_ref()), text.span());
            let hint = "write \"gzip\", \"zstd\", \"zstd:chunked\", \"estargz\" or \"none\"";
            self.report(finding.with_hint(hint));
            return Compression::Gzip;
        };
        // Both with a table of contents need annotations of layers.
        let has_docker = matches!(compression, Compression::Gzip | Compression::None);
        if format == ImageFormat::Docker && !has_docker {
            let what = if compression == Compression::Zstd { "zstd" } else { text.get_ref() };
            let finding = Diagnostic::new(format!("a manifest of Docker has no layers of {what}"), text.span());
            self.report(finding.with_hint("write \"gzip\" or \"none\", or `format = \"oci\"`"));
        }
        compression
    }

    fn image_config(&mut self, section: raw::ImageConfig) -> ImageConfig {
        let raw::ImageConfig { entrypoint, cmd, user, workdir, env, expose, labels, volumes, stop_signal, healthcheck } =
            section;
        if let Some(workdir) = &workdir {
            self.absolute(workdir);
        }
        let mut ports = Vec::new();
        for text in expose {
            let port = text.get_ref();
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            if number.parse::<u16>().is_ok_and(|number| number > 0) && matches!(protocol, "tcp" | "udp") {
                ports.push(format!("{number}/{protocol}"));
            } else {
                let finding = Diagnostic::new(format!("`{port}` is not a port"), text.span());
                self.report(finding.with_hint("write `3000/tcp`"));
            }
        }
        ports.sort();
        ports.dedup();
        let mut folders = Vec::new();
        for text in volumes {
            match self.absolute(&text) {
                Some(Some(path)) => folders.push(format!("/{path}")),
                Some(None) => self.report(Diagnostic::new("the whole root is no volume", text.span())),
                None => {}
            }
        }
        folders.sort();
        folders.dedup();
        ImageConfig {
            entrypoint: entrypoint.map(|words| self.words(words)),
            cmd: cmd.map(|words| self.words(words)),
            user: user.map(|text| self.user(text)),
            workdir: workdir.map(Spanned::into_inner),
            env: self.environment(env),
            expose: ports,
            labels: self.named_texts("label", labels),
            volumes: folders,
            stop_signal: stop_signal.map(|text| self.signal(text)),
            healthcheck: healthcheck.and_then(|check| self.healthcheck(check)),
        }
    }

    /// Words of a command line, which no program could be given with a NUL byte.
    fn words(&mut self, words: Vec<raw::Text>) -> Vec<String> {
        for word in words.iter().filter(|word| word.get_ref().contains('\0')) {
            self.report(Diagnostic::new("an argument has a NUL byte", word.span()).with_hint("leave it out"));
        }
        words.into_iter().map(Spanned::into_inner).collect()
    }

    /// Labels or annotations.
    fn named_texts(&mut self, what: &str, texts: BTreeMap<raw::Text, String>) -> BTreeMap<String, String> {
        for (key, value) in &texts {
            if key.get_ref().contains('\0') || value.contains('\0') {
                self.report(Diagnostic::new(format!("{what} has a NUL byte"), key.span()).with_hint("leave it out"));
            }
        }
        texts.into_iter().map(|(key, value)| (key.into_inner(), value)).collect()
    }

    fn user(&mut self, text: raw::Text) -> String {
        if Owner::parse(text.get_ref()).is_none() {
            let finding = Diagnostic::new(format!("`{}` is not a user", text.get_ref()), text.span());
            self.report(finding.with_hint("write `user`, `user:group`, `1000` or `1000:1000`"));
        }
        text.into_inner()
    }

    /// A signal as OCI image-spec 1.1, config.md has it: by name, or `SIGRTMIN+N`.
    fn signal(&mut self, text: raw::Text) -> String {
        let name = text.get_ref().as_str();
        let real_time = name.strip_prefix("SIGRTMIN+").and_then(|rest| rest.parse::<u8>().ok());
        if !SIGNALS.contains(&name) && real_time.is_none_or(|number| number > MAX_REAL_TIME) {
            let finding = Diagnostic::new(format!("`{name}` is not a signal"), text.span());
            let prefixed = format!("SIG{}", name.to_ascii_uppercase());
            self.report(match nearest(&prefixed, SIGNALS).or_else(|| nearest(name, SIGNALS)) {
                Some(near) => finding.with_hint(format!("did you mean `{near}`?")),
                None => finding.with_hint("write `SIGTERM`, or `SIGRTMIN+3`"),
            });
        }
        text.into_inner()
    }

    fn healthcheck(&mut self, section: raw::Healthcheck) -> Option<Healthcheck> {
        let raw::Healthcheck { test, interval, timeout, start_period, start_interval, retries } = section;
        let span = test.span();
        let test = match test.into_inner() {
            raw::OneOrMany::One(text) => vec!["CMD-SHELL".to_owned(), text],
            raw::OneOrMany::Many(words) => words,
        };
        let is_fine = match test.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["NONE"] => true,
            ["CMD", program, ..] => !program.is_empty(),
            ["CMD-SHELL", text] => !text.trim().is_empty(),
            _ => false,
        };
        if !is_fine {
            let finding = Diagnostic::new("this is no check", span);
            self.report(finding.with_hint("write `[\"CMD\", \"/bin/check\"]`, a text for the shell, or `[\"NONE\"]`"));
        }
        let mut time = |text: Option<raw::Text>| {
            let Some(text) = text else { return 0 };
            // Docker's engine reads it as a signed number.
            let parsed = duration(text.get_ref()).filter(|time| i64::try_from(*time).is_ok());
            if parsed.is_none() {
                let finding = Diagnostic::new(format!("`{}` is not a time", text.get_ref()), text.span());
                self.report(finding.with_hint("write `500ms`, `30s`, `5m` or `1m30s`"));
            }
            parsed.unwrap_or_default()
        };
        Some(Healthcheck {
            test,
            interval_ns: time(interval),
            timeout_ns: time(timeout),
            start_period_ns: time(start_period),
            start_interval_ns: time(start_interval),
            retries: retries.unwrap_or_default(),
        })
    }

    pub(crate) fn stamp(&mut self, text: &raw::Text) -> Option<Stamp> {
        match text.get_ref().as_str() {
            "revision" => Some(Stamp::Revision),
            "version" => Some(Stamp::Version),
            other => {
                let finding = Diagnostic::new(format!("unknown stamp `{other}`"), text.span());
                self.report(finding.with_hint("write \"revision\" or \"version\""));
                None
            }
        }
    }
}

impl Owner {
    /// Reads `user` or `user:group`, each by name or number; `None` for what is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(Principal::parse(group)?)),
            None => (text, None),
        };
        Some(Self { user: Principal::parse(user)?, group })
    }
}

impl Principal {
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty()
            || text.contains(|letter: char| letter == ':' || letter.is_whitespace() || letter.is_control())
        {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The last number means "as it is" to chown(2).
            return text.parse().ok().filter(|number| *number != u32::MAX).map(Self::Number);
        }
        Some(Self::Name(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, TargetKind};

    fn image(text: &str) -> Result<Image, Vec<Diagnostic>> {
        let manifest = Manifest::parse(&format!("[image.a]\n{text}\n"))?;
        match &manifest.targets["a"].kind {
            TargetKind::Image(image) => Ok(image.clone()),
            other => panic!("it is a {}", other.name()),
        }
    }

    #[test]
    fn everything_is_read() {
        let image = image(
            r#"
format = "docker"
compression = "none"
layers = [{ from = ":x", to = "/app", mode = "4755", dir_mode = "750", owner = "app:1000" }, { from = ":y", to = "/" }]
config = { entrypoint = [], volumes = ["/data/", "/a", "/a"], stop_signal = "SIGRTMIN+3", healthcheck = { test = "wget x", interval = "500ms", timeout = "2m", retries = 3 } }
"#,
        )
        .expect("it is right");
        assert_eq!((image.format, image.compression), (ImageFormat::Docker, Compression::None));
        let rights = &image.layers[0].rights;
        let owner = Owner { user: Principal::Name("app".into()), group: Some(Principal::Number(1000)) };
        assert_eq!(
            (rights.mode, rights.directory_mode, rights.owner.as_ref()),
            (Some(0o4755), Some(0o750), Some(&owner))
        );
        assert_eq!(image.layers[1].rights, Rights::default());
        let config = image.config;
        assert_eq!((config.entrypoint, config.cmd), (Some(Vec::new()), None));
        assert_eq!(config.volumes, ["/a", "/data"]);
        let check = config.healthcheck.expect("there is one");
        assert_eq!(check.test, ["CMD-SHELL", "wget x"]);
        assert_eq!((check.interval_ns, check.timeout_ns, check.start_period_ns), (500_000_000, 120_000_000_000, 0));
    }

    #[test]
    fn a_base_of_others_is_told_with_what_to_write() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("debian:12", Some(("debian", "docker.io/library/debian:12"))),
            ("acme/web:1", Some(("web", "docker.io/acme/web:1"))),
            (&format!("debian@{digest}"), Some(("debian", &*format!("docker.io/library/debian@{digest}")))),
            ("ghcr.io/a/b:1", Some(("b", "ghcr.io/a/b:1"))),
            ("docker://ghcr.io/a/b:1", Some(("b", "docker://ghcr.io/a/b:1"))),
            ("ghcr.io/a/b", Some(("b", "ghcr.io/a/b:TAG"))),
            ("oci:vendor/shell:1", Some(("shell", "oci:vendor/shell:1"))),
            ("oci:.", Some(("root", "oci:."))),
            ("debian", None),
            ("Debian:12", None),
            (":debian", None),
            ("//libs/debian:12", None),
            ("^debian", None),
        ] {
            let found = image_of_others(text);
            let found = found.as_ref().map(|(name, image)| (name.as_str(), image.as_str()));
            assert_eq!(found, expected, "{text}");
        }
        let findings = image("base = \"debian:12\"").expect_err("it is no label");
        let told: Vec<_> = findings.iter().map(|one| (one.message.as_str(), one.hint.as_deref())).collect();
        let message = "`debian:12` is an image of others, and `base` takes those by a toolchain";
        let hint =
            "write `[toolchain.debian]` with `image = \"docker.io/library/debian:12\"`, and here `base = \":debian\"`";
        assert_eq!(told, [(message, Some(hint))]);
        let findings = image("base = \"debian\"").expect_err("it is no label");
        assert_eq!(findings[0].message, "`debian` is not a label");
    }

    #[test]
    fn times_are_read_as_docker_has_them() {
        for (text, expected) in [
            ("90s", Some(90_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1h0m1s5ms", Some(3_601_005_000_000)),
            ("500ms", Some(500_000_000)),
            ("0s", None),
            ("", None),
            ("30", None),
            ("1m30", None),
            ("m", None),
            ("-1s", None),
            ("1 m", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_the_way_out() {
        let layer = |more: &str| format!("layers = [{{ from = \":x\", to = \"/\", {more} }}]");
        let config = |more: &str| format!("config = {{ {more} }}");
        for (text, place, message, hint) in [
            (
                layer("mode = \"0888\""),
                "\"0888\"",
                "`0888` is not a mode",
                "write three or four octal digits, as `0644`",
            ),
            (layer("mode = \"+x\""), "\"+x\"", "`+x` is not a mode", "write three or four octal digits, as `0644`"),
            (
                layer("dir_mode = \"00755\""),
                "\"00755\"",
                "`00755` is not a mode",
                "write three or four octal digits, as `0644`",
            ),
            (
                layer("owner = \"app:\""),
                "\"app:\"",
                "`app:` is not an owner",
                "write `user`, `user:group`, `1000` or `1000:1000`",
            ),
            (
                layer("owner = \"4294967295\""),
                "\"4294967295\"",
                "`4294967295` is not an owner",
                "write `user`, `user:group`, `1000` or `1000:1000`",
            ),
            (
                layer("exclude = [\"!*.map\"]"),
                "\"!*.map\"",
                "`!*.map` has a `!` too many",
                "`exclude` says what is left out: leave the `!` out, too",
            ),
            (
                layer("exclude = [\"/dist\"]"),
                "\"/dist\"",
                "`/dist` is no pattern of paths in the package",
                "write one as `**/*.map` or `dist/tests`",
            ),
            (
                "layers = [{ files = [\"src\", \"!src/x\"], to = \"/\" }]".to_owned(),
                "[\"src\", \"!src/x\"]",
                "`!src/x` is a pattern of what is there",
                "write `exclude = [\"src/x\"]`",
            ),
            (
                config("user = \"a:b:c\""),
                "\"a:b:c\"",
                "`a:b:c` is not a user",
                "write `user`, `user:group`, `1000` or `1000:1000`",
            ),
            (config("stop_signal = \"term\""), "\"term\"", "`term` is not a signal", "did you mean `SIGTERM`?"),
            (
                config("stop_signal = \"SIGRTMIN+31\""),
                "\"SIGRTMIN+31\"",
                "`SIGRTMIN+31` is not a signal",
                "write `SIGTERM`, or `SIGRTMIN+3`",
            ),
            (config("cmd = [\"a\\u0000\"]"), "\"a\\u0000\"", "an argument has a NUL byte", "leave it out"),
            (config("entrypoint = [\"\\u0000\"]"), "\"\\u0000\"", "an argument has a NUL byte", "leave it out"),
            (config("labels = { a = \"\\u0000\" }"), "a", "label has a NUL byte", "leave it out"),
            ("annotations = { a = \"\\u0000\" }".to_owned(), "a", "annotation has a NUL byte", "leave it out"),
            (config("workdir = \"/a\\u0000\""), "\"/a\\u0000\"", "a path has a NUL byte", "leave it out"),
            (config("volumes = [\"/a\\u0000\"]"), "\"/a\\u0000\"", "a path has a NUL byte", "leave it out"),
            (
                config("entrypoint = \"/bin/sh -c x\""),
                "\"/bin/sh -c x\"",
                "a text, where a list of texts is wanted",
                "write a list: `[\"/bin/sh\", \"-c\", \"x\"]`",
            ),
            (config("cmd = \"\""), "\"\"", "a text, where a list of texts is wanted", "write a list: `[\"…\"]`"),
            (config("volumes = [\"/\"]"), "\"/\"", "the whole root is no volume", ""),
            (config("volumes = [\"data\"]"), "\"data\"", "`data` is not an absolute path", "begin it with `/`"),
            (
                config("healthcheck = { test = [\"/bin/true\"] }"),
                "[\"/bin/true\"]",
                "this is no check",
                "write `[\"CMD\", \"/bin/check\"]`, a text for the shell, or `[\"NONE\"]`",
            ),
            (
                config("healthcheck = { test = \"x\", interval = \"0s\" }"),
                "\"0s\"",
                "`0s` is not a time",
                "write `500ms`, `30s`, `5m` or `1m30s`",
            ),
            ("format = \"oci1\"".to_owned(), "\"oci1\"", "unknown format `oci1`", "write \"oci\" or \"docker\""),
            (
                "format = \"docker\"\ncompression = \"zstd\"".to_owned(),
                "\"zstd\"",
                "a manifest of Docker has no layers of zstd",
                "write \"gzip\" or \"none\", or `format = \"oci\"`",
            ),
            (
                "platforms = [\"linux/arm64\", \"linux/arm64/v8\"]".to_owned(),
                "\"linux/arm64/v8\"",
                "`linux/arm64/v8` is the same platform as `linux/arm64`",
                "name it once",
            ),
            (
                "platforms = [\"linux/x64/v8\"]".to_owned(),
                "\"linux/x64/v8\"",
                "unknown architecture `x64`",
                "known: 386, amd64, arm, arm64, loong64, mips, mips64, mips64le, mipsle, ppc64, ppc64le, riscv64, s390x",
            ),
            (
                "annotations = { \"\" = \"x\" }".to_owned(),
                "\"\"",
                "an annotation has no name",
                "write `\"org.opencontainers.image.title\" = \"web\"`",
            ),
            (
                "format = \"docker\"\nannotations = { a = \"x\" }".to_owned(),
                "a",
                "a manifest of Docker has no annotations",
                "write `labels` of `config`, or `format = \"oci\"`",
            ),
        ] {
            let findings = image(&text).expect_err(&text);
            let finding = &findings[0];
            let whole = format!("[image.a]\n{text}\n");
            let at = finding.span.clone().map(|span| &whole[span]).unwrap_or_default();
            assert_eq!(
                (at, finding.message.as_str(), finding.hint.as_deref().unwrap_or_default()),
                (place, message, hint),
                "{text}"
            );
        }
    }
}
