package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"go.podman.io/storage/pkg/reexec"
)

const checksumKey = "io.github.containers.zstd-chunked.manifest-checksum"

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// sample is a tar of what layers hold, with a file of several chunks and one of zeros.
func sample(t *testing.T) []byte {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for at := range noise {
		noise[at] = byte(random.Uint32())
	}
	var out bytes.Buffer
	writer := tar.NewWriter(&out)
	put := func(header tar.Header, content []byte) {
		header.Size = int64(len(content))
		if header.Mode == 0 {
			header.Mode = 0o644
		}
		if err := writer.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o755}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "d/.wh.gone"}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "d/noise"}, noise)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "d/zeros"}, make([]byte, 200_000))
	put(tar.Header{Typeflag: tar.TypeLink, Name: "d/linked", Linkname: "d/noise"}, nil)
	put(tar.Header{Typeflag: tar.TypeSymlink, Name: "d/symbolic", Linkname: "noise", Mode: 0o777}, nil)
	put(tar.Header{Typeflag: tar.TypeFifo, Name: "d/fifo"}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "empty", Uid: 1000, Gid: 100}, nil)
	put(tar.Header{Typeflag: tar.TypeReg, Name: "long/" + strings.Repeat("ä", 120)}, []byte("long"))
	records := map[string]string{xattrPrefix + "user.test": "a\x00b"}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "text", Mode: 0o4755, PAXRecords: records}, []byte("text\n"))
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// made is a layer with all that is told of it.
type made struct {
	blob   []byte
	layer  descriptor
	diffID string
}

// write makes the sample with a reference writer.
func write(t *testing.T, writer func(string, string) (*manifest, error)) made {
	t.Helper()
	place := t.TempDir()
	in, out := filepath.Join(place, "in"), filepath.Join(place, "out")
	if err := os.WriteFile(in, sample(t), 0o644); err != nil {
		t.Fatal(err)
	}
	written, err := writer(in, out)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return made{blob: blob, layer: written.Layers[0], diffID: written.DiffID.String()}
}

// sealed tells the true digest of a blob that was changed, so that not the digest alone refuses it.
func (m made) sealed() made {
	m.layer.Digest, m.layer.Size = digest.FromBytes(m.blob), int64(len(m.blob))
	return m
}

// copied shares nothing with the original.
func (m made) copied() made {
	m.blob, m.layer.Annotations = bytes.Clone(m.blob), maps.Clone(m.layer.Annotations)
	return m
}

func (m made) flipped(at int) made {
	m.blob[at] ^= 0x10
	return m.sealed()
}

func (m made) annotated(key, value string) made {
	m.layer.Annotations[key] = value
	return m
}

func (m made) without(key string) made {
	delete(m.layer.Annotations, key)
	return m
}

// positions are the numbers of an annotation.
func (m made) positions(t *testing.T, key string) (offset, size int) {
	t.Helper()
	if _, err := fmt.Sscanf(m.layer.Annotations[key], "%d:%d", &offset, &size); err != nil {
		t.Fatal(err)
	}
	return offset, size
}

// within is a place in the content of a file.
func (m made) within(t *testing.T, name string, toc []tocEntry) int {
	t.Helper()
	for _, entry := range toc {
		if entry["name"] == name {
			return int(entry["offset"].(float64)) + 20
		}
	}
	t.Fatalf("no entry %q", name)
	return 0
}

type tocEntry = map[string]any

func openBytes(blob []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(blob), 0, int64(len(blob)))
}

// table is the decompressed table of a zstd:chunked layer.
func (m made) table(t *testing.T) (map[string]any, []tocEntry) {
	t.Helper()
	offset, size := m.positions(t, positionKey)
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	text, err := decoder.DecodeAll(m.blob[offset:offset+size], nil)
	if err != nil {
		t.Fatal(err)
	}
	var toc map[string]any
	if err := json.Unmarshal(text, &toc); err != nil {
		t.Fatal(err)
	}
	var entries []tocEntry
	for _, entry := range toc["entries"].([]any) {
		entries = append(entries, entry.(tocEntry))
	}
	return toc, entries
}

// retold has another table, with positions, digest and footer to match: a writer that is wrong, not a damaged blob.
func (m made) retold(t *testing.T, change func([]tocEntry) []tocEntry) made {
	t.Helper()
	toc, entries := m.table(t)
	toc["entries"] = change(entries)
	text, err := json.Marshal(toc)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	table := encoder.EncodeAll(text, nil)
	offset, _ := m.positions(t, positionKey)
	splitOffset, splitSize := m.positions(t, tarSplitKey)
	split := m.blob[splitOffset : splitOffset+splitSize]
	var splitPlain int
	fmt.Sscanf(m.layer.Annotations[tarSplitKey], "%d:%d:%d", &splitOffset, &splitSize, &splitPlain)
	frame := func(content []byte) []byte {
		head := binary.LittleEndian.AppendUint32([]byte{0x50, 0x2a, 0x4d, 0x18}, uint32(len(content)))
		return append(head, content...)
	}
	blob := append(bytes.Clone(m.blob[:offset-8]), frame(table)...)
	splitOffset = len(blob) + 8
	blob = append(blob, frame(split)...)
	var last []byte
	for _, number := range []int{offset, len(table), len(text), 1, splitOffset, splitSize, splitPlain} {
		last = binary.LittleEndian.AppendUint64(last, uint64(number))
	}
	m.blob = append(blob, frame(append(last, footerMagic...))...)
	m.layer.Annotations = map[string]string{
		checksumKey: digest.FromBytes(table).String(),
		positionKey: fmt.Sprintf("%d:%d:%d:1", offset, len(table), len(text)),
		tarSplitKey: fmt.Sprintf("%d:%d:%d", splitOffset, splitSize, splitPlain),
	}
	return m.sealed()
}

// edited changes the entry of a name.
func edited(name string, change func(tocEntry)) func([]tocEntry) []tocEntry {
	return func(entries []tocEntry) []tocEntry {
		for _, entry := range entries {
			if entry["name"] == name {
				change(entry)
				break
			}
		}
		return entries
	}
}

// check runs a table of layers: what is refused is refused with the words that are told; no words, and it is accepted.
func check(t *testing.T, rows []row, judge func(t *testing.T, place string, layer made) error) {
	for _, row := range rows {
		t.Run(strings.ReplaceAll(row.name, " ", "-"), func(t *testing.T) {
			place := t.TempDir()
			if err := os.WriteFile(filepath.Join(place, "layer"), row.layer.blob, 0o644); err != nil {
				t.Fatal(err)
			}
			err := judge(t, place, row.layer)
			switch {
			case row.refusal == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.refusal != "" && err == nil:
				t.Errorf("accepted, not refused with %q", row.refusal)
			case err != nil && !strings.Contains(err.Error(), row.refusal):
				t.Errorf("refused with %q, not with %q", err, row.refusal)
			case err != nil:
				fmt.Printf("| %s | refused: %s |\n", row.name, strings.ReplaceAll(err.Error(), "\n", "; "))
			default:
				fmt.Printf("| %s | accepted |\n", row.name)
			}
		})
	}
}

type row struct {
	name    string
	layer   made
	refusal string
}

func TestChunkedTakesTheReferenceAndNoDamage(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a store with overlay needs root")
	}
	whole := write(t, makeChunked)
	_, entries := whole.table(t)
	toc, tocSize := whole.positions(t, positionKey)
	split, splitSize := whole.positions(t, tarSplitKey)
	other := digest.FromString("other").String()
	fresh := whole.copied
	otherDiffID := fresh()
	otherDiffID.diffID = other
	cut := fresh()
	cut.blob = cut.blob[:toc+4]
	unsealed := fresh()
	unsealed.blob[toc] ^= 1
	check(t, []row{
		{"as the reference writes it", whole, ""},
		{"a table written again", fresh().retold(t, func(all []tocEntry) []tocEntry { return all }), ""},
		{"a byte of the table", fresh().flipped(toc + tocSize/2), "TOC"},
		{"a byte of the tar-split", fresh().flipped(split + splitSize/2), "tar-split"},
		{"a byte of a file's frame", fresh().flipped(whole.within(t, "d/noise", entries)), "staging the layer: CRC"},
		{"a byte of the footer", fresh().flipped(len(whole.blob) - 60), "the footer tells"},
		{"a byte of the length of a skippable frame", fresh().flipped(toc - 3), "plain zstd"},
		{"a blob that is cut", cut.sealed(), "bad request"},
		{"a blob of another digest", unsealed, "the manifest tells"},
		{"another diffID", otherDiffID, "the tar put together again"},
		{"no digest of the table", fresh().without(checksumKey), "fallback to a full pull"},
		{"another digest of the table", fresh().annotated(checksumKey, other), "TOC"},
		{"no position of the table", fresh().without(positionKey), "annotation missing"},
		{"another position of the table", fresh().annotated(positionKey, fmt.Sprintf("%d:%d:9999:1", toc+1, tocSize)), "TOC"},
		{"no position of the tar-split", fresh().without(tarSplitKey), "requires a tar-split"},
		{"eStargz as well", fresh().annotated(estargz.TOCJSONDigestAnnotation, other), "both zstd:chunked and eStargz"},
		{"another mode in the table", fresh().retold(t, edited("text", func(e tocEntry) { e["mode"] = 0o600 })), "match"},
		{"another owner in the table", fresh().retold(t, edited("empty", func(e tocEntry) { e["uid"] = 1 })), "match"},
		{"no attributes in the table", fresh().retold(t, edited("text", func(e tocEntry) { delete(e, "xattrs") })), "match"},
		{"another digest of a file", fresh().retold(t, edited("text", func(e tocEntry) { e["digest"] = other })), "checksum"},
		{"another digest of a chunk", fresh().retold(t, edited("d/noise", func(e tocEntry) { e["chunkDigest"] = other })), "the table tells"},
		{"another place of a file", fresh().retold(t, edited("text", func(e tocEntry) { e["offset"] = 3 })), "magic number"},
		{"a name twice", fresh().retold(t, func(all []tocEntry) []tocEntry { return append(all, all[0]) }), "duplicate entries"},
		{"a file that is not in the table", fresh().retold(t, func(all []tocEntry) []tocEntry { return all[:len(all)-1] }), "missing in TOC"},
		{"a file that is in the table alone", fresh().retold(t, func(all []tocEntry) []tocEntry {
			return append(all, tocEntry{"type": "reg", "name": "more", "mode": 0o644})
		}), "not present in tar-split"},
	}, func(t *testing.T, place string, layer made) error {
		text, err := json.Marshal(manifest{Layers: []descriptor{{}, layer.layer}})
		if err != nil {
			t.Fatal(err)
		}
		told := filepath.Join(place, "manifest.json")
		if err := os.WriteFile(told, text, 0o644); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(place, "out")
		_, err = judgeChunked(filepath.Join(place, "layer"), told, 1, layer.diffID, out)
		if err == nil {
			if found, readErr := os.ReadFile(filepath.Join(out, "text")); readErr != nil || string(found) != "text\n" {
				t.Errorf("the files are not there: %q, %v", found, readErr)
			}
		}
		return err
	})
}

func TestEstargzTakesTheReferenceAndNoDamage(t *testing.T) {
	whole := write(t, makeEstargz)
	reader, err := estargz.Open(openBytes(whole.blob))
	if err != nil {
		t.Fatal(err)
	}
	noise, _ := reader.Lookup("d/noise")
	toc, _, err := estargz.OpenFooter(openBytes(whole.blob))
	if err != nil {
		t.Fatal(err)
	}
	other := digest.FromString("other").String()
	fresh := whole.copied
	otherDiffID := fresh()
	otherDiffID.diffID = other
	plain := fresh()
	plain.blob = plain.blob[:toc]
	// The lower writer of the library adds no landmark.
	var bare bytes.Buffer
	writer := estargz.NewWriter(&bare)
	if err := writer.AppendTar(bytes.NewReader(sample(t))); err != nil {
		t.Fatal(err)
	}
	bareTOC, err := writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	unmarked := fresh().annotated(estargz.TOCJSONDigestAnnotation, bareTOC.String())
	unmarked.blob, unmarked.diffID = bare.Bytes(), writer.DiffID()
	check(t, []row{
		{"as the reference writes it", whole, ""},
		{"a byte of the table", fresh().flipped(int(toc) + 60), "the table"},
		{"a byte of a file's member", fresh().flipped(int(noise.Offset) + 1000), "d/noise"},
		{"a byte of the footer", fresh().flipped(len(whole.blob) - 30), "the footer"},
		{"no footer", plain, "the footer"},
		{"another digest of the table", fresh().annotated(estargz.TOCJSONDigestAnnotation, other), "invalid TOC JSON"},
		{"another diffID", otherDiffID, "the tar is"},
		{"no landmark", unmarked, "no landmark"},
	}, func(t *testing.T, place string, layer made) error {
		_, err := judgeEstargz(filepath.Join(place, "layer"), layer.layer.Annotations[estargz.TOCJSONDigestAnnotation], layer.diffID)
		return err
	})
}

func TestListingHasEachEntry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tar")
	if err := os.WriteFile(file, sample(t), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := listTar(file, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 10 {
		t.Fatalf("%d lines: %s", len(lines), out.String())
	}
	last := `{"type":"reg","name":"text","link":"","mode":2541,"uid":0,"gid":0,"size":5,"device":"",` +
		`"sha256":"` + digest.FromString("text\n").Encoded() + `","xattrs":{"user.test":"a\\x00b"}}`
	if lines[9] != last {
		t.Errorf("%s, expected %s", lines[9], last)
	}
}
