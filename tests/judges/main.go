// Command judge tells what the libraries of others say about layers that cas wrote.
//
// It runs the code that a client of images runs: the partial pull of containers/storage, the reader of
// stargz-snapshotter, and Go's archive/tar. A verdict is one JSON object a line; a refusal is a line of standard error
// and exit code 1. What cas itself checks is not here, and nothing here is used by cas.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"go.podman.io/storage/pkg/reexec"
)

const usage = `usage: judge <command>

  chunked LAYER_FILE MANIFEST_JSON LAYER_INDEX DIFFID OUT_DIR
                      pull a zstd:chunked layer in parts into a new store; its files are left in OUT_DIR
  estargz LAYER_FILE TOC_DIGEST DIFFID
                      verify each chunk of an eStargz layer against its table and against the tar in it
  tar FILE            list the entries of a tar, one JSON object a line
  make-chunked TAR OUT  write a zstd:chunked layer as containers/storage does, and print its manifest
  make-estargz TAR OUT  write an eStargz layer as stargz-snapshotter does, and print its manifest
  version             print the versions of the libraries
`

func main() {
	// containers/storage starts itself again for work in another root.
	if reexec.Init() {
		return
	}
	code := 0
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		code = 1
	}
	os.Exit(code)
}

func run(words []string) error {
	command := ""
	if len(words) > 0 {
		command = words[0]
	}
	switch {
	case command == "chunked" && len(words) == 6:
		index, err := strconv.Atoi(words[3])
		if err != nil {
			return fmt.Errorf("the index of the layer: %w", err)
		}
		verdict, err := judgeChunked(words[1], words[2], index, words[4], words[5])
		return show(verdict, err)
	case command == "estargz" && len(words) == 4:
		verdict, err := judgeEstargz(words[1], words[2], words[3])
		return show(verdict, err)
	case command == "tar" && len(words) == 2:
		return listTar(words[1], os.Stdout)
	case command == "make-chunked" && len(words) == 3:
		manifest, err := makeChunked(words[1], words[2])
		return show(manifest, err)
	case command == "make-estargz" && len(words) == 3:
		manifest, err := makeEstargz(words[1], words[2])
		return show(manifest, err)
	case command == "version" && len(words) == 1:
		return show(versions(), nil)
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
	return nil
}

// show prints a verdict, unless there is an error instead of it.
func show(verdict any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(verdict)
}
