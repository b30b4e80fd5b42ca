package main

import (
	"io"
	"os"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage/pkg/chunked/compressor"
)

// makeChunked writes a layer with the writer of containers/storage.
func makeChunked(tarFile, layerFile string) (*manifest, error) {
	in, err := os.Open(tarFile)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out, err := os.Create(layerFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	annotations := map[string]string{}
	writer, err := compressor.ZstdCompressor(out, annotations, nil)
	if err != nil {
		return nil, err
	}
	digester := digest.Canonical.Digester()
	if _, err := io.Copy(io.MultiWriter(writer, digester.Hash()), in); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := describe(out, "application/vnd.oci.image.layer.v1.tar+zstd", annotations)
	return &manifest{Layers: []descriptor{layer}, DiffID: digester.Digest()}, err
}

// makeEstargz writes a layer with the writer of stargz-snapshotter.
func makeEstargz(tarFile, layerFile string) (*manifest, error) {
	in, err := os.Open(tarFile)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	blob, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()), estargz.WithChunkSize(1<<16))
	if err != nil {
		return nil, err
	}
	defer blob.Close()
	out, err := os.Create(layerFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if _, err := io.Copy(out, blob); err != nil {
		return nil, err
	}
	annotations := map[string]string{estargz.TOCJSONDigestAnnotation: blob.TOCDigest().String()}
	layer, err := describe(out, "application/vnd.oci.image.layer.v1.tar+gzip", annotations)
	return &manifest{Layers: []descriptor{layer}, DiffID: blob.DiffID()}, err
}

// describe hashes a file that was written.
func describe(file *os.File, mediaType string, annotations map[string]string) (descriptor, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return descriptor{}, err
	}
	digester := digest.Canonical.Digester()
	size, err := io.Copy(digester.Hash(), file)
	return descriptor{MediaType: mediaType, Digest: digester.Digest(), Size: size, Annotations: annotations}, err
}
