//! cas as one that makes images of a tree: the ways to say it in `cas.toml`, and their builds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Bench, SHELL, output, remove};
use super::subject::{Codec, Subject};
use crate::run::Failure;

/// The key of a layer that keeps it from being cut into several. While it is empty `cas` cuts none, and the shape
/// [`Shape::Split`] is left out.
const ONE_LAYER: &str = ", split = false";

/// How a tree of a package becomes layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// The files of the package are the layer.
    Files,
    /// The same, cut into layers as `cas` finds best.
    Split,
    /// A sandboxed step copies the files, and its output is the layer.
    Step,
}

impl Shape {
    /// All of them; the first one that is known stands for `cas` in comparisons.
    pub(super) const ALL: [Self; 3] = [Self::Files, Self::Split, Self::Step];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Split => "split",
            Self::Step => "step",
        }
    }

    /// What `layers` holds for the tree `in` of the package.
    pub(super) fn layer(self) -> String {
        match self {
            Self::Files => format!("{{ files = [\"in/**\"], path = \"in\", to = \"/\"{ONE_LAYER} }}"),
            Self::Split => "{ files = [\"in/**\"], path = \"in\", to = \"/\" }".to_owned(),
            Self::Step => format!("{{ from = \":copy\", path = \"out\", to = \"/\"{ONE_LAYER} }}"),
        }
    }

    /// What an image of this needs beside itself in the manifest of the package.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::Files | Self::Split => "",
            Self::Step => "[command.copy]\ntoolchain = \"//:sh\"\nrun = \"cp -R in out\"\noutputs = [\"out\"]\n",
        }
    }

    fn image(self, compression: &str) -> String {
        let name = target(self, compression);
        format!("[image.{name}]\ncompression = \"{compression}\"\nlayers = [{}]\n", self.layer())
    }

    /// The shapes that this `cas` takes, and what to say of the others.
    pub(super) fn known(bench: &Bench) -> Result<(Vec<Self>, Vec<String>), Failure> {
        let place = bench.folder.join("probe");
        let (mut known, mut notes) = (Vec::new(), Vec::new());
        for shape in Self::ALL {
            if shape == Self::Split && ONE_LAYER.is_empty() {
                notes.push("split: this `cas` cuts no layers".to_owned());
                continue;
            }
            remove(&place)?;
            write_workspace(&place, &[shape], &["zstd"])?;
            fs::create_dir_all(place.join("app/in"))?;
            match output(&mut bench.cas(&place, "probe-store", &["graph"])) {
                Ok(_) => known.push(shape),
                Err(error) => {
                    eprintln!("note: {error}");
                    notes.push(format!("{}: this `cas` takes no such layer", shape.name()));
                }
            }
        }
        remove(&place)?;
        remove(&bench.folder.join("probe-store"))?;
        if known.is_empty() { Err("this `cas` takes none of the layers".into()) } else { Ok((known, notes)) }
    }
}

/// The target of a shape and a compression.
fn target(shape: Shape, compression: &str) -> String {
    format!("{}-{}", shape.name(), compression.replace(':', "-"))
}

/// A workspace with one package, `app`, whose images of each shape and compression are made of its folder `in`.
pub(super) fn write_workspace(place: &Path, shapes: &[Shape], compressions: &[&str]) -> Result<(), Failure> {
    fs::create_dir_all(place.join("app"))?;
    let toolchain = if shapes.contains(&Shape::Step) { SHELL } else { "" };
    fs::write(place.join("cas.toml"), format!("[workspace]\nmembers = [\"app\"]\n{toolchain}"))?;
    let mut text = String::new();
    for shape in shapes {
        text.push_str(shape.needs());
        for compression in compressions {
            text.push_str(&shape.image(compression));
        }
    }
    fs::write(place.join("app/cas.toml"), text)?;
    Ok(())
}

/// `cas` with the images of one shape.
pub(super) struct Cas<'a> {
    bench: &'a Bench,
    place: PathBuf,
    shape: Shape,
}

impl<'a> Cas<'a> {
    /// Each shape in the workspace at `place`. What is measured begins with the files: a step's toolchain is there before.
    pub(super) fn all(bench: &'a Bench, place: &Path, shapes: &[Shape]) -> Result<Vec<Self>, Failure> {
        if shapes.contains(&Shape::Step) {
            output(&mut bench.cas(place, "seed", &["build", "//:sh"]))?;
        }
        Ok(shapes.iter().map(|&shape| Self { bench, place: place.to_owned(), shape }).collect())
    }

    pub(super) fn is_step(&self) -> bool {
        self.shape == Shape::Step
    }

    pub(super) fn target(&self, compression: &str) -> String {
        format!("//app:{}", target(self.shape, compression))
    }

    pub(super) fn layout_of(&self, compression: &str) -> PathBuf {
        self.place.join("cas-out/app").join(target(self.shape, compression))
    }

    /// A build that takes one of the formats of `cas`.
    pub(super) fn build_format(&self, compression: &str) -> Command {
        self.bench.cas(&self.place, "cold", &["build", &self.target(compression)])
    }

    pub(super) fn forget_all(&self) -> Result<(), Failure> {
        let (seed, cold) = (self.bench.folder.join("seed"), self.bench.folder.join("cold"));
        remove(&cold)?;
        remove(&self.place.join("cas-out"))?;
        if self.shape == Shape::Step {
            output(Command::new("cp").arg("-a").arg(seed).arg(cold))?;
        }
        Ok(())
    }

    /// Fails unless an edit that keeps size and time is seen, and gives what a build gives that knows nothing.
    pub(super) fn check(&self, edited: &Path) -> Result<String, Failure> {
        self.forget_all()?;
        let build = || output(&mut self.build_format("zstd"));
        build()?;
        let before = build()?;
        super::super::edit(edited)?;
        let after = build()?;
        self.forget_all()?;
        let clean = build()?;
        if before == after || after != clean {
            return Err(format!("{}: an edit that keeps size and time was not seen", self.shape.name()).into());
        }
        Ok(clean.trim().replace(&self.place.display().to_string(), ""))
    }
}

impl Subject for Cas<'_> {
    fn name(&self) -> String {
        format!("cas, {}", self.shape.name())
    }

    fn codecs(&self) -> &'static [Codec] {
        &[Codec::Zstd, Codec::Gzip]
    }

    fn forget(&mut self) -> Result<(), Failure> {
        self.forget_all()
    }

    fn build(&self, codec: Codec) -> Command {
        self.build_format(codec.name())
    }

    fn layout(&self, codec: Codec) -> PathBuf {
        self.layout_of(codec.name())
    }
}
