//! The archive of a layer, written entry by entry as a folder is read.
//!
//! The entries have the normal form of docs/formats/layer.md; their order is the caller's. What comes out is for
//! [`read_layer`](crate::read_layer), not for an image: those are made of trees.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use cas_tree::Metadata;

use crate::header::{BLOCK_BYTES, Header, pad};

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub enum StreamEntry<'a> {
    /// A directory.
    Directory,
    /// A regular file of this many bytes.
    File(u64),
    /// A symbolic link, with its target.
    Symlink(&'a [u8]),
    /// A further name of an earlier entry.
    Link(&'a [u8]),
    /// A named pipe.
    Fifo,
}

/// Writes a layer to a stream.
#[derive(Debug)]
pub struct LayerStream<W> {
    sink: W,
}

impl<W: Write> LayerStream<W> {
    /// Begins a layer.
    pub fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Writes an entry without content. A file needs [`LayerStream::file`], unless it is empty.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn entry(&mut self, path: &[u8], metadata: &Metadata, entry: StreamEntry<'_>) -> io::Result<()> {
        let mut name = path.to_vec();
        let (none, mut size) = (BTreeMap::new(), 0);
        let (type_flag, link_name): (u8, &[u8]) = match entry {
            StreamEntry::File(length) => {
                size = length;
                (b'0', b"")
            }
            StreamEntry::Link(target) => (b'1', target),
            StreamEntry::Symlink(target) => (b'2', target),
            StreamEntry::Directory => {
                name.push(b'/');
                (b'5', b"")
            }
            StreamEntry::Fifo => (b'6', b""),
        };
        let xattrs = if type_flag == b'1' { &none } else { &metadata.xattrs };
        let Metadata { mode, uid, gid, .. } = *metadata;
        let mut header = Vec::new();
        Header { mode, uid, gid, size, link_name, ..Header::new(&name, type_flag, xattrs) }.encode(&mut header);
        self.sink.write_all(&header)
    }

    /// Writes a regular file with its content.
    ///
    /// # Errors
    ///
    /// What the sink or the content says; [`io::ErrorKind::UnexpectedEof`] when the content is shorter than `size`.
    pub fn file(&mut self, path: &[u8], metadata: &Metadata, size: u64, content: impl Read) -> io::Result<()> {
        self.entry(path, metadata, StreamEntry::File(size))?;
        if io::copy(&mut content.take(size), &mut self.sink)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut padding = Vec::new();
        pad(&mut padding, size);
        self.sink.write_all(&padding)
    }

    /// Says that a path of lower layers is gone.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        self.note(parent, &[b".wh.", name].concat())
    }

    /// Says that a directory hides what lower layers have in it.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn opaque(&mut self, directory: &[u8]) -> io::Result<()> {
        self.note(directory, b".wh..wh..opq")
    }

    fn note(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
        self.entry(&path, &Metadata::default(), StreamEntry::File(0))
    }

    /// Ends the layer.
    ///
    /// # Errors
    ///
    /// What the sink says.
    pub fn finish(mut self) -> io::Result<()> {
        self.sink.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use cas_blob::Descriptor;
    use cas_digest::DigestFunction;
    use cas_tree::{Directory, Node, RelPath, Unpacking};

    use super::*;
    use crate::{ReadTarLimits, read_layer};

    #[test]
    fn what_is_written_is_read_over_a_tree() {
        let path = |text: &str| RelPath::new(text).expect("it is a path");
        let blob = |text: &str| Descriptor::of(DigestFunction::Blake3, text.as_bytes());
        let root_owned = Metadata::root_owned;
        let mut base = Directory::root();
        for (at, text) in [("gone", "1"), ("kept/old", "2"), ("hidden/old", "3")] {
            base.insert(&path(at), Node::file(blob(text), 0o644), &root_owned(0o755)).expect("free names");
        }
        let mut owned = Metadata { uid: 3_000_000, gid: 8, ..root_owned(0o4711) };
        owned.xattrs.insert((*b"security.capability").into(), (*b"\x01\0\0\x02").into());
        let mut bytes = Vec::new();
        let mut stream = LayerStream::new(&mut bytes);
        stream.whiteout(b"", b"gone").expect("memory");
        stream.entry(b"hidden", &root_owned(0o700), StreamEntry::Directory).expect("memory");
        stream.opaque(b"hidden").expect("memory");
        stream.file(b"hidden/new", &owned, 3, &b"new"[..]).expect("memory");
        stream.entry(b"kept/also", &owned, StreamEntry::Link(b"hidden/new")).expect("memory");
        stream.entry(b"kept/link", &root_owned(0o777), StreamEntry::Symlink(b"/x")).expect("memory");
        stream.entry(b"kept/pipe", &root_owned(0o600), StreamEntry::Fifo).expect("memory");
        stream.finish().expect("memory");

        let mut tree = Unpacking::new(base);
        let keep = &mut |content: &mut dyn Read| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(Descriptor::of(DigestFunction::Blake3, &bytes))
        };
        read_layer(&mut tree, &mut &bytes[..], ReadTarLimits { content_bytes: 3 }, keep).expect("it is a layer");
        let tree = tree.finish();

        let names: Vec<String> = tree.walk().map(|(path, _)| path.to_string()).collect();
        assert_eq!(names, ["hidden", "hidden/new", "kept", "kept/also", "kept/link", "kept/old", "kept/pipe"]);
        assert_eq!(tree.get_file(&path("hidden/new")), Some((&owned, blob("new"))));
        assert_eq!(tree.get(&path("kept/also")), Some(&Node::Link { target: path("hidden/new") }));
        assert_eq!(tree.get(&path("kept/pipe")), Some(&Node::Fifo { metadata: root_owned(0o600) }));
    }

    #[test]
    fn a_content_that_is_too_short_is_an_error() {
        let mut stream = LayerStream::new(io::sink());
        let error = stream.file(b"x", &Metadata::default(), 4, &b"abc"[..]).expect_err("it has three bytes");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
