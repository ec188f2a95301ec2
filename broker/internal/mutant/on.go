//go:build mutant

package mutant

var active Name

// Is says that the running program has the bug.
func Is(n Name) bool { return n == active }

// Set has the program have a bug, or none with "". Nothing else may run meanwhile.
func Set(n Name) { active = n }
