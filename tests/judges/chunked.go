package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/chunked"
)

const (
	// Where containers/storage keeps the table of a layer that was pulled in parts.
	tocKey = "zstd-chunked-manifest"
	// Annotations with positions, and what ends a blob.
	positionKey = "io.github.containers.zstd-chunked.manifest-position"
	tarSplitKey = "io.github.containers.zstd-chunked.tarsplit-position"
	footerSize  = 64
	footerMagic = "GNUlInUx"
)

// descriptor is what a manifest says of a layer.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest.Digest     `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// manifest is an image manifest, as far as layers go.
type manifest struct {
	Layers []descriptor `json:"layers"`
	// DiffID is told by the writers here alone.
	DiffID digest.Digest `json:"diffID,omitempty"`
}

// chunkedVerdict is what was accepted.
type chunkedVerdict struct {
	Judge   string `json:"judge"`
	Entries int    `json:"entries"`
	Chunks  int    `json:"chunks"`
	// Requests for parts, and the bytes of them all.
	Requests     int           `json:"requests"`
	FetchedBytes uint64        `json:"fetchedBytes"`
	BlobBytes    int64         `json:"blobBytes"`
	TOCDigest    digest.Digest `json:"tocDigest"`
	DiffID       digest.Digest `json:"diffID"`
}

// localBlob serves parts of a file, as a registry does, and keeps account of what was asked for.
type localBlob struct {
	file     *os.File
	size     int64
	lock     sync.Mutex
	requests int
	fetched  uint64
}

// GetBlobAt is the interface of the partial pull: a stream for each part, in order.
func (b *localBlob) GetBlobAt(parts []chunked.ImageSourceChunk) (chan io.ReadCloser, chan error, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	b.requests++
	for _, part := range parts {
		// A registry answers 416 to these.
		if part.Offset+part.Length > uint64(b.size) || part.Offset+part.Length < part.Offset || part.Length == 0 {
			return nil, nil, chunked.ErrBadRequest{}
		}
		b.fetched += part.Length
	}
	streams, errs := make(chan io.ReadCloser), make(chan error)
	go func() {
		for _, part := range parts {
			streams <- io.NopCloser(io.NewSectionReader(b.file, int64(part.Offset), int64(part.Length)))
		}
		close(streams)
		close(errs)
	}()
	return streams, errs, nil
}

// layerOf opens a blob and finds its descriptor; size and digest must be those that the manifest tells.
func layerOf(layerFile, manifestFile string, index int) (*os.File, descriptor, error) {
	text, err := os.ReadFile(manifestFile)
	if err != nil {
		return nil, descriptor{}, err
	}
	var all manifest
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, descriptor{}, fmt.Errorf("the manifest: %w", err)
	}
	if index < 0 || index >= len(all.Layers) {
		return nil, descriptor{}, fmt.Errorf("the manifest has %d layers, and none has index %d", len(all.Layers), index)
	}
	layer := all.Layers[index]
	file, err := os.Open(layerFile)
	if err != nil {
		return nil, descriptor{}, err
	}
	actual, err := digest.FromReader(file)
	if err == nil && actual != layer.Digest {
		err = fmt.Errorf("the blob is %s, the manifest tells %s", actual, layer.Digest)
	}
	if info, statErr := file.Stat(); err == nil && statErr == nil && info.Size() != layer.Size {
		err = fmt.Errorf("the blob has %d bytes, the manifest tells %d", info.Size(), layer.Size)
	}
	if err != nil {
		file.Close()
		return nil, descriptor{}, err
	}
	return file, layer, nil
}

// judgeChunked pulls a layer in parts, as podman does, into a store of its own.
//
// The table, its agreement with the tar-split, the files and the digest of the tar that is put together again are
// checked by containers/storage. A pull of the whole layer instead is an error, and so is a blob whose plain
// decompression, which older clients use, has another digest.
func judgeChunked(layerFile, manifestFile string, index int, diffID, outDir string) (*chunkedVerdict, error) {
	file, layer, err := layerOf(layerFile, manifestFile, index)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	place, err := os.MkdirTemp(filepath.Dir(outDir), "judge-store-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(place)
	store, err := storage.GetStore(storage.StoreOptions{
		RunRoot:         filepath.Join(place, "run"),
		GraphRoot:       filepath.Join(place, "graph"),
		GraphDriverName: "overlay",
		// Without conversion, all that is not a partial pull is refused with an error of its own.
		PullOptions: map[string]string{"enable_partial_images": "true", "convert_images": "false", "use_hard_links": "false"},
	})
	if err != nil {
		return nil, fmt.Errorf("the store: %w", err)
	}
	verdict, files, err := pull(store, file, layer, diffID)
	// The store has mounts of its own, out of which nothing can be renamed.
	if _, closeErr := store.Shutdown(true); err != nil || closeErr != nil {
		return nil, errors.Join(err, closeErr)
	}
	// What the partial pull does not look at: the footer, and the whole as a stream.
	if err := footer(file, layer); err != nil {
		return nil, err
	}
	if err := plainDigest(file, diffID); err != nil {
		return nil, err
	}
	return verdict, os.Rename(files, outDir)
}

// pull takes a layer into a store; what it was, and where its files are.
func pull(store storage.Store, file *os.File, layer descriptor, diffID string) (*chunkedVerdict, string, error) {
	blob := &localBlob{file: file, size: layer.Size}
	differ, err := chunked.NewDiffer(context.Background(), store, layer.Digest, layer.Size, layer.Annotations, blob)
	if err != nil {
		var fallback chunked.ErrFallbackToOrdinaryLayerDownload
		if errors.As(err, &fallback) {
			return nil, "", fmt.Errorf("fallback to a full pull: %w", err)
		}
		return nil, "", err
	}
	defer differ.Close()
	out, err := store.PrepareStagedLayer(nil, differ)
	if err != nil {
		return nil, "", fmt.Errorf("staging the layer: %w", err)
	}
	if out.TOCDigest == "" || out.CompressedDigest != "" || blob.fetched >= uint64(layer.Size) {
		return nil, "", errors.Join(errors.New("the whole layer was pulled, and not its parts"), store.CleanupStagedLayer(out))
	}
	// As containers/image compares it with the configuration.
	if out.UncompressedDigest.String() != diffID {
		err := fmt.Errorf("the tar put together again is %s, expected %s", out.UncompressedDigest, diffID)
		return nil, "", errors.Join(err, store.CleanupStagedLayer(out))
	}
	var tableOffset int64
	if _, err := fmt.Sscanf(layer.Annotations[positionKey], "%d:", &tableOffset); err != nil {
		return nil, "", errors.Join(err, store.CleanupStagedLayer(out))
	}
	table := out.BigData[tocKey]
	verdict := &chunkedVerdict{
		Judge: "chunked", Requests: blob.requests, FetchedBytes: blob.fetched, BlobBytes: layer.Size,
		TOCDigest: out.TOCDigest, DiffID: out.UncompressedDigest,
	}
	if err := verdict.count(table, file, tableOffset); err != nil {
		return nil, "", errors.Join(err, store.CleanupStagedLayer(out))
	}
	kept, err := store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{ID: "judged", DiffOutput: out, DiffOptions: nil})
	if err != nil {
		return nil, "", fmt.Errorf("keeping the layer: %w", err)
	}
	if err := againDigest(store, kept.ID, diffID); err != nil {
		return nil, "", err
	}
	files, err := store.DifferTarget(kept.ID)
	return verdict, files, err
}

// tableEntry is what a table tells of a file or of a further chunk of one.
type tableEntry struct {
	Type        string        `json:"type"`
	Name        string        `json:"name"`
	Size        int64         `json:"size"`
	Digest      digest.Digest `json:"digest"`
	Offset      int64         `json:"offset"`
	EndOffset   int64         `json:"endOffset"`
	ChunkSize   int64         `json:"chunkSize"`
	ChunkOffset int64         `json:"chunkOffset"`
	ChunkDigest digest.Digest `json:"chunkDigest"`
	ChunkType   string        `json:"chunkType"`
}

// count takes the entries and chunks of a table, and decompresses each chunk by itself.
//
// A pull into an empty store looks at the digests of whole files alone; those of chunks are what a later pull finds
// its parts by.
func (v *chunkedVerdict) count(table []byte, file *os.File, tableOffset int64) error {
	var toc struct {
		Entries []tableEntry `json:"entries"`
	}
	if err := json.Unmarshal(table, &toc); err != nil {
		return fmt.Errorf("the table: %w", err)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		return err
	}
	defer decoder.Close()
	for at, entry := range toc.Entries {
		if entry.Type == "chunk" {
			continue
		}
		v.Entries++
		if entry.Type != "reg" || entry.Size == 0 {
			continue
		}
		last := at + 1
		for last < len(toc.Entries) && toc.Entries[last].Type == "chunk" {
			last++
		}
		chunks := toc.Entries[at:last]
		if len(chunks) == 1 && entry.ChunkSize == 0 {
			chunks[0].ChunkSize, chunks[0].ChunkDigest = entry.Size, entry.Digest
		}
		v.Chunks += len(chunks)
		if final := &chunks[len(chunks)-1]; final.EndOffset == 0 {
			// The reference writer leaves it out in files of several chunks: up to where the next file begins.
			final.EndOffset = next(toc.Entries[last:], tableOffset)
		}
		if err := checkChunks(chunks, entry.Size, file, decoder); err != nil {
			return fmt.Errorf("%q: %w", entry.Name, err)
		}
	}
	return nil
}

// next is where the first of these entries that have content begins.
func next(entries []tableEntry, otherwise int64) int64 {
	for _, entry := range entries {
		if entry.Offset != 0 {
			return entry.Offset
		}
	}
	return otherwise
}

// checkChunks holds the chunks of one file against the blob; each ends where the next one begins.
func checkChunks(chunks []tableEntry, size int64, file *os.File, decoder *zstd.Decoder) error {
	position := int64(0)
	for index, chunk := range chunks {
		if chunk.ChunkOffset != position {
			return fmt.Errorf("chunk %d begins at %d, and the one before it ends at %d", index, chunk.ChunkOffset, position)
		}
		position += chunk.ChunkSize
		if chunk.ChunkType == "zeros" {
			continue
		}
		end := chunks[len(chunks)-1].EndOffset
		if index+1 < len(chunks) {
			end = chunks[index+1].Offset
		}
		if end <= chunk.Offset {
			return fmt.Errorf("chunk %d is from %d to %d", index, chunk.Offset, end)
		}
		compressed := make([]byte, end-chunk.Offset)
		if _, err := file.ReadAt(compressed, chunk.Offset); err != nil {
			return fmt.Errorf("chunk %d: %w", index, err)
		}
		content, err := decoder.DecodeAll(compressed, nil)
		if err != nil {
			return fmt.Errorf("chunk %d: %w", index, err)
		}
		// Behind the last one may be padding and headers.
		if int64(len(content)) < chunk.ChunkSize || (index+1 < len(chunks) && int64(len(content)) > chunk.ChunkSize) {
			return fmt.Errorf("chunk %d has %d bytes, the table tells %d", index, len(content), chunk.ChunkSize)
		}
		if found := digest.FromBytes(content[:chunk.ChunkSize]); found != chunk.ChunkDigest {
			return fmt.Errorf("chunk %d is %s, the table tells %s", index, found, chunk.ChunkDigest)
		}
	}
	if position != size {
		return fmt.Errorf("its chunks have %d bytes, and it has %d", position, size)
	}
	return nil
}

// footer holds the last skippable frame against the annotations. Clients of before the annotations find the table by it.
func footer(file *os.File, layer descriptor) error {
	last := make([]byte, footerSize)
	if _, err := file.ReadAt(last, layer.Size-footerSize); err != nil {
		return fmt.Errorf("the footer: %w", err)
	}
	var numbers []string
	for at := 0; at < len(last)-len(footerMagic); at += 8 {
		numbers = append(numbers, strconv.FormatUint(binary.LittleEndian.Uint64(last[at:]), 10))
	}
	told := layer.Annotations[positionKey] + ":" + layer.Annotations[tarSplitKey]
	if found := strings.Join(numbers, ":"); found != told || string(last[len(last)-len(footerMagic):]) != footerMagic {
		return fmt.Errorf("the footer tells %s, the annotations %s", found, told)
	}
	return nil
}

// plainDigest decompresses a blob as those do who know zstd alone.
func plainDigest(file *os.File, diffID string) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	reader, err := zstd.NewReader(file)
	if err != nil {
		return err
	}
	defer reader.Close()
	plain, err := digest.FromReader(reader)
	if err != nil {
		return fmt.Errorf("plain zstd: %w", err)
	}
	if plain.String() != diffID {
		return fmt.Errorf("plain zstd: the tar is %s, expected %s", plain, diffID)
	}
	return nil
}

// againDigest makes the tar of a layer that is kept, as a push of it would.
func againDigest(store storage.Store, id, diffID string) error {
	uncompressed := archive.Uncompressed
	tar, err := store.Diff("", id, &storage.DiffOptions{Compression: &uncompressed})
	if err != nil {
		return fmt.Errorf("the tar of the kept layer: %w", err)
	}
	defer tar.Close()
	again, err := digest.FromReader(tar)
	if err != nil {
		return fmt.Errorf("the tar of the kept layer: %w", err)
	}
	if again.String() != diffID {
		return fmt.Errorf("the tar of the kept layer is %s, expected %s", again, diffID)
	}
	return nil
}
