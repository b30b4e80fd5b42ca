//! Archives: tar in and out, frames, codecs.
