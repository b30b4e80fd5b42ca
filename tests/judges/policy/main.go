// Command policy tells whether podman and skopeo would run an image under a policy.json.
//
// It runs the code that both of them run before they take an image, go.podman.io/image: an image that is allowed ends with
// exit code 0, one that is refused with 1 and the reason, and what could not be asked with 2.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

const usage = "usage: policy POLICY_JSON REGISTRIES_D HOST/NAME:TAG"

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	err := judge(os.Args[1], os.Args[2], os.Args[3])
	var refused refusal
	switch {
	case err == nil:
	case errors.As(err, &refused):
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(2)
	}
}

// A refusal is what the policy says, and no failure to ask.
type refusal struct{ reason error }

func (r refusal) Error() string { return r.reason.Error() }

func judge(policyPath, registries, name string) error {
	policy, err := signature.NewPolicyFromFile(policyPath)
	if err != nil {
		return err
	}
	reference, err := docker.ParseReference("//" + name)
	if err != nil {
		return err
	}
	// The registry of the tests has no TLS, and nobody's logins are for it.
	system := &types.SystemContext{
		RegistriesDirPath:           registries,
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
		DockerAuthConfig:            &types.DockerAuthConfig{},
	}
	ctx := context.Background()
	source, err := reference.NewImageSource(ctx, system)
	if err != nil {
		return err
	}
	defer source.Close()
	asked, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer func() { _ = asked.Destroy() }()
	allowed, err := asked.IsRunningImageAllowed(ctx, image.UnparsedInstance(source, nil))
	if allowed {
		return nil
	}
	if err == nil {
		err = errors.New("no reason is given")
	}
	return refusal{err}
}
