//! `[publish.NAME]`: what goes to registries together, and what has to hold before. Rules: docs/formats/publish.md.
//!
//! Not here: words in destinations, which are those of a workspace (`cas-sync`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use cas_oci::TagClass;

use crate::check::Checker;
use crate::diagnostic::Diagnostic;
use crate::label::Reference;
use crate::manifest::Located;
use crate::raw;

/// How long a gate may take that does not say it.
const GATE_TIMEOUT: Duration = Duration::from_secs(600);
/// What words in braces stand for is not known yet.
const WORD: char = '{';

/// `[publish.NAME]`
#[derive(Clone, Debug)]
pub struct Publication {
    /// Place of its name.
    pub span: Range<usize>,
    /// Images and artifacts; at least one.
    pub of: Vec<Located<Reference>>,
    /// Where each of them goes, with words in braces; at least one.
    pub to: Vec<Located<String>>,
    /// Tags that each repository gets as well, with words in braces.
    pub moving: Vec<Located<String>>,
    /// The key: a file, or a name.
    pub sign: Option<String>,
    /// Whether provenance is attached.
    pub provenance: bool,
    /// Whether what a rebuild needs is attached.
    pub inputs: bool,
    /// What must pass, by name.
    pub gates: BTreeMap<Box<str>, PublishGate>,
}

/// A program that must pass before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishGate {
    /// A program with its arguments; at least one word.
    pub run: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Variables that it gets.
    pub env_in: Vec<Box<str>>,
    /// Variables that it gets and nobody sees.
    pub secrets: Vec<Box<str>>,
}

impl Checker {
    pub(crate) fn publication(&mut self, name: &raw::Text, section: raw::Publish, span: Range<usize>) -> Publication {
        let raw::Publish { of, to, moving, sign, attest, inputs, gates } = section;
        let mut labels = Vec::new();
        match of {
            Some(of) => {
                let place = of.span();
                for text in of.into_inner().into_vec() {
                    labels.extend(self.one_reference(&text, place.clone()));
                }
            }
            None => {
                self.report(Diagnostic::new("`of` is missing", span.clone()).with_hint("write `of = [\":image\"]`"))
            }
        }
        if to.is_empty() {
            let finding = Diagnostic::new("`to` is missing", span);
            self.report(finding.with_hint("write `to = [\"ghcr.io/acme/web:{version}\"]`"));
        }
        for tag in moving.iter().filter(|tag| !tag.get_ref().contains(WORD)) {
            let class = TagClass::of(tag.get_ref());
            if class != TagClass::Moving {
                let message = format!("`{}` cannot move: {} do not", tag.get_ref(), class.words());
                self.report(Diagnostic::new(message, tag.span()).with_hint("name it in `to`"));
            }
        }
        for what in &attest {
            if what.get_ref() != "provenance" {
                let message = format!("`{}` is nothing that is said of an image", what.get_ref());
                self.report(Diagnostic::new(message, what.span()).with_hint("known: provenance"));
            } else if sign.is_none() {
                let finding = Diagnostic::new("nobody says it: `attest` needs a key", what.span());
                self.report(finding.with_hint("name one in `sign`"));
            }
        }
        let gates = gates.into_iter().filter_map(|(name, gate)| self.gate(&name, gate.into_inner())).collect();
        let located = |texts: Vec<raw::Text>| {
            let one = |text: raw::Text| Located { span: text.span(), value: text.into_inner() };
            texts.into_iter().map(one).collect()
        };
        Publication {
            span: name.span(),
            of: labels,
            to: located(to),
            moving: located(moving),
            sign: sign.map(raw::Text::into_inner),
            provenance: !attest.is_empty(),
            inputs: inputs.unwrap_or(false),
            gates,
        }
    }

    fn gate(&mut self, name: &raw::Text, section: raw::Gate) -> Option<(Box<str>, PublishGate)> {
        let raw::Gate { run, timeout, env_in, secrets } = section;
        if run.first().is_none_or(|program| program.get_ref().is_empty()) {
            let finding = Diagnostic::new(format!("the gate `{}` runs nothing", name.get_ref()), name.span());
            self.report(finding.with_hint("write `run = [\"./scan.sh\", \"{layout}\"]`, a program with its arguments"));
            return None;
        }
        let timeout = timeout.map_or(GATE_TIMEOUT, |text| self.timeout(&text));
        let texts = |texts: Vec<raw::Text>| texts.into_iter().map(|text| text.into_inner().into()).collect();
        let run = run.into_iter().map(raw::Text::into_inner).collect();
        Some((
            name.get_ref().as_str().into(),
            PublishGate { run, timeout, env_in: texts(env_in), secrets: texts(secrets) },
        ))
    }
}

#[cfg(test)]
mod tests {
    use crate::manifest::Manifest;

    use super::*;

    #[test]
    fn a_publication_is_read() {
        let manifest = Manifest::parse(
            "[workspace]\n[publish.release]\nof = [\":web\", \"//docs:site\"]\nto = [\"ghcr.io/a/{name}:{version}\"]\n\
             moving = [\"stable\", \"1.4\"]\nsign = \"release\"\nattest = [\"provenance\"]\n\
             gates.scan = { run = [\"./scan\", \"{layout}\"], timeout = \"90s\", secrets = [\"TOKEN\"] }\n",
        );
        let manifest = manifest.expect("it is right");
        let release = &manifest.publications["release"];
        assert_eq!((release.of.len(), release.to.len(), release.moving.len()), (2, 1, 2));
        assert_eq!(release.sign.as_deref(), Some("release"));
        assert!(release.provenance && !release.inputs);
        let gate = PublishGate {
            run: vec!["./scan".to_owned(), "{layout}".to_owned()],
            timeout: Duration::from_secs(90),
            env_in: Vec::new(),
            secrets: vec!["TOKEN".into()],
        };
        assert_eq!(release.gates.iter().collect::<Vec<_>>(), [(&"scan".into(), &gate)]);
    }

    #[test]
    fn mistakes_are_told() {
        let all = "of = \":web\"\nto = [\"h.example/a:1.0.0\"]\n";
        for (text, message) in [
            ("to = [\"h.example/a\"]".to_owned(), "`of` is missing"),
            ("of = \":web\"".to_owned(), "`to` is missing"),
            ("of = \":web\"\nto = []".to_owned(), "`to` is missing"),
            ("of = \"^web\"\nto = [\"h.example/a\"]".to_owned(), "`^web` stands for many targets"),
            (format!("{all}moving = [\"1.2.3\"]"), "`1.2.3` cannot move: versions do not"),
            (format!("{all}moving = [\"sha-4f2a9c1\"]"), "`sha-4f2a9c1` cannot move: commits do not"),
            (format!("{all}attest = [\"provenance\"]"), "nobody says it: `attest` needs a key"),
            (format!("{all}sign = \"k\"\nattest = [\"sbom\"]"), "`sbom` is nothing that is said of an image"),
            (format!("{all}gates.scan = {{ run = [] }}"), "the gate `scan` runs nothing"),
            (format!("{all}gates.scan = {{ runs = [] }}"), "unknown key `runs`"),
            (format!("{all}tag = \"x\""), "unknown key `tag`"),
            (format!("{all}[image.release]"), "`release` is the name of a image and of a publication"),
        ] {
            let findings = Manifest::parse(&format!("[workspace]\n[publish.release]\n{text}\n")).expect_err(&text);
            assert_eq!(findings[0].message, message, "{text}");
        }
    }
}
