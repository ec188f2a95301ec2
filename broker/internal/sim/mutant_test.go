//go:build mutant

package sim

import (
	"testing"

	"github.com/leatlog/leat/broker/internal/mutant"
)

// TestBrokenCheckerIsNoticed has the checker drop every tenth comparison: its own test,
// TestCheckerNoticesEveryChange, must see that.
func TestBrokenCheckerIsNoticed(t *testing.T) {
	mutant.Set(mutant.ComparisonDropped)
	defer mutant.Set("")
	if missedChanges() == 0 {
		t.Error("a checker that drops every tenth comparison passes its test")
	}
}
