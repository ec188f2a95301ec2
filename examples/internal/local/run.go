package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Run runs an example on the cluster that its options name. Errors begin with its name.
func Run(ctx context.Context, o Options, out io.Writer, example func(*Cluster) error) error {
	cluster, err := Start(ctx, o, out)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Name, err)
	}
	if err := errors.Join(example(cluster), cluster.Close()); err != nil {
		return fmt.Errorf("%s: %w", o.Name, err)
	}
	return nil
}

// Together runs the parts of an example until all have ended. Their context ends with ctx,
// or when one of them fails; the first failure is returned.
func Together(ctx context.Context, parts ...func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var running sync.WaitGroup
	failures := make(chan error, len(parts))
	for _, part := range parts {
		running.Go(func() {
			if err := part(ctx); err != nil {
				failures <- err
				stop()
			}
		})
	}
	running.Wait()
	close(failures)
	return <-failures
}
