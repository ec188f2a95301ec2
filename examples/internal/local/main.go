package local

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main is what an example's main does when it has parsed its options, parsed being the
// error of that: it runs run until it ends, or until Ctrl-C or SIGTERM ends ctx, and
// exits with status 1 after an error, and 2 when --plan found what is incompatible. That run
// was interrupted is none.
func Main(parsed error, run func(ctx context.Context) error) {
	if errors.Is(parsed, flag.ErrHelp) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := parsed
	if err == nil {
		err = run(ctx)
	}
	interrupted := ctx.Err() != nil
	stop()
	if err != nil && !(interrupted && IsInterruption(err)) {
		fmt.Fprintln(os.Stderr, err)
		if errors.Is(err, errIncompatiblePlan) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// IsInterruption says that an error, and whatever it was joined with, is a context that
// was cancelled.
func IsInterruption(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			if !IsInterruption(one) {
				return false
			}
		}
		return true
	}
	if inner := errors.Unwrap(err); inner != nil {
		return IsInterruption(inner)
	}
	return err == context.Canceled
}
