package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/opencontainers/go-digest"
)

// estargzVerdict is what was accepted.
type estargzVerdict struct {
	Judge     string        `json:"judge"`
	Entries   int           `json:"entries"`
	Files     int           `json:"files"`
	Chunks    int           `json:"chunks"`
	Landmark  string        `json:"landmark"`
	TOCOffset int64         `json:"tocOffset"`
	TOCDigest digest.Digest `json:"tocDigest"`
	DiffID    digest.Digest `json:"diffID"`
}

// judgeEstargz reads a layer twice: through its table, chunk by chunk, and as the plain tar that it also is.
func judgeEstargz(layerFile, tocDigest, diffID string) (*estargzVerdict, error) {
	wanted, err := digest.Parse(tocDigest)
	if err != nil {
		return nil, fmt.Errorf("the digest of the table: %w", err)
	}
	file, err := os.Open(layerFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	section := io.NewSectionReader(file, 0, info.Size())
	offset, footerSize, err := estargz.OpenFooter(section)
	if err != nil {
		return nil, fmt.Errorf("the footer: %w", err)
	}
	if footerSize != estargz.FooterSize {
		return nil, fmt.Errorf("the footer has %d bytes, and not the %d of eStargz", footerSize, estargz.FooterSize)
	}
	reader, err := estargz.Open(section)
	if err != nil {
		return nil, fmt.Errorf("the table: %w", err)
	}
	verifier, err := reader.VerifyTOC(wanted)
	if err != nil {
		return nil, err
	}
	verdict := &estargzVerdict{Judge: "estargz", TOCOffset: offset, TOCDigest: reader.TOCDigest()}
	compared := &comparison{reader: reader, verifier: verifier, verdict: verdict}
	stream, err := gzip.NewReader(io.NewSectionReader(file, 0, info.Size()))
	if err != nil {
		return nil, err
	}
	digester := digest.Canonical.Digester()
	plain := io.TeeReader(stream, digester.Hash())
	if err := compared.all(tar.NewReader(plain), wanted); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, fmt.Errorf("behind the tar: %w", err)
	}
	verdict.DiffID = digester.Digest()
	if verdict.DiffID.String() != diffID {
		return nil, fmt.Errorf("the tar is %s, expected %s", verdict.DiffID, diffID)
	}
	if verdict.Landmark == "" {
		return nil, errors.New("there is no landmark for prefetching")
	}
	return verdict, nil
}

// comparison holds the tar of a layer against its table.
type comparison struct {
	reader   *estargz.Reader
	verifier estargz.TOCEntryVerifier
	verdict  *estargzVerdict
	headers  []*tar.Header
}

// all reads the tar to its last entry, the table itself.
func (c *comparison) all(plain *tar.Reader, wanted digest.Digest) error {
	var table []byte
	for {
		header, err := plain.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("the tar: %w", err)
		}
		if table != nil {
			return fmt.Errorf("%q is behind the table", header.Name)
		}
		if header.Name == estargz.TOCTarName {
			if table, err = io.ReadAll(plain); err != nil {
				return fmt.Errorf("the table in the tar: %w", err)
			}
			continue
		}
		c.headers = append(c.headers, header)
		if header.Typeflag == tar.TypeReg {
			if err := c.file(header, plain); err != nil {
				return fmt.Errorf("%q: %w", header.Name, err)
			}
		}
	}
	if digest.FromBytes(table) != wanted {
		return fmt.Errorf("the table in the tar is %s, expected %s", digest.FromBytes(table), wanted)
	}
	return c.table(table)
}

// file reads a file through the verifier and holds it against the tar.
func (c *comparison) file(header *tar.Header, plain io.Reader) error {
	content := digest.Canonical.Digester()
	size, err := io.Copy(content.Hash(), plain)
	if err != nil {
		return err
	}
	switch header.Name {
	case estargz.PrefetchLandmark, estargz.NoPrefetchLandmark:
		if c.verdict.Landmark != "" || size != 1 {
			return errors.New("there is one landmark, of one byte")
		}
		c.verdict.Landmark = header.Name
	}
	c.verdict.Files++
	found, ok := c.reader.Lookup(header.Name)
	if !ok {
		return errors.New("the table does not have it")
	}
	if found.Type != "reg" || found.Size != size {
		return fmt.Errorf("the table has a %s of %d bytes, the tar a file of %d", found.Type, found.Size, size)
	}
	section, err := c.reader.OpenFile(header.Name)
	if err != nil {
		return err
	}
	whole := digest.Canonical.Digester()
	for at := int64(0); at < size; {
		chunk, ok := c.reader.ChunkEntryForOffset(header.Name, at)
		if !ok || chunk.ChunkOffset != at || chunk.ChunkSize <= 0 {
			return fmt.Errorf("no chunk begins at %d", at)
		}
		check, err := c.verifier.Verifier(chunk)
		if err != nil {
			return err
		}
		part := io.NewSectionReader(section, at, chunk.ChunkSize)
		if _, err := io.Copy(io.MultiWriter(check, whole.Hash()), part); err != nil {
			return fmt.Errorf("chunk at %d: %w", at, err)
		}
		if !check.Verified() {
			return fmt.Errorf("chunk at %d: its content has another digest", at)
		}
		at += chunk.ChunkSize
		c.verdict.Chunks++
	}
	if whole.Digest() != content.Digest() {
		return fmt.Errorf("by the table it is %s, by the tar %s", whole.Digest(), content.Digest())
	}
	if size > 0 && found.Digest != content.Digest().String() {
		return fmt.Errorf("the table tells %s, the tar has %s", found.Digest, content.Digest())
	}
	return nil
}

// table holds each entry of the table against the header at its position.
func (c *comparison) table(text []byte) error {
	var toc estargz.JTOC
	if err := json.Unmarshal(text, &toc); err != nil {
		return fmt.Errorf("the table: %w", err)
	}
	entries := slices.DeleteFunc(toc.Entries, func(entry *estargz.TOCEntry) bool { return entry.Type == "chunk" })
	if len(entries) != len(c.headers) {
		return fmt.Errorf("the table has %d entries, the tar %d", len(entries), len(c.headers))
	}
	c.verdict.Entries = len(entries)
	for index, header := range c.headers {
		entry := entries[index]
		xattrs := map[string][]byte{}
		for key, value := range header.PAXRecords {
			if name, is := strings.CutPrefix(key, xattrPrefix); is {
				xattrs[name] = []byte(value)
			}
		}
		same := cleaned(entry.Name) == cleaned(header.Name) && entry.Type == kinds[header.Typeflag] &&
			entry.LinkName == header.Linkname && entry.Mode&0o7777 == header.Mode&0o7777 &&
			entry.UID == header.Uid && entry.GID == header.Gid &&
			int64(entry.DevMajor) == header.Devmajor && int64(entry.DevMinor) == header.Devminor &&
			maps.EqualFunc(entry.Xattrs, xattrs, bytes.Equal)
		if !same {
			return fmt.Errorf("entry %d: the table has %+v, the tar %+v", index, *entry, *header)
		}
	}
	return nil
}

// cleaned is a name without what only the tar has.
func cleaned(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}
