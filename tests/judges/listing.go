package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Records of extended attributes begin so.
const xattrPrefix = "SCHILY.xattr."

// entry is a line of a listing. Bytes of names that are not printable ASCII are `\xNN`.
type entry struct {
	Type   string            `json:"type"`
	Name   string            `json:"name"`
	Link   string            `json:"link"`
	Mode   int64             `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Size   int64             `json:"size"`
	Device string            `json:"device"`
	SHA256 string            `json:"sha256"`
	Xattrs map[string]string `json:"xattrs"`
}

// kinds are the words for types of entries.
var kinds = map[byte]string{
	tar.TypeReg: "reg", tar.TypeLink: "hardlink", tar.TypeSymlink: "symlink", tar.TypeChar: "char",
	tar.TypeBlock: "block", tar.TypeDir: "dir", tar.TypeFifo: "fifo", tar.TypeGNUSparse: "reg",
}

// escape makes text of bytes, so that JSON loses none of them.
func escape(bytes string) string {
	var text strings.Builder
	for _, byte := range []byte(bytes) {
		if byte < ' ' || byte > '~' || byte == '\\' {
			fmt.Fprintf(&text, "\\x%02x", byte)
		} else {
			text.WriteByte(byte)
		}
	}
	return text.String()
}

// listTar writes a line for each entry of a tar.
func listTar(path string, out io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	buffered := bufio.NewWriter(out)
	reader := tar.NewReader(bufio.NewReaderSize(file, 1<<20))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return buffered.Flush()
		}
		if err != nil {
			return err
		}
		kind, known := kinds[header.Typeflag]
		if !known {
			return fmt.Errorf("%q has the type %q", header.Name, header.Typeflag)
		}
		line := entry{
			Type: kind, Name: escape(header.Name), Link: escape(header.Linkname), Mode: header.Mode & 0o7777,
			UID: header.Uid, GID: header.Gid, Xattrs: map[string]string{},
		}
		if kind == "char" || kind == "block" {
			line.Device = fmt.Sprintf("%d,%d", header.Devmajor, header.Devminor)
		}
		if kind == "reg" {
			line.Size = header.Size
			hash := sha256.New()
			if _, err := io.Copy(hash, reader); err != nil {
				return fmt.Errorf("%q: %w", header.Name, err)
			}
			line.SHA256 = hex.EncodeToString(hash.Sum(nil))
		}
		for key, value := range header.PAXRecords {
			if name, is := strings.CutPrefix(key, xattrPrefix); is {
				line.Xattrs[escape(name)] = escape(value)
			}
		}
		var text bytes.Buffer
		encoder := json.NewEncoder(&text)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(line); err != nil {
			return err
		}
		if _, err := text.WriteTo(buffered); err != nil {
			return err
		}
	}
}

// versions tells what was built in.
func versions() map[string]string {
	found := map[string]string{"go": runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			switch module.Path {
			case "go.podman.io/storage", "github.com/containerd/stargz-snapshotter/estargz":
				found[module.Path] = module.Version
			}
		}
	}
	return found
}
