package brokertest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/leatlog/leat/broker/brokertest"
)

// javaClients has the cases.
const javaClients = "../../benchmarks/compatibility/clients.sh"

// javaDeviations are the cases that Apache Kafka passes and the broker does not, with a
// part of what it says.
var javaDeviations = map[string]string{
	"producer: a record without a key for a compacted topic": "did not fail",
	"admin: quotas of clients":                               "UnsupportedVersionException",
	"admin: SCRAM credentials":                               "UnsupportedVersionException",
	"admin: configurations of groups":                        "InvalidRequestException",
	"admin: levels of loggers":                               "InvalidRequestException",
}

// TestJavaClients has Apache Kafka's Java clients, whose jars lie in the folder that
// LEAT_TEST_KAFKA_LIB names, do their work on the broker, or on the Apache Kafka that
// LEAT_TEST_KAFKA names.
func TestJavaClients(t *testing.T) {
	jars, address, deviations := os.Getenv("LEAT_TEST_KAFKA_LIB"), os.Getenv("LEAT_TEST_KAFKA"), map[string]string(nil)
	if jars == "" {
		t.Skip("LEAT_TEST_KAFKA_LIB names no folder with the jars of Apache Kafka's clients")
	}
	if address == "" {
		address, deviations = brokertest.Start(t).Addr(), javaDeviations
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, javaClients, jars, address).CombinedOutput() // its status is the number of failures
	passed := 0
	for line := range strings.Lines(string(out)) {
		verdict, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, why := rest, ""
		if verdict == "fail" {
			name, why, _ = strings.Cut(rest, " -- ")
		}
		t.Run(name, func(t *testing.T) {
			known, deviates := deviations[name]
			switch {
			case verdict == "pass" && deviates:
				t.Errorf("it passes, which javaDeviations denies")
			case verdict == "pass":
				passed++
			case verdict == "fail" && deviates && strings.Contains(why, known):
				t.Skip(why)
			default:
				t.Error(line)
			}
		})
	}
	if passed < 60 {
		t.Errorf("only %d cases have passed: %v\n%.2000s", passed, err, out)
	}
}
