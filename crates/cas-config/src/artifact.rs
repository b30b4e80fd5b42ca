//! What `[artifact.NAME]` says: files that are no image, what they are, and what they are about.
//!
//! Not here: what the files are, and whether two have one title (`cas-build`).

use std::collections::BTreeMap;

use cas_oci::{CONFIG_MEDIA_TYPE, ImageFormat, TITLE_ANNOTATION, is_media_type};
use cas_tree::RelPath;
use toml::Spanned;

use crate::check::Checker;
use crate::diagnostic::Diagnostic;
use crate::label::Reference;
use crate::manifest::{Located, Stamp};
use crate::raw;

/// `[artifact.NAME]`
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What it is: a media type.
    pub artifact_type: String,
    /// Its files, in this order.
    pub files: Vec<ArtifactFile>,
    /// Its configuration.
    pub config: Option<ArtifactConfig>,
    /// The image or artifact that it is about.
    pub subject: Option<Located<Reference>>,
    /// What its manifest says of it.
    pub annotations: BTreeMap<String, String>,
    /// What is told of the commit and the version, sorted.
    pub stamp: Vec<Stamp>,
}

/// A file of an artifact.
#[derive(Clone, Debug)]
pub struct ArtifactFile {
    /// Where it comes from.
    pub source: ArtifactSource,
    /// What it is; without it what is usual for a file or a folder.
    pub media_type: Option<String>,
    /// What it is called; without it by its own name.
    pub title: Option<RelPath>,
    /// What is told of it beside that.
    pub annotations: BTreeMap<String, String>,
}

/// The configuration of an artifact.
#[derive(Clone, Debug)]
pub struct ArtifactConfig {
    /// Where it comes from.
    pub source: ArtifactSource,
    /// What it is.
    pub media_type: String,
}

/// Where a file of an artifact comes from.
#[derive(Clone, Debug)]
pub enum ArtifactSource {
    /// Outputs of a target, or a part of them, by its path in their package.
    Outputs {
        /// The target.
        from: Located<Reference>,
        /// Which part.
        path: Option<RelPath>,
        /// Globs over paths in their package, of what is left out of a folder.
        exclude: Vec<String>,
    },
    /// A file or folder of the package itself.
    Own {
        /// Which.
        path: RelPath,
        /// Globs over paths in the package, of what is left out of a folder.
        exclude: Vec<String>,
    },
}

impl ArtifactSource {
    /// The target.
    #[must_use]
    pub const fn outputs(&self) -> Option<&Located<Reference>> {
        match self {
            Self::Outputs { from, .. } => Some(from),
            Self::Own { .. } => None,
        }
    }
}

impl Artifact {
    /// Where its files come from, and behind them its configuration.
    pub fn sources(&self) -> impl Iterator<Item = &ArtifactSource> {
        self.files.iter().map(|file| &file.source).chain(self.config.iter().map(|config| &config.source))
    }

    /// The targets that it names: those of its files, of its configuration, and its subject.
    pub fn references(&self) -> impl Iterator<Item = &Located<Reference>> {
        self.sources().filter_map(ArtifactSource::outputs).chain(&self.subject)
    }
}

impl Checker {
    pub(crate) fn artifact(&mut self, section: raw::Artifact) -> Option<Artifact> {
        let raw::Artifact { kind, files, config, subject, annotations, stamp } = section;
        let artifact_type = self.media_type(&kind);
        let files: Vec<Option<ArtifactFile>> = files.into_iter().map(|file| self.artifact_file(file)).collect();
        let config = config.map(|config| self.artifact_config(config));
        let subject = subject.map(|text| self.one_target(&text));
        let annotations = self.annotations(annotations);
        let mut stamp: Vec<Stamp> = stamp.iter().filter_map(|text| self.stamp(text)).collect();
        stamp.sort_unstable();
        stamp.dedup();
        // What is missing here was reported.
        Some(Artifact {
            artifact_type,
            files: files.into_iter().collect::<Option<_>>()?,
            config: config.map_or(Some(None), |config| config.map(Some))?,
            subject: subject.map_or(Some(None), |subject| subject.map(Some))?,
            annotations,
            stamp,
        })
    }

    fn artifact_file(&mut self, file: Spanned<raw::ArtifactFile>) -> Option<ArtifactFile> {
        let span = file.span();
        let raw::ArtifactFile { from, path, exclude, media_type, title, annotations } = file.into_inner();
        if let Some(key) = annotations.keys().find(|key| key.get_ref() == TITLE_ANNOTATION) {
            let finding = Diagnostic::new(format!("`{TITLE_ANNOTATION}` is the title of the file"), key.span());
            self.report(finding.with_hint("write `title = \"…\"` in place of the annotation"));
        }
        let annotations = self.annotations(annotations);
        let media_type = media_type.map(|text| self.media_type(&text));
        let title = title.and_then(|text| self.title(&text));
        let exclude = self.exclude(exclude);
        let source = self.artifact_source(from, path, exclude, span)?;
        Some(ArtifactFile { source, media_type, title, annotations })
    }

    fn artifact_config(&mut self, config: Spanned<raw::ArtifactConfig>) -> Option<ArtifactConfig> {
        let span = config.span();
        let raw::ArtifactConfig { from, path, media_type: text } = config.into_inner();
        let media_type = self.media_type(&text);
        if [CONFIG_MEDIA_TYPE, ImageFormat::Docker.config_media_type()].contains(&media_type.as_str()) {
            let finding = Diagnostic::new("an artifact with the configuration of an image would be one", text.span());
            self.report(finding.with_hint("write `[image.NAME]`, or a media type of your own"));
        }
        let source = self.artifact_source(from, path, Vec::new(), span)?;
        Some(ArtifactConfig { source, media_type })
    }

    fn artifact_source(
        &mut self,
        from: Option<raw::Text>,
        path: Option<raw::Text>,
        exclude: Vec<String>,
        span: std::ops::Range<usize>,
    ) -> Option<ArtifactSource> {
        let is_own = from.is_none();
        let from = from.map(|text| self.one_target(&text));
        let has_path = path.is_some();
        let path = path.and_then(|text| self.path(&text));
        match (from, path) {
            (Some(from), path) => Some(ArtifactSource::Outputs { from: from?, path, exclude }),
            (None, Some(path)) => Some(ArtifactSource::Own { path, exclude }),
            (None, None) => {
                if is_own && !has_path {
                    let finding = Diagnostic::new("a file of an artifact says nothing of what it is", span);
                    let hint = "write `path`, a file or folder of the package, or `from`, the label of a target";
                    self.report(finding.with_hint(hint));
                }
                None
            }
        }
    }

    fn media_type(&mut self, text: &raw::Text) -> String {
        if !is_media_type(text.get_ref()) {
            let finding = Diagnostic::new(format!("`{}` is not a media type", text.get_ref()), text.span());
            self.report(finding.with_hint("write `application/vnd.example.report.v1+json`, without parameters"));
        }
        text.get_ref().clone()
    }

    fn title(&mut self, text: &raw::Text) -> Option<RelPath> {
        let title = RelPath::new(text.get_ref().as_str());
        if title.is_err() || text.get_ref().chars().any(char::is_control) {
            let finding = Diagnostic::new(format!("`{}` is no name of a file", text.get_ref()), text.span());
            self.report(finding.with_hint("write a name, or a path without `..` that does not begin with `/`"));
        }
        title.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Manifest, TargetKind};

    fn artifact(text: &str) -> Result<Artifact, Vec<Diagnostic>> {
        let mut manifest = Manifest::parse(&format!("[artifact.a]\n{text}\n"))?;
        match manifest.targets.remove("a").map(|target| target.kind) {
            Some(TargetKind::Artifact(artifact)) => Ok(artifact),
            other => panic!("{other:?} is no artifact"),
        }
    }

    #[test]
    fn an_artifact_is_read() {
        let text = "type = \"application/vnd.x\"\nfiles = [{ from = \":b\", path = \"dist/a.json\", \
             media_type = \"application/json\", title = \"docs/a\", annotations = { k = \"v\" } }, { path = \"./LICENSE\" }]\n\
             config = { path = \"c.json\", media_type = \"application/vnd.c+json\" }\nsubject = \"//web:image\"\n\
             annotations = { b = \"2\" }\nstamp = [\"version\", \"revision\", \"version\"]";
        let read = artifact(text).expect("it is right");
        assert_eq!((read.artifact_type.as_str(), read.files.len()), ("application/vnd.x", 2));
        let ArtifactFile { source: ArtifactSource::Outputs { path: Some(path), .. }, media_type, title, annotations } =
            &read.files[0]
        else {
            panic!("it is of a target")
        };
        assert_eq!((path.to_string().as_str(), media_type.as_deref()), ("dist/a.json", Some("application/json")));
        assert_eq!((title.as_ref().map(ToString::to_string), annotations.len()), (Some("docs/a".to_owned()), 1));
        assert!(matches!(&read.files[1].source, ArtifactSource::Own { path, .. } if path.to_string() == "LICENSE"));
        let named: Vec<String> = read.references().map(|reference| format!("{:?}", reference.value)).collect();
        assert_eq!(named.len(), 2, "{named:?}");
        assert_eq!(read.config.map(|config| config.media_type).as_deref(), Some("application/vnd.c+json"));
        assert_eq!(read.stamp, [Stamp::Revision, Stamp::Version]);
        let bare = artifact("type = \"a/b\"").expect("it is right");
        assert!(bare.files.is_empty() && bare.config.is_none() && bare.subject.is_none() && bare.stamp.is_empty());
    }

    #[test]
    fn each_mistake_is_told_with_its_place_and_the_way_out() {
        let path = "write `path`, a file or folder of the package, or `from`, the label of a target";
        let media_type = "write `application/vnd.example.report.v1+json`, without parameters";
        let name = "write a name, or a path without `..` that does not begin with `/`";
        let file = |text: &str| format!("type = \"a/b\"\nfiles = [{{ {text} }}]");
        for (text, place, message, hint) in [
            (
                "files = []".to_owned(),
                "[artifact.a]",
                "`type` is missing",
                "write `type = \"application/vnd.example.report.v1\"`, what it is",
            ),
            ("type = \"report\"".to_owned(), "\"report\"", "`report` is not a media type", media_type),
            (
                "type = \"text/plain; q=1\"".to_owned(),
                "\"text/plain; q=1\"",
                "`text/plain; q=1` is not a media type",
                media_type,
            ),
            (file("path = \"x\", media_type = \"json\""), "\"json\"", "`json` is not a media type", media_type),
            (file("title = \"x\""), "{ title = \"x\" }", "a file of an artifact says nothing of what it is", path),
            (file("path = \"x\", title = \"../x\""), "\"../x\"", "`../x` is no name of a file", name),
            (file("path = \"x\", title = \"/x\""), "\"/x\"", "`/x` is no name of a file", name),
            (file("path = \"x\", title = \"a\\tb\""), "\"a\\tb\"", "`a\tb` is no name of a file", name),
            (file("path = \"/x\""), "\"/x\"", "`/x` is not a path in the package: path is absolute", ""),
            (file("from = \"^build\""), "\"^build\"", "`^build` stands for many targets", "name each of them"),
            (
                file("from = \"build\""),
                "\"build\"",
                "`build` is not a label",
                "write `//folder:name`, `//:name` for the root, or `:name` for the same package",
            ),
            (
                file("path = \"x\", annotations = { \"org.opencontainers.image.title\" = \"y\" }"),
                "\"org.opencontainers.image.title\"",
                "`org.opencontainers.image.title` is the title of the file",
                "write `title = \"…\"` in place of the annotation",
            ),
            (
                file("path = \"x\", annotations = { \"\" = \"y\" }"),
                "\"\"",
                "an annotation has no name",
                "write `\"org.opencontainers.image.title\" = \"web\"`",
            ),
            (
                "type = \"a/b\"\nconfig = { path = \"c\", media_type = \"application/vnd.oci.image.config.v1+json\" }"
                    .to_owned(),
                "\"application/vnd.oci.image.config.v1+json\"",
                "an artifact with the configuration of an image would be one",
                "write `[image.NAME]`, or a media type of your own",
            ),
            (
                "type = \"a/b\"\nsubject = \"^web\"".to_owned(),
                "\"^web\"",
                "`^web` stands for many targets",
                "name each of them",
            ),
            (
                "type = \"a/b\"\nstamp = [\"created\"]".to_owned(),
                "\"created\"",
                "unknown stamp `created`",
                "write \"revision\" or \"version\"",
            ),
            ("type = \"a/b\"\nfile = []".to_owned(), "file", "unknown key `file`", "did you mean `files`?"),
        ] {
            let findings = artifact(&text).expect_err(&text);
            let finding = &findings[0];
            let whole = format!("[artifact.a]\n{text}\n");
            let at = finding.span.clone().map(|span| &whole[span]).unwrap_or_default();
            assert_eq!(
                (at, finding.message.as_str(), finding.hint.as_deref().unwrap_or_default()),
                (place, message, hint),
                "{text}"
            );
        }
    }
}
